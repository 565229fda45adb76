"""The ways to run a scorer's encoders faster than in float32, each as a context that yields it."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import nn

from stablepref.models import clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from stablepref.scorer import Scorer

    Candidate = Callable[[Scorer], AbstractContextManager[Scorer]]


@contextmanager
def cast(scorer: Scorer, dtype: torch.dtype) -> Iterator[Scorer]:
    """Weights in `dtype`, as `load(..., dtype=dtype)` has them: see `stablepref.models.clip`."""
    yield copy.deepcopy(scorer).to(dtype)


@contextmanager
def throughout(scorer: Scorer) -> Iterator[Scorer]:
    """All in bfloat16, the sum that runs through the blocks included: open_clip's own way."""
    with patch.object(clip, "FLOAT32_STREAM", ()):
        yield copy.deepcopy(scorer).to(torch.bfloat16)


@contextmanager
def float32_norms(scorer: Scorer) -> Iterator[Scorer]:
    """As `throughout`, but the weights of the layer norms are float32.

    (A layer norm of bfloat16 values is computed in float32 inside in any case.)
    """
    exact = [module.state_dict() for module in scorer.modules() if isinstance(module, nn.LayerNorm)]
    with throughout(scorer) as model:
        norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
        for module, weights in zip(norms, exact, strict=True):
            module.float().load_state_dict(weights)
        yield model


@contextmanager
def reduced_products(scorer: Scorer) -> Iterator[Scorer]:
    """Float32 weights whose matrix products oneDNN may compute in bfloat16.

    By `torch.backends.mkldnn.matmul.fp32_precision`. On a CPU without AMX it changes the library
    that multiplies, but not the precision.
    """
    library: Any = torch.backends.mkldnn  # its stub does not know the attribute
    before = library.matmul.fp32_precision
    library.matmul.fp32_precision = "bf16"
    try:
        yield scorer
    finally:
        library.matmul.fp32_precision = before


CANDIDATES: dict[str, Candidate] = {
    "bfloat16": partial(cast, dtype=torch.bfloat16),
    "bfloat16 throughout": throughout,
    "bfloat16 throughout, norms float32": float32_norms,
    "float32, bfloat16 products": reduced_products,
    "float16": partial(cast, dtype=torch.float16),
}
CLIP_ONLY = frozenset({"bfloat16 throughout", "bfloat16 throughout, norms float32"})
"""Those that differ from others only where a model has open_clip's towers."""
