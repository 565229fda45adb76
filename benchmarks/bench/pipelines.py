"""Pipelines of a benchmark, loaded with their LoRAs, and what tells them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from stablepref.integrations.best_of_n.candidates import check_pipeline
from stablepref.integrations.diffusion.load import load_pipeline
from stablepref.weights.fingerprint import part_digests, scheduler_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from stablepref.integrations.best_of_n.candidates import Pipeline

    from .contestants import Contestant


class _TakesLoras(Protocol):
    """What is asked of a pipeline that LoRAs are put on."""

    def load_lora_weights(self, where: str, **kwargs: object) -> None:
        """Load one."""

    def set_adapters(self, names: list[str], weights: list[float]) -> None:
        """Use several, each with its weight."""


def load_contestant(
    contestant: Contestant,
    arguments: Mapping[str, object],
    *,
    dtype: str | None,
    device: torch.device,
) -> Pipeline:
    """The pipeline with its LoRAs, checked for the arguments of its call.

    Raises:
        ValueError: An argument is none of the pipeline's, or as `load_pipeline`.
        TypeError: It makes no images of text, or takes no LoRAs.
        OSError: It or a LoRA is not there.
        ImportError: diffusers is not installed.
    """
    pipe = load_pipeline(contestant.source, dtype=dtype, device=device)
    check_pipeline(pipe, arguments)
    if contestant.loras:
        if not hasattr(pipe, "load_lora_weights"):
            msg = f"{contestant.name}: a {type(pipe).__name__} takes no LoRA"
            raise TypeError(msg)
        with_loras = cast("_TakesLoras", pipe)
        names = [f"lora-{place}" for place in range(len(contestant.loras))]
        for name, lora in zip(names, contestant.loras, strict=True):
            with_loras.load_lora_weights(lora.path, adapter_name=name, use_safetensors=True)
        with_loras.set_adapters(names, [lora.weight for lora in contestant.loras])
    return pipe


def pipeline_digest(pipe: Pipeline) -> dict[str, str]:
    """What tells a pipeline's pictures from another's: its class, scheduler and all weights."""
    return {
        "pipeline": type(pipe).__name__,
        "scheduler": scheduler_digest(pipe.components.get("scheduler")),
        **part_digests(pipe.components),
    }
