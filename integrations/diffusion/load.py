"""Diffusers pipelines by name: bundled ones, folders, and repositories of the hub."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from stablepref.assets import PIPELINES
from stablepref.weights.network import first_line

from .named import check_pipeline
from .schedulers import check_scheduler_name, use_scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .pipelines import Pipeline

RENAMED: Final = (0, 40)
"""The version of diffusers from which on its `torch_dtype` is called `dtype`."""


def dtype_argument(installed: str | None = None) -> str:
    """What `from_pretrained` calls the number type: "dtype" from diffusers 0.40 on.

    Earlier versions call it "torch_dtype", and ignore "dtype".

    Args:
        installed: A version of diffusers; None for the one that is installed.
    """
    major, minor, *_ = (installed or version("diffusers")).split(".")
    return "dtype" if (int(major), int(minor)) >= RENAMED else "torch_dtype"


def load_pipeline(
    name: str,
    *,
    dtype: str | None,
    device: torch.device,
    scheduler: str | None = None,
    safety_checker: bool = True,
) -> Pipeline:
    """Load a diffusers pipeline onto a device, from safetensors files only.

    Args:
        name: One of `stablepref.assets.PIPELINES`, a folder, or a hub repository.
        dtype: Name of its number type; None for float32.
        device: Where it runs.
        scheduler: One of `schedulers.NAMED` in the place of the pipeline's own; None keeps that.
        safety_checker: Whether to load the safety checker of a pipeline that has one.

    Raises:
        ImportError: diffusers is not installed.
        OSError: There is no such pipeline, or it cannot be downloaded.
        ValueError: `dtype` is not the name of a floating-point type, `scheduler` is not a name or
            does not fit, or `name` is a single file or nothing that could be a pipeline.
    """
    check_pipeline(name)
    pipelines = _diffusers().DiffusionPipeline
    chosen = torch.float32 if dtype is None else getattr(torch, dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        msg = f"the pipeline's number type is {dtype!r}; expected float32, bfloat16 or float16"
        raise ValueError(msg)
    where = PIPELINES.get(name, Path(name).expanduser() if name.startswith("~") else name)
    named: dict[str, object] = {dtype_argument(): chosen}
    check_scheduler_name(scheduler)
    try:
        if not safety_checker and "safety_checker" in pipelines.load_config(where):
            named |= {"safety_checker": None, "requires_safety_checker": False}
        with _bars_on_terminals_only():
            pipe = pipelines.from_pretrained(where, **named, use_safetensors=True)
    except OSError as error:  # no such repository, a folder that lacks a part
        msg = f"the pipeline {name} cannot be loaded: {first_line(error)}"
        raise OSError(msg) from error
    loaded: Pipeline = pipe.to(device)
    use_scheduler(loaded, scheduler)
    return loaded


def load_vae(name: str, *, device: torch.device) -> Any:  # noqa: ANN401 (diffusers has no types)
    """The VAE of a pipeline by its name, in float32, from safetensors files only.

    Args:
        name: As of `load_pipeline`; or the folder of a VAE itself.
        device: Where it runs.

    Raises:
        ImportError: diffusers is not installed.
        OSError: There is no such VAE, or it cannot be downloaded.
    """
    models = _diffusers().AutoModel
    where = Path(PIPELINES.get(name, name)).expanduser()
    options: dict[str, object] = {dtype_argument(): torch.float32, "use_safetensors": True}
    if not (where.is_dir() and (where / "config.json").is_file()):
        options["subfolder"] = "vae"
    try:
        with _bars_on_terminals_only():
            vae = models.from_pretrained(str(where) if where.is_dir() else name, **options)
    except (OSError, ValueError) as error:
        msg = f"the VAE of {name} cannot be loaded: {first_line(error)}"
        raise OSError(msg) from error
    return vae.to(device).eval().requires_grad_(False)


def _diffusers() -> Any:  # noqa: ANN401 (a module)
    try:
        import diffusers  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = f"this needs diffusers: pip install 'stablepref[diffusers]' ({error})"
        raise ImportError(msg) from error
    return diffusers


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Hide the bars of loading where no terminal could redraw them; afterwards all is as before."""
    if sys.stderr is not None and sys.stderr.isatty():
        yield
        return
    import diffusers.utils.logging as of_diffusers  # noqa: PLC0415 (an extra)
    import transformers.utils.logging as of_transformers  # noqa: PLC0415 (an extra)

    shown = [one for one in (of_diffusers, of_transformers) if one.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
