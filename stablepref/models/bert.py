"""BLIP's text side: BERT's WordPiece tokens, and BERT whose layers can also attend to the image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import nn
from torch.nn import functional

from stablepref.scoring.prompts import cut_prompt
from stablepref.weights.bounds import check_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

HEAD_WIDTH = 64
EPSILON = 1e-12
VOCABULARY_FILE = "vocab.txt"
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BLIP_TOKENS = ("[DEC]", "[ENC]")  # added after BERT's own vocabulary, in this order


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
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.word_embeddings(ids) + self.position_embeddings(positions))
        visible = mask.bool()[:, None, None, :]
        for layer in self.layers:
            x = layer(x, visible, image_tokens)
        return x[:, 0]


class WordPieceTokenizer:
    """Lower-casing BERT tokenizer: `[CLS]`, the prompt's pieces, `[SEP]`, padding.

    Args:
        vocabulary: BERT's tokens in order of their ids, without BLIP's `[DEC]` and `[ENC]`, which
            get the next two ids.
        max_length: Tokens of every prompt after padding or truncation, the ends included.

    Raises:
        ValueError: A special token is missing from the vocabulary, or a token occurs twice.
    """

    def __init__(self, vocabulary: Sequence[str], *, max_length: int) -> None:
        """Check the vocabulary and build the tokenizer."""
        self.vocabulary = tuple(vocabulary)
        ids = {token: i for i, token in enumerate(self.vocabulary)}
        absent = [token for token in BERT_TOKENS if token not in ids]
        if absent:
            msg = (
                f"the vocabulary of {len(self.vocabulary)} tokens lacks {', '.join(absent)}; "
                "expected the vocab.txt of bert-base-uncased"
            )
            raise ValueError(msg)
        if len(ids) < len(self.vocabulary):
            repeated = next(t for i, t in enumerate(self.vocabulary) if ids[t] != i)
            msg = f"the vocabulary holds {repeated!r} more than once; expected distinct tokens"
            raise ValueError(msg)
        tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
        tokenizer.normalizer = BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = BertPreTokenizer()
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
        )
        tokenizer.add_special_tokens([*BERT_TOKENS, *BLIP_TOKENS])
        self.max_length = max_length
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(length=max_length, pad_id=ids["[PAD]"], pad_token="[PAD]")
        self._tokenizer = tokenizer
        self._truncation_shown = False

    def __len__(self) -> int:
        """Number of token ids, BLIP's two included."""
        return len(self.vocabulary) + len(BLIP_TOKENS)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Token ids and mask, int64 `(batch, 2, max_length)`: row 0 the ids, row 1 where they are.

        A prompt that is too long loses its last words, keeps `[SEP]`, and a warning says so once.
        """
        # One by one: a batch would start threads, and a later fork (a data loader) would complain.
        encoded = [
            self._tokenizer.encode(cut_prompt(prompt, self.max_length)) for prompt in prompts
        ]
        cut = next((i for i, encoding in enumerate(encoded) if encoding.overflowing), None)
        if cut is not None and not self._truncation_shown:
            self._truncation_shown = True
            warnings.warn(
                f"a prompt exceeds the model's {len(encoded[cut].ids)} tokens and loses its end: "
                f"{prompts[cut][:60]!r}... (shown once)",
                stacklevel=2,
            )
        rows = [[encoding.ids, encoding.attention_mask] for encoding in encoded]
        return torch.tensor(rows, device="cpu")


def read_vocabulary(path: str | Path) -> list[str]:
    """Tokens of a BERT `vocab.txt`, one a line.

    Raises:
        ValueError: The file is missing, is far too large, or is not UTF-8 text.
    """
    check_vocabulary(Path(path))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the vocabulary {path}: {error}; expected bert-base-uncased's vocab.txt"
        raise ValueError(msg) from error
    return text.removesuffix("\n").split("\n")  # not splitlines: a token may be a line separator


def write_vocabulary(vocabulary: Sequence[str], path: str | Path) -> None:
    """Write tokens as `read_vocabulary` reads them."""
    Path(path).write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
