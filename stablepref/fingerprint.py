"""What tells the weights of one model from another's, quickly."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import nn

SAMPLED: Final = 16
"""About so many values of each weight are looked at."""


def weights_digest(model: nn.Module) -> str:
    """A hash of names and shapes of all weights, and of values spread over each of them.

    Equal for equal weights wherever they are stored; another checkpoint of the same architecture,
    or another number type, gives another one.
    """
    digest = blake2b(digest_size=8)
    for name, weight in model.state_dict().items():
        values = weight.detach().flatten()
        sample = values[:: max(1, len(values) // SAMPLED)].cpu().double().numpy()
        digest.update(f"{name} {tuple(weight.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()
