"""CLIP cut in two: the frozen blocks, and those that training runs in every step.

The frozen part gives the same numbers in every step of every training, so the ablations run it
once. Both parts together are `CLIPScorer`'s own forward pass, value and gradient.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from stablepref.runtime.precision import unit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from stablepref.models.clip import CLIPScorer


class Texts(NamedTuple):
    """Prompts after the frozen text blocks.

    Attributes:
        tokens: `(prompts, length, width)`; the longest prompt sets the length.
        ends: int64 `(prompts,)`: the place of each end token, where a feature is read.
    """

    tokens: Tensor
    ends: Tensor


def check_towers(scorer: CLIPScorer) -> None:
    """Refuse towers that are not cut here.

    Raises:
        ValueError: A tower pools by attention, or a text tower looks ahead.
    """
    visual, model = scorer.model.visual, scorer.model
    if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg"):
        raise ValueError(
            f"{scorer.name}: the image tower pools by {visual.pool_type!r} or by attention; "
            "expected 'tok' or 'avg', as the laboratory's models have"
        )
    if model.attn_mask is None or model.text_pool_type != "argmax":
        raise ValueError(
            f"{scorer.name}: the text tower reads {model.text_pool_type!r}; expected a causal one "
            "that is read at the end token, as the laboratory's models are"
        )


def frozen_images(scorer: CLIPScorer, inputs: Tensor, *, trained: int) -> Tensor:
    """Tokens `(batch, tokens, width)` that enter the last `trained` image blocks.

    Args:
        scorer: The model.
        inputs: Preprocessed, normalised, `(batch, 3, S, S)`.
        trained: Blocks to stop before, counted from the last.
    """
    # The same operations as in `VisionTransformer.forward` of open_clip 3.3.
    visual = scorer.model.visual
    x = visual.conv1(inputs).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(x), 1, -1)
    x = visual.ln_pre(visual.patch_dropout(torch.cat([first, x], 1) + visual.positional_embedding))
    for block in _blocks(scorer, image=True, trained=trained)[0]:
        x = block(x)
    return x


def frozen_texts(scorer: CLIPScorer, prompts: Sequence[str], *, trained: int) -> Texts:
    """What enters the last `trained` text blocks."""
    model = scorer.model
    ids = scorer.tokenize(prompts)
    ends = ids.argmax(dim=1)
    length = int(ends.max()) + 1
    x = model.token_embedding(ids[:, :length].to(scorer.device))
    x = x + model.positional_embedding[:length]
    for block in _blocks(scorer, image=False, trained=trained)[0]:
        x = block(x, attn_mask=model.attn_mask[:length, :length])
    return Texts(x, ends.to(scorer.device))


def image_features(scorer: CLIPScorer, tokens: Tensor, *, trained: int) -> Tensor:
    """Unit vectors `(batch, dim)` of what `frozen_images` gave; differentiable in the weights."""
    visual, x = scorer.model.visual, tokens
    for block in _blocks(scorer, image=True, trained=trained)[1]:
        x = block(x)
    if not visual.final_ln_after_pool:
        x = visual.ln_post(x)
    pooled = x[:, 1:].mean(dim=1) if visual.pool_type == "avg" else x[:, 0]
    if visual.final_ln_after_pool:
        pooled = visual.ln_post(pooled)
    return unit(pooled if visual.proj is None else pooled @ visual.proj)


def prompt_features(scorer: CLIPScorer, texts: Texts, *, trained: int) -> Tensor:
    """Unit vectors `(prompts, dim)` of what `frozen_texts` gave; differentiable in the weights."""
    model, x = scorer.model, texts.tokens
    mask = model.attn_mask[: x.shape[1], : x.shape[1]]
    for block in _blocks(scorer, image=False, trained=trained)[1]:
        x = block(x, attn_mask=mask)
    pooled = model.ln_final(x[torch.arange(len(x), device=x.device), texts.ends])
    return unit(pooled @ model.text_projection)


def plain_attention(device: torch.device) -> AbstractContextManager[None]:
    """Plain matrix products on a CPU, where PyTorch's fused attention is no faster at this size."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def mixed(device: torch.device, precision: str | None) -> torch.autocast:
    """Matrix products in bfloat16, weights and what `unit` makes in float32, if it is "bf16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _blocks(
    scorer: CLIPScorer, *, image: bool, trained: int
) -> tuple[Sequence[nn.Module], Sequence[nn.Module]]:
    """The frozen and the trained blocks of a tower."""
    blocks = scorer.towers()[0 if image else 1].blocks
    cut = len(blocks) - trained
    if not 0 <= cut <= len(blocks):
        name = "image" if image else "text"
        raise ValueError(
            f"{trained} trained {name} blocks, but the {name} tower of {scorer.name} has "
            f"{len(blocks)}; expected 0 to {len(blocks)}"
        )
    return blocks[:cut], blocks[cut:]
