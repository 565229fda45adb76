"""CLIP's towers as open_clip runs them, with what costs nothing and helps.

- **Text without padding.** Attention in the text tower is causal and a prompt's feature is read
  at its end token, so what comes after the longest prompt's end cannot change any feature.
  Prompts are padded to 77 tokens, and most people write 10 to 30.
- **A float32 residual stream.** With weights in half precision, open_clip also rounds pixels,
  embeddings, the sum that runs through all blocks, twice in each, and the feature. Here only the
  blocks' matrix products are in half precision, and everything around them, a small part of the
  work, in float32, so that scores stay nearer to those of float32 weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional

from stablepref.runtime.precision import REDUCED, widen

if TYPE_CHECKING:
    from open_clip.model import CLIP
    from open_clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer
    from torch import Tensor

TOGETHER: Final = 64


def encode_pixels(visual: VisionTransformer, inputs: Tensor) -> Tensor:
    """Features `(batch, dim)`, not normalised, of normalised inputs `(batch, 3, S, S)`.

    Those of `visual(inputs)`; with weights in half precision nearer to float32, and in float32.
    A tower that pools by attention is run as it is.
    """
    conv = visual.conv1
    dtype = conv.weight.dtype
    plain = visual.attn_pool is None and visual.pool_type in ("tok", "avg")
    if dtype not in REDUCED or not plain:
        features: Tensor = visual(inputs.to(dtype))
        return features
    # As `VisionTransformer.forward` of open_clip 3.3.
    bias = None if conv.bias is None else conv.bias.float()
    x = functional.conv2d(inputs.float(), conv.weight.float(), bias, conv.stride)
    x = x.flatten(2).transpose(1, 2)
    first = visual.class_embedding.float().expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + visual.positional_embedding.float()
    x = _norm(visual.ln_pre, visual.patch_dropout(x))
    x = _run(visual.transformer, x, dtype)
    average = visual.pool_type == "avg"
    if average and not visual.final_ln_after_pool:
        pooled = _norm(visual.ln_post, x[:, 1:]).mean(dim=1)
    else:
        pooled = _norm(visual.ln_post, x[:, 1:].mean(dim=1) if average else x[:, 0])
    return pooled if visual.proj is None else pooled @ visual.proj.float()


def encode_tokens(model: CLIP, tokens: Tensor) -> Tensor:
    """Features `(batch, dim)` of prompts, not normalised, on the model's device.

    Those of `model.encode_text(tokens)` but for rounding; with weights in half precision nearer to
    float32, and in float32. Many prompts are encoded in groups of like length.

    Args:
        model: open_clip's CLIP. One whose attention looks ahead, or that reads its feature
            elsewhere than at the end token, is run as it is.
        tokens: Token ids `(batch, context)`, best on the CPU; the end token has the largest.
    """
    device = model.positional_embedding.device
    if model.attn_mask is None or model.text_pool_type != "argmax":
        features: Tensor = model.encode_text(tokens.to(device))
        return features
    lengths = tokens.argmax(dim=1) + 1
    if len(tokens) <= TOGETHER:
        return _encode(model, tokens.to(device), int(lengths.max()))
    order = lengths.argsort()
    parts = [
        _encode(model, tokens[rows].to(device), int(lengths[rows].max()))
        for rows in order.split(TOGETHER)
    ]
    return torch.cat(parts)[order.argsort().to(device)]


def _encode(model: CLIP, tokens: Tensor, length: int) -> Tensor:
    """As `encode_text` of open_clip 3.3, of the first `length` tokens of each prompt."""
    tokens = tokens[:, :length]
    dtype = model.transformer.get_cast_dtype()
    x = widen(model.token_embedding(tokens)) + widen(model.positional_embedding[:length])
    x = _run(model.transformer, x, dtype, model.attn_mask[:length, :length])
    ends = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]
    pooled = _norm(model.ln_final, ends)
    projection = model.text_projection
    if isinstance(projection, nn.Linear):
        bias = None if projection.bias is None else widen(projection.bias)
        return functional.linear(pooled, widen(projection.weight), bias)
    return pooled if projection is None else pooled @ widen(projection)


def _run(
    transformer: Transformer, x: Tensor, dtype: torch.dtype, attn_mask: Tensor | None = None
) -> Tensor:
    """`transformer(x, attn_mask)`; if `dtype`, that of its weights, is reduced, then in float32.

    Activation checkpointing is for training, whose weights are float32.
    """
    if dtype not in REDUCED or transformer.grad_checkpointing or not transformer.batch_first:
        return widen(transformer(x.to(dtype), attn_mask=attn_mask))
    for block in transformer.resblocks:
        x = _block(block, x, dtype, attn_mask)
    return x


def _block(
    block: ResidualAttentionBlock, x: Tensor, dtype: torch.dtype, attn_mask: Tensor | None
) -> Tensor:
    """As `ResidualAttentionBlock.forward` of open_clip 3.3; `x` is float32, the weights `dtype`."""
    attended = block.attention(_norm(block.ln_1, x).to(dtype), attn_mask=attn_mask)
    x = x + block.ls_1(attended)
    return x + block.ls_2(block.mlp(_norm(block.ln_2, x).to(dtype)))


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    """A layer norm, or nothing where a tower has none, of float32 or wider values."""
    if not isinstance(norm, nn.LayerNorm):
        return x
    weight, bias = widen(norm.weight), widen(norm.bias)
    return functional.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
