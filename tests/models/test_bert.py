"""WordPiece tokens, worked by hand; tests/test_parity.py compares them with the official ones."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import TYPE_CHECKING

import pytest

from stablepref.models.bert import WordPieceTokenizer, read_vocabulary, write_vocabulary

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "fox",
    "fo",
    "##x",
    "##es",
    "a",
    ",",
    "e",
]


def ids(prompt: str, *, max_length: int = 8) -> list[int]:
    return WordPieceTokenizer(VOCABULARY, max_length=max_length)([prompt])[0, 0].tolist()


def test_longest_pieces_lower_case_and_padding() -> None:
    assert ids("A Fox, foxes foes", max_length=10) == [2, 9, 5, 10, 5, 8, 6, 8, 3, 0]


def test_unknown_word() -> None:
    assert ids("a cat") == [2, 9, 1, 3, 0, 0, 0, 0]


def test_accents_are_stripped() -> None:
    assert ids("é") == [2, 11, 3, 0, 0, 0, 0, 0]


def test_blip_tokens_follow_the_vocabulary() -> None:
    tokenizer = WordPieceTokenizer(VOCABULARY, max_length=5)
    assert len(tokenizer) == len(VOCABULARY) + 2
    assert tokenizer(["[DEC] [ENC]"])[0, 0].tolist() == [2, 12, 13, 3, 0]


def test_mask_covers_all_but_padding() -> None:
    packed = WordPieceTokenizer(VOCABULARY, max_length=6)(["a", "a fox"])
    assert packed.shape == (2, 2, 6)
    assert packed[:, 1].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]


def test_truncation_keeps_the_end_token_and_says_so_once() -> None:
    tokenizer = WordPieceTokenizer(VOCABULARY, max_length=4)
    with pytest.warns(UserWarning, match="exceeds the model's 4 tokens"):
        assert tokenizer(["a a a"])[0, 0].tolist() == [2, 9, 9, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer(["a a a"])
        WordPieceTokenizer(VOCABULARY, max_length=4)(["a a"])


def test_missing_special_token() -> None:
    with pytest.raises(ValueError, match=r"lacks \[CLS\], \[MASK\]"):
        WordPieceTokenizer(["[PAD]", "[UNK]", "[SEP]"], max_length=4)


def test_repeated_token() -> None:
    with pytest.raises(ValueError, match="'fox' more than once"):
        WordPieceTokenizer([*VOCABULARY, "fox"], max_length=4)


def test_vocabulary_file_round_trip(tmp_path: Path) -> None:
    odd = [*VOCABULARY, "\u2028", "é", "##\x85"]
    write_vocabulary(odd, tmp_path / "vocab.txt")
    assert read_vocabulary(tmp_path / "vocab.txt") == odd


def test_missing_vocabulary_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the vocabulary .*nowhere\.txt"):
        read_vocabulary(tmp_path / "nowhere.txt")


def test_copies_and_pickles() -> None:
    tokenizer = WordPieceTokenizer(VOCABULARY, max_length=5)
    for twin in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert twin(["a fox"]).tolist() == tokenizer(["a fox"]).tolist()
