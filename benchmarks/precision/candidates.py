"""The ways to run a scorer's encoders faster than in float32, each as a context that yields it.

On a machine that has no units for half-precision products, `EmulatedProducts` computes them in
float32, a hundred times as fast.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from stablepref.models import clip
from stablepref.runtime.precision import REDUCED, widen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """All in bfloat16 as in `throughout`, but for the weights of the layer norms in float32.

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


@contextmanager
def int8_products(scorer: Scorer) -> Iterator[Scorer]:
    """Dynamic quantisation: both factors of every linear layer's product in 8-bit whole numbers.

    As torchao's `Int8DynamicActivationInt8WeightConfig` has it: weights by the largest of each
    output, activations by the largest of each token. Products are computed in float32, in which
    those of such numbers are exact but for the last bits of long sums; what units for them would
    save is not seen in the seconds.
    """
    with patch.object(functional, "linear", int8_linear):
        yield scorer


def int8_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` of factors that are rounded to 255 levels a row."""
    return torch.addmm(
        torch.zeros((), dtype=x.dtype, device=x.device) if bias is None else bias,
        rounded_rows(x.flatten(0, -2)),
        rounded_rows(weight).T,
    ).unflatten(0, x.shape[:-1])


def rounded_rows(values: Tensor) -> Tensor:
    """Each row in multiples of 1/127 of its largest magnitude, `(rows, columns)`."""
    step = values.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny) / 127
    return (values / step).round() * step


CANDIDATES: dict[str, Candidate] = {
    "bfloat16": partial(cast, dtype=torch.bfloat16),
    "bfloat16 throughout": throughout,
    "bfloat16 throughout, norms float32": float32_norms,
    "float32, bfloat16 products": reduced_products,
    "float16": partial(cast, dtype=torch.float16),
    "int8": int8_products,
}
CLIP_ONLY = frozenset({"bfloat16 throughout", "bfloat16 throughout, norms float32"})
"""Those that differ from others only where a model has open_clip's towers."""

aten: Final = torch.ops.aten
# In inference mode torch dispatches the composite operators themselves, else what they consist of.
PRODUCTS: Final = frozenset(
    {
        aten.linear.default,
        aten.matmul.default,
        aten.conv2d.default,
        aten.scaled_dot_product_attention.default,
        aten.mm.default,
        aten.addmm.default,
        aten.bmm.default,
        aten.baddbmm.default,
        aten.convolution.default,
    }
)


@final
class EmulatedProducts(TorchDispatchMode):
    """A context in which products of half-precision tensors are computed in float32, rounded once.

    That is what matrix units do with bfloat16: exact products, sums in float32. Attention is one
    such operation here, so its weights are not rounded in between, as some kernels do. Everything
    else, such as GELU, runs as usual.
    """

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (an operator of torch)
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operator."""
        del types
        given = [a for a in args if isinstance(a, torch.Tensor) and a.dtype in REDUCED]
        if func not in PRODUCTS or not given:
            return func(*args, **(kwargs or {}))
        dtype = given[0].dtype
        found = func(*tree_map_only(torch.Tensor, widen, args), **(kwargs or {}))
        return tree_map_only(torch.Tensor, lambda out: out.to(dtype), found)
