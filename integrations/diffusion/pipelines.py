"""A pipeline's weights while gradients pass through them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..best_of_n.candidates import Pipeline


def refuse_offloading(pipe: Pipeline) -> None:
    """Refuse weights that move away between the forward and the backward pass.

    Raises:
        ValueError: accelerate or diffusers offloads a part of the pipeline.
    """
    for name, part in pipe.components.items():
        for module in part.modules() if isinstance(part, nn.Module) else ():
            if _is_offloaded(module):
                msg = (
                    f"the pipeline's {name} is offloaded, and a backward pass needs all weights in "
                    "place: load it without offloading and use pipe.to(device)"
                )
                raise ValueError(msg)


def refuse_safety_checker(pipe: Pipeline) -> None:
    """Refuse a pipeline that would blank what the reward sees.

    Raises:
        ValueError: It has a safety checker.
    """
    if pipe.components.get("safety_checker") is not None:
        msg = (
            "the pipeline has a safety checker, which would blank pictures that the reward sees: "
            "load it with safety_checker=None, or set pipe.safety_checker = None; what is found "
            "works in a pipeline with one"
        )
        raise ValueError(msg)


def _is_offloaded(module: nn.Module) -> bool:
    hook, hooks = (getattr(module, name, None) for name in ("_hf_hook", "_diffusers_hook"))
    by_accelerate = bool(getattr(hook, "offload", False)) or type(hook).__name__ == "CpuOffload"
    return by_accelerate or (hooks is not None and hooks.get_hook("group_offloading") is not None)


@contextmanager
def frozen(pipe: Pipeline) -> Iterator[None]:
    """Within, gradients pass through the pipeline's weights and nothing is kept for their own."""
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    trained = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


@contextmanager
def decoder_lifted(vae: Any) -> Iterator[None]:  # noqa: ANN401 - diffusers is untyped
    """Within, a float16 decoder that overflows, as SDXL's does, is in float32.

    Its pipeline does the same. A backward pass through the decoder has to be within, too.
    """
    lifted = vae.dtype == torch.float16 and bool(vae.config.get("force_upcast"))
    if lifted:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if lifted:
            vae.to(torch.float16)


def overflow_advice(pipe: Any) -> str:  # noqa: ANN401 - diffusers is untyped
    """How an error message goes on where half precision may be its cause; else empty."""
    if pipe.vae.dtype != torch.float16:
        return ""
    return ". In float16 this may be an overflow: load the pipeline in bfloat16 or float32"
