"""What `stablepref select` does, once the command line is parsed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from stablepref.assets import PIPELINES

from ..best_of_n.choose import best_of_n

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stablepref.cli.score import Options

    from ..best_of_n.candidates import Pipeline
    from ..best_of_n.selection import Selection


def select(
    pipeline: str,
    prompts: Sequence[str],
    options: Options,
    *,
    out: Path,
    n: int,
    keep: int,
    seed: int,
    batch_size: int | None,
    pipeline_dtype: str | None,
    prune: Mapping[float, float] | None,
    call: Mapping[str, object],
    as_json: bool,
) -> None:
    """Make and score candidates, write them to `out`, and print the best.

    Args:
        pipeline: Folder or hub repository of a diffusers pipeline.
        prompts: One or more; several get folders of their own in `out`.
        options: The scorer and how it runs.
        out: Folder for the candidates.
        n: As in `best_of_n`, as are keep, seed and batch_size.
        keep: As above.
        seed: As above.
        batch_size: As above.
        pipeline_dtype: Name of the pipeline's number type; None for float32.
        prune: As in `best_of_n`.
        call: For the pipeline's call.
        as_json: Print JSON in place of lines.

    Raises:
        ValueError: An argument is wrong, see `best_of_n`, or no number type.
        OSError: The pipeline or the scorer cannot be loaded, or `out` not be written.
        ImportError: diffusers is not installed.
    """
    scorer = options.load()
    pipe = load_pipeline(pipeline, dtype=pipeline_dtype, device=scorer.device)
    several = len(prompts) > 1
    arguments: dict[str, Any] = {
        "keep": keep,
        "batch_size": batch_size,
        "seed": seed,
        "views": options.views,
        "prune": prune,
        "out": out,
        **call,
    }
    if several:
        made = best_of_n(pipe, list(prompts), scorer, n, **arguments)
    else:
        made = [best_of_n(pipe, prompts[0], scorer, n, **arguments)]
    folders = [out / f"{i:03d}" if several else out for i in range(len(made))]
    if as_json:
        rows = [s.row() | {"folder": str(f)} for s, f in zip(made, folders, strict=True)]
        print(json.dumps(rows, indent=1))
        return
    for selection, folder in zip(made, folders, strict=True):
        _print(selection, folder)


def load_pipeline(name: str, *, dtype: str | None, device: torch.device) -> Pipeline:
    """A diffusers pipeline: bundled, or of a folder or the hub; safetensors only, on the device.

    Args:
        name: One of `stablepref.assets.PIPELINES`, a folder, or a hub repository.
        dtype: Number type; None for float32.
        device: Where to.

    Raises:
        ImportError: diffusers is not installed.
        OSError: There is no such pipeline, or it cannot be downloaded.
        ValueError: `dtype` is no number type.
    """
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        msg = f"this needs diffusers: pip install 'stablepref[diffusers]' ({error})"
        raise ImportError(msg) from error
    chosen = torch.float32 if dtype is None else getattr(torch, dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        msg = f"--pipeline-dtype {dtype}: expected float32, bfloat16 or float16"
        raise ValueError(msg)
    where = PIPELINES.get(name, name)
    pipe = DiffusionPipeline.from_pretrained(where, torch_dtype=chosen, use_safetensors=True)
    loaded: Pipeline = pipe.to(device)
    return loaded


def _print(selection: Selection, folder: Path) -> None:
    print(f"{selection.prompt}: best of {len(selection.candidates)}")
    for place, index in enumerate(selection.kept, start=1):
        candidate = selection.candidates[index]
        print(f"{place:4d}  {candidate.score:.4f}  seed {candidate.seed}")
    if selection.margin is not None:
        close = "a tie: within" if selection.tie else "more than"
        print(
            f"margin over the second {selection.margin:.4f}, {close} the spread over weak views, "
            f"{selection.spread:.4f}"
        )
    print(f"model {selection.model}, {selection.unit}; all candidates: {folder}/candidates.html")
