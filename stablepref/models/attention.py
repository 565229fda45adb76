"""open_clip's self-attention and its cutting into patches, by fewer operations.

The modules of open_clip get another class, so that their weights, names and hooks stay:

- **Self-attention.** In inference torch's own module splits queries, keys and values, multiplies,
  takes the softmax and multiplies again, each over the whole memory; `scaled_dot_product_attention`
  does it in one pass. Training of short sequences on a CPU is the other way round: the backward
  pass of the fused kernel takes longer than a few plain products.
- **Patches.** A convolution whose stride is its size is one product of patches with a matrix, and
  so is the gradient of its weight, for which convolutions on a CPU take far longer.

Both are equal to what they replace but for the order of sums.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from open_clip.model import CLIP

SHORT: Final = 128
"""Tokens up to which training on a CPU multiplies plainly: `docs/training.md` has the numbers."""


@final
class SelfAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` for what open_clip's blocks ask of it; anything else is as before."""

    def forward(  # type: ignore[override] # torch's signature, passed on as it is
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        **options: Any,  # noqa: ANN401 (torch's own, which differ in type)
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs `(batch, tokens, width)`, and None for the weights, which no block asks for."""
        mask = options.get("attn_mask")
        known = (
            set(options) <= {"need_weights", "attn_mask"} and options.get("need_weights") is False
        )
        additive = mask is None or (mask.ndim == 2 and mask.is_floating_point())
        if not (
            known and additive and query is key is value and query.ndim == 3 and self._is_plain()
        ):
            return super().forward(query, key, value, **options)
        joint = functional.linear(query, self.in_proj_weight, self.in_proj_bias)
        split = joint.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(split[0], split[1], split[2], mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None

    def _is_plain(self) -> bool:
        drops = self.training and self.dropout > 0
        extras = self.bias_k is not None or self.bias_v is not None or self.add_zero_attn
        return self.batch_first and self._qkv_same_embed_dim and not drops and not extras


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(Q K' / sqrt(d) + mask) V (Vaswani et al. 2017, equation 1).

    Args:
        query: `(batch, heads, tokens, d)`.
        key: Likewise.
        value: Likewise.
        mask: Added to the products, `(tokens, tokens)`; None for none.

    Returns:
        Of the shape of `query`.
    """
    learns = torch.is_grad_enabled() and query.requires_grad
    if mask is not None:
        mask = mask.to(query.dtype)
    if not learns or query.device.type != "cpu" or query.shape[-2] > SHORT:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    products = (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
    if mask is not None:
        products = products + mask
    return products.softmax(dim=-1) @ value


@final
class PatchProducts(nn.Conv2d):
    """A convolution whose stride is its size, by one product."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Features `(batch, width, rows, columns)`."""
        return patch_products(input, self.weight, self.bias)


def patch_products(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d` with a stride of the size of its kernel.

    Args:
        pixels: `(batch, channels, H, W)`; what is left of a last, incomplete patch is not used.
        weight: `(width, channels, h, w)`.
        bias: `(width,)`; None for none.

    Returns:
        `(batch, width, H // h, W // w)`.
    """
    height, width = weight.shape[-2:]
    rows, columns = pixels.shape[-2] // height, pixels.shape[-1] // width
    pixels = pixels[..., : rows * height, : columns * width]
    patches = pixels.unflatten(-1, (columns, width)).unflatten(-3, (rows, height))
    # From (batch, channels, rows, h, columns, w), in the order of the weight's last three.
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    features = functional.linear(patches, weight.flatten(1), bias)
    return features.transpose(1, 2).unflatten(2, (rows, columns))


def use_products(model: CLIP) -> None:
    """Let both towers of open_clip's CLIP compute as this file does; weights stay as they are."""
    for module in model.modules():
        if type(module) is nn.MultiheadAttention:
            module.__class__ = SelfAttention
    conv = model.visual.conv1
    if type(conv) is nn.Conv2d and conv.stride == conv.kernel_size and conv.padding == (0, 0):
        conv.__class__ = PatchProducts
