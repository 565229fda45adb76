"""The policies beside the one that is trained: the one that draws, the average, the first one."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from .lora import add_lora, remove_lora, save_lora, without_lora
from .weights import TrainedWeights, WeightCopy, save_denoiser, train_everything

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import nn

    from .config import FinetuneConfig


@final
@dataclass(frozen=True)
class Policies:
    """The weights of a fine-tuning and the copies of them that it needs.

    A policy is a denoiser with some set of weights. With LoRA a copy holds matrices of its own, as
    a second adapter would; without it, all of the denoiser's weights.

    Attributes:
        pipe: The pipeline.
        lora: Whether LoRA matrices are trained, not the denoiser's own weights.
        trained: What is trained.
        old: What draws the pictures to train on; None where the trained weights do.
        average: A moving average, for samples and for the end; None without one.
        first: The weights before training; None with LoRA, which can be switched off.
    """

    pipe: Any
    lora: bool
    trained: TrainedWeights
    old: WeightCopy | None
    average: WeightCopy | None
    first: WeightCopy | None

    @classmethod
    def of(cls, pipe: Any, config: FinetuneConfig) -> Policies:  # noqa: ANN401 (diffusers has no types)
        """Prepare a pipeline for training.

        Args:
            pipe: A pipeline that `check_denoisable` accepts, without adapters.
            config: Says what is trained, and with which copies.

        Raises:
            ImportError: peft is not installed.
            ValueError: The denoiser cannot be trained so.
        """
        if config.rank:
            trained = add_lora(pipe, rank=config.rank, alpha=config.lora_alpha, seed=config.seed)
        else:
            trained = train_everything(pipe)
        return cls(
            pipe,
            bool(config.rank),
            trained,
            WeightCopy(trained) if config.method == "nft" else None,
            WeightCopy(trained) if config.ema_decay else None,
            None if config.rank else WeightCopy(trained),
        )

    def modules(self) -> list[nn.Module]:
        """What a checkpoint holds."""
        return [one for one in (self.trained, self.old, self.average) if one is not None]

    def drawing(self) -> AbstractContextManager[None]:
        """Within, the pipeline is the policy that draws the pictures to train on."""
        return nullcontext() if self.old is None else self.old.in_place()

    def shown(self) -> AbstractContextManager[None]:
        """Within, the pipeline is the policy that is monitored and saved."""
        return nullcontext() if self.average is None else self.average.in_place()

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within, the pipeline predicts as it did before training; without gradient."""
        with without_lora(self.pipe) if self.first is None else self.first.in_place():
            yield

    def save(self, folder: Path) -> None:
        """Write the trained weights: LoRA matrices, or the denoiser.

        Raises:
            OSError: The folder cannot be written.
        """
        if self.lora:
            save_lora(self.pipe, folder)
        else:
            save_denoiser(self.pipe, folder)

    def finish(self) -> None:
        """Leave the pipeline as the policy that is saved."""
        if self.average is not None:
            self.average.put()

    def withdraw(self) -> None:
        """Leave the pipeline as it was before training."""
        if self.first is None:
            remove_lora(self.pipe)
        else:
            self.first.put()
            self.trained.requires_grad_(False)
