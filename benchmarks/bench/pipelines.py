"""Pipelines of a benchmark, loaded with their LoRAs, and what identifies them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from stablepref.integrations.best_of_n.candidates import check_pipeline
from stablepref.integrations.diffusion.described import pipeline_digests
from stablepref.integrations.diffusion.load import load_pipeline
from stablepref.weights.fingerprint import scheduler_digest

from .loras import put_lora

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from stablepref.integrations.diffusion.pipelines import Pipeline

    from .contestants import Contestant


class _TakesLoras(Protocol):
    """The part of a pipeline that takes LoRAs."""

    def set_adapters(self, names: list[str], weights: list[float]) -> None:
        """Use several, each with its weight."""


def load_contestant(
    contestant: Contestant,
    arguments: Mapping[str, object],
    *,
    dtype: str | None,
    device: torch.device,
) -> Pipeline:
    """The pipeline with its LoRAs; the arguments of its call are checked.

    Args:
        contestant: The pipeline and its LoRAs.
        arguments: For the pipeline's call.
        dtype: Number type of the pipeline; None for float32.
        device: Where it runs.

    Raises:
        ValueError: The pipeline's call does not take one of the arguments, the number type is
            unknown, or a LoRA does not fit.
        TypeError: The pipeline does not turn text into images, or does not take LoRAs.
        OSError: The pipeline or a LoRA is missing.
        ImportError: diffusers is not installed.
    """
    pipe = load_pipeline(contestant.source, dtype=dtype, device=device)
    check_pipeline(pipe, arguments)
    if contestant.loras:
        if not hasattr(pipe, "load_lora_weights"):
            msg = (
                f"{contestant.name}: a {type(pipe).__name__} does not take LoRAs; drop lora=... "
                "from this model"
            )
            raise TypeError(msg)
        with_loras = cast("_TakesLoras", pipe)
        names = [f"lora-{place}" for place in range(len(contestant.loras))]
        for name, lora in zip(names, contestant.loras, strict=True):
            put_lora(pipe, lora.path, name=name)
        with_loras.set_adapters(names, [lora.weight for lora in contestant.loras])
    return pipe


def pipeline_digest(pipe: Pipeline) -> dict[str, str]:
    """What a pipeline's pictures depend on: its class, its scheduler and all its weights."""
    return {
        "pipeline": type(pipe).__name__,
        "scheduler": scheduler_digest(pipe.components.get("scheduler")),
        **pipeline_digests(pipe),
    }
