"""Fingerprints: short hashes that tell weights and settings from others, quickly."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


def text_digest(texts: Iterable[str]) -> str:
    """A hash of texts in their order."""
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return blake2b(joined, digest_size=8).hexdigest()


def fingerprint(value: object) -> object:
    """A plain JSON value that differs where `value` does: itself, or a hash of its content.

    For an object with a method `described`, as `RewardGuidance` has, it is what that returns. For
    any other object, such as a function, it is the type alone: two functions are not told apart.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [fingerprint(part) for part in value]
    if isinstance(value, dict):
        return {str(key): fingerprint(part) for key, part in value.items()}
    if isinstance(value, Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, Image.Image):
        value = np.asarray(value.convert("RGBA"))
    if isinstance(value, np.ndarray):
        digest = blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).hexdigest()
        return f"{'x'.join(map(str, value.shape))} {digest}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if callable(describe := getattr(value, "described", None)):
        return {"type": kind, "described": fingerprint(describe())}
    return kind
