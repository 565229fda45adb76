"""LoRA matrices on a pipeline's denoiser: put on, trained, and saved as diffusers loads them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from torch import nn

from ..diffusion.denoiser import denoiser_of
from ..diffusion.families import family_of
from ..diffusion.pipelines import unwrapped
from .weights import TrainedWeights, replacing_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ADAPTER: Final = "stablepref"
"""Name of the adapter in the pipeline, for `pipe.set_adapters`."""


def add_lora(
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    *,
    rank: int,
    seed: int,
    alpha: int | None = None,
) -> TrainedWeights:
    """Freeze a pipeline and put LoRA matrices (Hu et al. 2021) on its denoiser's attention.

    The pipeline makes the same pictures as before, until they are trained: the second matrices
    begin at zero. They are of float32, or float64 for a pipeline in float64, whatever type the
    pipeline computes in.

    Args:
        pipe: A pipeline that `check_denoisable` accepts.
        rank: Of the matrices.
        seed: Of the first matrices.
        alpha: Their product counts alpha / rank times; None for once.

    Raises:
        ImportError: peft is not installed.
        ValueError: The denoiser has adapters already.
    """
    try:
        from peft import LoraConfig  # noqa: PLC0415 - an extra
    except ImportError as error:
        msg = f"this needs peft: pip install 'stablepref[diffusers]' ({error})"
        raise ImportError(msg) from error
    check_no_adapters(pipe)
    denoiser: Any = unwrapped(denoiser_of(pipe))
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser.add_adapter(
            LoraConfig(
                r=rank,
                lora_alpha=alpha or rank,
                init_lora_weights="gaussian",
                target_modules=_layers(denoiser, family_of(pipe).lora_targets),
            ),
            adapter_name=ADAPTER,
        )
    for weight in denoiser.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.promote_types(denoiser.dtype, torch.float32))
    return TrainedWeights(denoiser)


def _layers(denoiser: nn.Module, ends: Sequence[str]) -> list[str]:
    """The linear layers whose names end so; FLUX.2 has lists of layers of such a name, too."""
    after = tuple(f".{end}" for end in ends)
    return [
        name
        for name, layer in denoiser.named_modules()
        if isinstance(layer, nn.Linear) and f".{name}".endswith(after)
    ]


def check_no_adapters(pipe: object) -> None:
    """Refuse a pipeline with adapters: which of them draw, and are trained, would be unclear.

    Raises:
        ValueError: The denoiser has some.
    """
    if present := list(getattr(unwrapped(denoiser_of(pipe)), "peft_config", {})):
        msg = (
            f"the pipeline has adapters already: {', '.join(present)}; fuse them with "
            "pipe.fuse_lora() and pipe.unload_lora_weights(), or load the pipeline anew"
        )
        raise ValueError(msg)


def remove_lora(pipe: Any) -> None:  # noqa: ANN401 (diffusers has no types)
    """Leave the denoiser as it was before `add_lora`."""
    network: Any = unwrapped(denoiser_of(pipe))
    network.unload_lora()


def save_lora(pipe: Any, folder: Path) -> None:  # noqa: ANN401 (diffusers has no types)
    """Write the matrices to `folder` for `pipe.load_lora_weights(folder)`, whole or not at all.

    Raises:
        OSError: The folder cannot be written.
    """
    from peft import get_peft_model_state_dict  # noqa: PLC0415 - an extra

    network: Any = unwrapped(denoiser_of(pipe))
    chosen = network.peft_config[ADAPTER]
    scale = chosen.lora_alpha / chosen.r  # in the second matrix, as readers differ in alpha
    state = {
        name: (weight * scale if ".lora_B." in name else weight).contiguous()
        for name, weight in get_peft_model_state_dict(network, adapter_name=ADAPTER).items()
    }
    part = family_of(pipe).denoiser
    # The names that diffusers reads: its own for a UNet, peft's for a transformer.
    named = convert_state_dict_to_diffusers(state) if part == "unet" else state
    with replacing_folder(folder) as staging:
        pipe.save_lora_weights(staging, **{f"{part}_lora_layers": named})


@contextmanager
def without_lora(pipe: object) -> Iterator[None]:
    """Within, the denoiser predicts as it did before `add_lora`; without gradient."""
    network: Any = unwrapped(denoiser_of(pipe))
    network.disable_adapters()
    try:
        yield
    finally:
        network.enable_adapters()
