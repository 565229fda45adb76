"""The tokenizer of the laboratory's pipeline: a genuine `CLIPTokenizer` with a small vocabulary."""

import json
import tempfile
from pathlib import Path

from torch import Tensor
from transformers import CLIPTokenizer

from ..world.vocabulary import grammar_words, learn_merges

TEXT_LENGTH = 32
"""Tokens of a text, with the first and the last. The longest prompt of the grammar has 25."""

VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> CLIPTokenizer:
    """One token for each word of the grammar, bytes for everything else, padded with the end."""
    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary_files(Path(folder))
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(
            folder,
            model_max_length=TEXT_LENGTH,
            bos_token=_START,
            eos_token=_END,
            pad_token=_END,
            unk_token=_END,
        )
    return tokenizer


def token_ids(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Tokens `(prompts, 32)` int64, padded and cut as the pipeline's call does."""
    ids: Tensor = tokenizer(
        prompts, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def write_vocabulary_files(folder: Path) -> None:
    """Write the two files of a byte-pair vocabulary as transformers reads them.

    Tokens are numbered as in OpenAI's CLIP: bytes, bytes that end a word, merges, special tokens.
    """
    merges = learn_merges(grammar_words())
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    numbers = {token: number for number, token in enumerate([*tokens, _START, _END])}
    (folder / VOCABULARY_FILE).write_text(json.dumps(numbers, ensure_ascii=False), encoding="utf-8")
    # transformers drops the first line, and a line end after the last one.
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / MERGES_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of OpenAI's vocabularies.

    Printable bytes stand for themselves; the others follow as the letters from number 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    return [*map(chr, printable), *(chr(256 + number) for number in range(256 - len(printable)))]
