"""A pipeline's text encoders, run once for each text while many images are made of it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..best_of_n.candidates import Pipeline


@contextmanager
def texts_encoded_once(pipe: Pipeline) -> Iterator[None]:
    """Within, what a text encoder of `pipe` returned for the same tokens is returned again.

    Pipelines differ in what they make of their encoders' outputs and in how embeddings are passed,
    but all of them call the encoders as modules. What is remembered is forgotten at the end.
    """
    with ExitStack() as stack:
        for name, part in pipe.components.items():
            if name.startswith("text_encoder") and isinstance(part, nn.Module):
                stack.enter_context(_remembering(part))
        yield


@contextmanager
def _remembering(encoder: nn.Module) -> Iterator[None]:
    """Give the module a `forward` of its own, in front of the one it has, and take it away again.

    Offloading puts its own there too: it is then called, and moves weights, only when needed.
    """
    before = vars(encoder).get("forward")
    forward = encoder.forward
    known: dict[object, object] = {}

    def remembered(*args: object, **kwargs: object) -> object:
        key = _key(args), tuple((name, _key(value)) for name, value in sorted(kwargs.items()))
        if key not in known:
            known[key] = forward(*args, **kwargs)
        return known[key]

    vars(encoder)["forward"] = remembered
    try:
        yield
    finally:
        if before is None:
            del vars(encoder)["forward"]
        else:
            vars(encoder)["forward"] = before


def _key(value: object) -> object:
    if isinstance(value, Tensor):
        return value.shape, value.dtype, tuple(value.flatten().tolist())
    if isinstance(value, tuple | list):
        return tuple(_key(part) for part in value)
    return repr(value)
