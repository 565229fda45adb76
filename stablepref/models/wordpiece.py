"""BERT's WordPiece tokens with BLIP's two extra ones, packed for `BertEncoder`."""

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

VOCABULARY_FILE = "vocab.txt"
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BLIP_TOKENS = ("[DEC]", "[ENC]")  # added after BERT's own vocabulary, in this order


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
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(length=max_length, pad_id=ids["[PAD]"], pad_token="[PAD]")
        self._tokenizer = tokenizer
        self._told_truncation = False

    def __len__(self) -> int:
        """Number of token ids, BLIP's two included."""
        return len(self.vocabulary) + len(BLIP_TOKENS)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Token ids and mask, int64 `(batch, 2, max_length)`: row 0 the ids, row 1 where they are.

        A prompt that is too long loses its last words, keeps `[SEP]`, and a warning says so once.
        """
        # One by one: a batch would start threads, and a later fork (a data loader) would complain.
        encoded = [self._tokenizer.encode(prompt) for prompt in prompts]
        cut = next((i for i, encoding in enumerate(encoded) if encoding.overflowing), None)
        if cut is not None and not self._told_truncation:
            self._told_truncation = True
            warnings.warn(
                f"a prompt exceeds the model's {len(encoded[cut].ids)} tokens and loses its end: "
                f"{prompts[cut][:60]!r}... (said once)",
                stacklevel=2,
            )
        return torch.tensor([[encoding.ids, encoding.attention_mask] for encoding in encoded])


def read_vocabulary(path: str | Path) -> list[str]:
    """Tokens of a BERT `vocab.txt`, one a line.

    Raises:
        ValueError: The file is missing or is not UTF-8 text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the vocabulary {path}: {error}; expected bert-base-uncased's vocab.txt"
        raise ValueError(msg) from error
    return text.removesuffix("\n").split("\n")  # not splitlines: a token may be a line separator


def write_vocabulary(vocabulary: Sequence[str], path: str | Path) -> None:
    """Write tokens as `read_vocabulary` reads them."""
    Path(path).write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
