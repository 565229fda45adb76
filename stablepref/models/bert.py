"""BLIP's text encoder: BERT whose layers can also attend to image tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import arange, nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

HEAD_WIDTH = 64
EPSILON = 1e-12


class Attention(nn.Module):
    """Multi-head attention of `x` to `context`, whose tokens may have another width."""

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; `mask` is True where a context token may be seen, `(batch, 1, 1, context)`."""
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, HEAD_WIDTH)).transpose(1, 2)
            for layer, tokens in ((self.query, x), (self.key, context), (self.value, context))
        )
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(-2))


class BertLayer(nn.Module):
    """Self-attention, attention to the image if there is one, and an MLP; each normalised after."""

    def __init__(self, width: int, image_width: int | None) -> None:
        super().__init__()
        self.self_attention = Attention(width, width)
        self.self_norm = nn.LayerNorm(width, eps=EPSILON)
        if image_width is not None:
            self.cross_attention = Attention(width, image_width)
            self.cross_norm = nn.LayerNorm(width, eps=EPSILON)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor, mask: Tensor, image_tokens: Tensor | None) -> Tensor:
        """Transform text tokens `(batch, length, width)`."""
        x = self.self_norm(x + self.self_attention(x, x, mask))
        if image_tokens is not None:
            x = self.cross_norm(x + self.cross_attention(x, image_tokens))
        return self.norm(x + self.down(functional.gelu(self.up(x))))


class BertEncoder(nn.Module):
    """BERT as BLIP uses it (Li et al. 2022, arXiv:2201.12086, figure 2): no token types, no pooler.

    Args:
        vocabulary_size: Number of token ids.
        width: Width of the text tokens, a multiple of 64 (the width of an attention head).
        depth: Number of layers.
        positions: Longest text the position embeddings cover.
        image_width: Width of the image tokens that every layer attends to; None builds the
            text-only encoder, without those layers.

    Raises:
        ValueError: `width` is not a multiple of 64.
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        width: int,
        depth: int,
        positions: int = 512,
        image_width: int | None = None,
    ) -> None:
        super().__init__()
        if width % HEAD_WIDTH:
            msg = f"the text width must be a multiple of {HEAD_WIDTH}, got {width}"
            raise ValueError(msg)
        self.word_embeddings = nn.Embedding(vocabulary_size, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.layers = nn.ModuleList(BertLayer(width, image_width) for _ in range(depth))

    def forward(self, tokens: Tensor, image_tokens: Tensor | None = None) -> Tensor:
        """Feature of the first token, `[CLS]`.

        Args:
            tokens: int64 `(batch, 2, length)`: token ids, and a mask that is 0 at padding.
            image_tokens: `(batch, image tokens, image_width)`; None in the text-only encoder.

        Returns:
            `(batch, width)`.
        """
        ids, mask = tokens.unbind(1)
        positions = arange(ids.shape[1], device=ids.device)
        x = self.norm(self.word_embeddings(ids) + self.position_embeddings(positions))
        visible = mask.bool()[:, None, None, :]
        for layer in self.layers:
            x = layer(x, visible, image_tokens)
        return x[:, 0]
