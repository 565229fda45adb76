"""What text encoders made of their latest inputs, remembered from call to call."""

from __future__ import annotations

import functools
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch import Tensor, nn

from .call import around_forward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REMEMBERED: Final = 8
"""Batches of texts whose encoding is remembered for each text encoder."""


@final
class Texts:
    """What the text encoders of a pipeline returned for their latest inputs, without gradients.

    For encoders whose weights do not change while this is in use.
    """

    def __init__(self) -> None:
        self._known: dict[str, OrderedDict[object, object]] = {}

    @contextmanager
    def remembered(self, pipe: Any) -> Iterator[None]:  # noqa: ANN401 (diffusers has no types)
        """Within, a text that was encoded before is not encoded again."""
        with ExitStack() as stack:
            for name, part in pipe.components.items():
                if name.startswith("text_encoder") and isinstance(part, nn.Module):
                    known = self._known.setdefault(name, OrderedDict())
                    stack.enter_context(
                        around_forward(part, functools.partial(_recalled, known, part))
                    )
            yield


def _recalled(
    known: OrderedDict[object, object],
    encoder: nn.Module,
    forward: Callable[..., object],
    *args: object,
    **kwargs: object,
) -> object:
    """What an encoder returned for the same arguments, or returns now."""
    weight = next(encoder.parameters(), None)
    place = None if weight is None else (weight.dtype, weight.device)
    key = place, _key(args), tuple((name, _key(value)) for name, value in sorted(kwargs.items()))
    if key not in known:
        with torch.no_grad():
            known[key] = forward(*args, **kwargs)
        while len(known) > _REMEMBERED:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]


def _key(value: object) -> object:
    if isinstance(value, Tensor):
        return value.shape, value.dtype, tuple(value.flatten().tolist())
    if isinstance(value, tuple | list):
        return tuple(_key(part) for part in value)
    return repr(value)
