"""Which pictures are drawn together: several prompts' where none depends on its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import psutil  # type: ignore[import-untyped]
import torch
from PIL import Image
from torch import Tensor

from stablepref.runtime.threads import streams_for

from ..diffusion.families import find_family
from ..diffusion.pipelines import modules_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..diffusion.pipelines import Pipeline

CPU_BATCH: Final = 4
"""Pictures at once on a CPU, and fewest there where memory allows."""
ACCELERATOR_BATCH: Final = 8
CPU_MOST: Final = 20
"""Pictures at once of a small size: `speed draw` measures it."""
ACCELERATOR_MOST: Final = 64
CPU_AREA: Final = CPU_MOST * 64 * 64
"""Pixels at once on a CPU beyond `CPU_BATCH`: those of the laboratory's pictures, measured."""
ACCELERATOR_AREA: Final = ACCELERATOR_BATCH * 1024 * 1024
_SIDE: Final = 1024
"""Side in pixels where a pipeline does not say."""
_CHANNELS: Final = 128
"""Of a decoder's last block where it does not say: those of Stable Diffusion's."""
_TENSORS: Final = 8
"""Activations of the size of the decoder's last block that are there at once: an estimate."""
_PART: Final = 0.5
"""Of the free memory that drawing may take."""


@final
@dataclass(frozen=True)
class Wanted:
    """A picture to be made.

    Attributes:
        index: What the caller knows it by.
        prompt: Its prompt.
        seed: Of its noise.
    """

    index: int
    prompt: str
    seed: int


def in_groups(
    pipe: Pipeline, wanted: Sequence[Wanted], arguments: Mapping[str, object]
) -> list[list[Wanted]]:
    """Pictures that may share batches, the groups and what is in them in the order given.

    Prompts share a batch in pipelines of diffusers that get nothing but numbers and texts. Where
    the pipeline's row does not say that prompts have a fixed length, those of a batch have equally
    many tokens, so that none is padded for the sake of another. Other arguments, such
    as callbacks and pictures, may be about one prompt, and each prompt has batches of its own.
    """
    shared = shares_prompts(pipe, arguments)
    family = find_family(pipe)
    padded = family is not None and family.fixed_length
    tokenizers = [
        part for name, part in pipe.components.items() if "tokenizer" in name and callable(part)
    ]
    groups: dict[object, list[Wanted]] = {}
    keys: dict[str, object] = {}
    for one in wanted:
        if one.prompt not in keys:
            if not shared or not (padded or tokenizers):
                keys[one.prompt] = one.prompt
            else:
                keys[one.prompt] = () if padded else _lengths(tokenizers, one.prompt)
        groups.setdefault(keys[one.prompt], []).append(one)
    return list(groups.values())


def shares_prompts(pipe: Pipeline, arguments: Mapping[str, object]) -> bool:
    """Whether a batch may hold several prompts."""
    known = find_family(pipe) is not None or type(pipe).__module__.startswith("diffusers.")
    return known and all(map(_is_plain, arguments.values()))


def _is_plain(value: object) -> bool:
    """Whether it is a number or a text, or made of numbers: the same for every prompt."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(isinstance(one, int | float) for one in value)
    return value is None or isinstance(value, int | float | str)


def _lengths(tokenizers: Sequence[Any], prompt: str) -> tuple[int, ...]:
    return tuple(len(tokenizer(prompt)["input_ids"]) for tokenizer in tokenizers)


def batch_size_for(pipe: Pipeline, arguments: Mapping[str, object], batch_size: int | None) -> int:
    """How many pictures are made at once.

    Args:
        pipe: The pipeline.
        arguments: For its call.
        batch_size: What the user asked for; None chooses by the size of the pictures and the
            device: 4 to 20 on a CPU, 8 to 64 on an accelerator, fewer where half of the free memory
            is too little for them.
    """
    if must_be_alone(pipe, arguments):
        return 1
    if batch_size is not None:
        return batch_size
    device = torch.device(pipe._execution_device)
    area = _area(pipe, arguments)
    if device.type == "cpu":
        count = min(CPU_MOST, max(CPU_BATCH, CPU_AREA // area))
    else:
        count = min(ACCELERATOR_MOST, max(ACCELERATOR_BATCH, ACCELERATOR_AREA // area))
    fits = int(_PART * _free_bytes(device) / bytes_of_one(pipe, area))
    return max(1, min(count, fits))


def overlaps(pipe: Pipeline, arguments: Mapping[str, object]) -> bool:
    """Whether finished pictures are scored while the next ones are drawn.

    They are where drawing leaves the CPU's cores to others: on an accelerator, and where a small
    pipeline computes with one thread a batch; not beside callbacks, which may hold the same scorer.
    """
    on_cpu = torch.device(pipe._execution_device).type == "cpu"
    leaves_cores = not on_cpu or streams_for(*modules_of(pipe)) > 1
    return leaves_cores and shares_prompts(pipe, arguments)


def must_be_alone(pipe: Pipeline, arguments: Mapping[str, object]) -> bool:
    """Whether in a batch a picture may depend on its place there.

    That is where a pipeline takes pictures and is not known, or takes no list of them.
    """
    unknown = find_family(pipe) is None and any(map(_holds_picture, arguments.values()))
    return unknown or arguments.get("padding_mask_crop") is not None


def _holds_picture(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_picture, value))
    return isinstance(value, Image.Image | Tensor) or type(value).__name__ == "ndarray"


def bytes_of_one(pipe: Pipeline, area: int) -> int:
    """Memory that decoding a picture of `area` pixels takes, where most pipelines need most.

    An estimate: 8 activations of the decoder's last block, which is as large as the picture. For
    Stable Diffusion 1.x at 512 x 512 in float32 it is 1.1 GB.
    """
    vae: Any = pipe.components.get("vae")
    channels = getattr(getattr(vae, "config", None), "block_out_channels", None) or [_CHANNELS]
    sizes = [weight.element_size() for part in modules_of(pipe) for weight in part.parameters()]
    return int(area * channels[0] * _TENSORS * max(sizes, default=4))


def _area(pipe: Pipeline, arguments: Mapping[str, object]) -> int:
    """Pixels of a picture."""
    family = find_family(pipe)
    names = [family.denoiser] if family is not None else ["unet", "transformer"]
    denoiser: Any = next((p for n in names if (p := pipe.components.get(n)) is not None), None)
    own = getattr(getattr(denoiser, "config", None), "sample_size", None)
    scale = getattr(pipe, "vae_scale_factor", None)
    sides = []
    for place, name in enumerate(("height", "width")):
        side = arguments.get(name)
        if not isinstance(side, int):
            latent = own[place] if isinstance(own, list | tuple) else own
            side = latent * scale if isinstance(latent, int) and isinstance(scale, int) else _SIDE
        sides.append(side)
    return max(1, sides[0] * sides[1])


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)
