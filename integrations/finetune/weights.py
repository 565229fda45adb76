"""What is trained: a denoiser's LoRA matrices or all of its weights, and further copies of them."""

from __future__ import annotations

import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch import nn

from stablepref.output.durable import WRITING, sync

from ..diffusion.denoiser import denoiser_of
from ..diffusion.families import family_of
from ..diffusion.load import dtype_argument
from ..diffusion.pipelines import unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TRAINABLE: Final = (torch.float32, torch.float64)


@final
class TrainedWeights(nn.Module):
    """The trained weights of a denoiser by name, as a module that can be checkpointed alone.

    Its weights are the denoiser's own, not copies.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        for name, weight in denoiser.named_parameters():
            if weight.requires_grad:
                # Dots would be submodules.
                self.register_parameter(name.replace(".", "/"), weight)


@final
class WeightCopy(nn.Module):
    """A copy of trained weights, which can stand in their place for a while.

    Args:
        weights: What is copied, as it is now.
    """

    def __init__(self, weights: TrainedWeights) -> None:
        super().__init__()
        self._trained = list(weights.parameters())  # in a list, so that they are not its own
        for name, weight in weights.named_parameters():
            self.register_buffer(name, weight.detach().clone())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the denoiser computes with the copy; for forward passes without gradient."""
        own = [weight.data for weight in self._trained]
        try:
            self._point_at([copy for _, copy in self.named_buffers()])
            yield
        finally:
            self._point_at(own)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Come nearer to the weights: decay x copy + (1 - decay) x weights."""
        for (_, copy), weight in zip(self.named_buffers(), self._trained, strict=True):
            copy.lerp_(weight, 1 - decay)

    @torch.no_grad()
    def put(self) -> None:
        """Write the copy into the weights."""
        for (_, copy), weight in zip(self.named_buffers(), self._trained, strict=True):
            weight.copy_(copy)

    def _point_at(self, values: list[torch.Tensor]) -> None:
        for weight, value in zip(self._trained, values, strict=True):
            weight.data = value


def train_everything(pipe: Any) -> TrainedWeights:  # noqa: ANN401 (diffusers has no types)
    """Freeze a pipeline but for its denoiser, of which all weights are to be trained.

    Args:
        pipe: A pipeline that `check_denoisable` accepts.

    Raises:
        ValueError: The denoiser is in half precision, which loses small steps.
    """
    check_precision(pipe)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
    denoiser: Any = unwrapped(denoiser_of(pipe))
    denoiser.requires_grad_(True)
    return TrainedWeights(denoiser)


def check_precision(pipe: object) -> None:
    """Refuse a denoiser whose weights lose small steps.

    Raises:
        ValueError: It is in half precision.
    """
    kind = unwrapped(denoiser_of(pipe)).dtype
    if kind not in _TRAINABLE:
        msg = (
            f"the {family_of(pipe).denoiser} is in {str(kind).removeprefix('torch.')}, and rank=0 "
            f"trains its own weights, which needs {dtype_argument()}=torch.float32; or take LoRA, "
            "rank=4 say, whose matrices are in float32 beside it"
        )
        raise ValueError(msg)


def save_denoiser(pipe: Any, folder: Path) -> None:  # noqa: ANN401 (diffusers has no types)
    """Write a pipeline's denoiser for its class's `from_pretrained(folder)`, whole or not at all.

    Raises:
        OSError: The folder cannot be written.
    """
    with replacing_folder(folder) as staging:
        unwrapped(denoiser_of(pipe)).save_pretrained(staging)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to write files in, which takes the place of `folder` when the block ends.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    staging, old = (
        folder.with_name(f".{folder.name}.{secrets.token_hex(8)}{WRITING}") for _ in range(2)
    )
    yield staging
    for file in staging.iterdir():
        sync(file)
    if folder.exists():
        folder.rename(old)
    try:
        staging.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync(folder.parent)
