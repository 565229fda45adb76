"""Fingerprints: short hashes that tell the weights of one model from another's, quickly."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLED: Final = 16
"""Roughly how many values of each weight are hashed."""


def weights_digest(model: nn.Module) -> str:
    """A hash of names and shapes of all weights, and of values spread over each of them.

    Equal for equal weights wherever they are stored; another checkpoint of the same architecture,
    or another number type, gives another one. Of weights that accelerate has put out of reach
    (sequential offloading leaves them on the meta device) only names and shapes are hashed.
    """
    digest = blake2b(digest_size=8)
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        if not weight.is_meta:
            values = weight.detach().flatten()
            sample = values[:: max(1, len(values) // SAMPLED)].cpu().double().numpy()
            digest.update(sample.tobytes())
    return digest.hexdigest()


def scheduler_digest(scheduler: object) -> str:
    """A scheduler's class with a hash of its settings, except the version that wrote them.

    Args:
        scheduler: One of diffusers, or None.
    """
    config: Mapping[str, object] = getattr(scheduler, "config", {})
    settings = {name: config[name] for name in sorted(config) if not name.startswith("_")}
    text = json.dumps(settings, default=repr)
    return f"{type(scheduler).__name__} {blake2b(text.encode(), digest_size=8).hexdigest()}"


def part_digests(parts: Mapping[str, object]) -> dict[str, str]:
    """The digest of each part of a pipeline that has weights, in the order of their names.

    Args:
        parts: A pipeline's `components`: networks, and things that are not.
    """
    return {
        name: weights_digest(part)
        for name, part in sorted(parts.items())
        if isinstance(part, nn.Module)
    }
