"""Half-precision products on a machine that has no unit for them, a hundred times as fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from stablepref.runtime.precision import REDUCED, widen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    """Within it, products of half-precision tensors are computed in float32 and rounded once.

    That is what matrix units do with bfloat16: exact products, sums in float32. Attention is one
    such operation here, so its weights are not rounded in between as some kernels do. All else,
    such as GELU, runs as it always does.
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
