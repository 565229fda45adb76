"""Diffusers pipelines by name: bundled ones, folders, and repositories of the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from stablepref.assets import PIPELINES

from .single_file import refuse_single_file

if TYPE_CHECKING:
    from .pipelines import Pipeline


def load_pipeline(name: str, *, dtype: str | None, device: torch.device) -> Pipeline:
    """Load a diffusers pipeline onto a device, from safetensors files only.

    Args:
        name: One of `stablepref.assets.PIPELINES`, a folder, or a hub repository.
        dtype: Name of its number type; None for float32.
        device: Where it runs.

    Raises:
        ImportError: diffusers is not installed.
        OSError: There is no such pipeline, or it cannot be downloaded.
        ValueError: `dtype` is not the name of a floating-point type, or `name` is a single file.
    """
    try:
        from diffusers import DiffusionPipeline  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = f"this needs diffusers: pip install 'stablepref[diffusers]' ({error})"
        raise ImportError(msg) from error
    chosen = torch.float32 if dtype is None else getattr(torch, dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        msg = f"the pipeline's number type is {dtype!r}; expected float32, bfloat16 or float16"
        raise ValueError(msg)
    where = PIPELINES.get(name, name)
    refuse_single_file(str(where))
    pipe = DiffusionPipeline.from_pretrained(where, torch_dtype=chosen, use_safetensors=True)
    loaded: Pipeline = pipe.to(device)
    return loaded
