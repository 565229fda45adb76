"""Low-rank matrices beside a network's own (Hu et al. 2021, arXiv:2106.09685), by peft.

peft is an optional dependency, so it is imported when matrices are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

ADAPTER: Final = "default"
BASE: Final = ".base_layer."
SCALE: Final = 2.0
"""Factor of the product of both matrices: alpha is twice the rank, as in HPS v3's configuration."""


def add_matrices(network: Any, *, rank: int, seed: int) -> None:  # noqa: ANN401 - any module
    """Put matrices beside every linear layer of a network, in place, and freeze the rest of it.

    The network computes what it did before, until they are trained: the second matrices begin at
    zero.

    Args:
        network: A module without such matrices.
        rank: Of the matrices.
        seed: Of the first matrices.

    Raises:
        ImportError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - an extra
    except ImportError as error:
        msg = f"training low-rank matrices needs peft: pip install 'stablepref[vlm]' ({error})"
        raise ImportError(msg) from error
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    config = LoraConfig(r=rank, lora_alpha=round(SCALE * rank), target_modules=names)
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network, adapter_name=ADAPTER)


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the network without matrices that computes the same.

    Args:
        state: Weights with those of the matrices; without any it is returned as it is.
    """
    plain = {}
    for name, weight in state.items():
        layer, is_base, kind = name.rpartition(BASE)
        if is_base and kind == "weight":
            first, second = (
                state[f"{layer}.lora_{which}.{ADAPTER}.weight"] for which in ("A", "B")
            )
            change = SCALE * (second.double() @ first.double())
            plain[f"{layer}.weight"] = (weight.double() + change.to(weight.device)).to(weight.dtype)
        elif is_base:
            plain[f"{layer}.{kind}"] = weight
        elif ".lora_A." not in name and ".lora_B." not in name:
            plain[name] = weight
    return plain
