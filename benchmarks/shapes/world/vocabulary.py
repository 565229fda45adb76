"""Builds the byte-pair vocabulary of the laboratory's prompts, in open_clip's file format."""

import gzip
import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from open_clip.tokenizer import SimpleTokenizer, bytes_to_unicode

from .scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES

CONTEXT_LENGTH = 40
VOCABULARY_NAME = "bpe_shapes.txt.gz"

# Words of the grammar besides the names of things, for which each word gets its own token.
_OTHER_WORDS = (
    "a an one two three four and with together of on against over under beneath above below left "
    "right top bottom from to the at background picture image drawing photo"
)
_END_OF_WORD = "</w>"


def grammar_words() -> tuple[str, ...]:
    """Every word that a prompt of the grammar can hold, plurals included, sorted."""
    plurals = (shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES)
    words = (*SHAPES, *plurals, *COLOURS, *SIZES, *BACKGROUNDS, *_OTHER_WORDS.split())
    return tuple(sorted(set(words)))


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair merges (Sennrich et al. 2016) until every word is one token.

    Each word counts once; the most frequent pair merges first, ties in alphabetical order.
    """
    letters = bytes_to_unicode()
    spelled = [[letters[byte] for byte in word.encode()] for word in words]
    for symbols in spelled:
        symbols[-1] += _END_OF_WORD
    merges = []
    while any(len(symbols) > 1 for symbols in spelled):
        counts = Counter(pair for symbols in spelled for pair in itertools.pairwise(symbols))
        first, second = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append((first, second))
        spelled = [_merge(symbols, first, second) for symbols in spelled]
    return merges


def _merge(symbols: list[str], first: str, second: str) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and merged[-1] == first and symbol == second:
            merged[-1] = first + second
        else:
            merged.append(symbol)
    return merged


def write_vocabulary(path: Path) -> None:
    """Write the vocabulary file, the same bytes on every run.

    open_clip's reader drops the first line, splits on line ends and makes a token of every line
    that remains: a line end after the last merge would become an empty token and move the two
    special tokens off the end, so the file has none.
    """
    lines = ["#version: stablepref shapes", *map(" ".join, learn_merges(grammar_words()))]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def load_tokenizer(path: Path) -> SimpleTokenizer:
    """open_clip's tokenizer on a vocabulary file.

    Raises:
        ValueError: the file holds an empty merge, such as a line end after the last one makes.
    """
    tokenizer = SimpleTokenizer(bpe_path=str(path), context_length=CONTEXT_LENGTH)
    if any(not re.fullmatch(r"\S+", token) for token in tokenizer.encoder):
        raise ValueError(f"{path} has an empty line, which open_clip reads as an empty token")
    return tokenizer


def main(path: Annotated[Path, typer.Argument(help="file to write")]) -> None:
    """Write the vocabulary file."""
    write_vocabulary(path)
    typer.echo(f"{path}: {load_tokenizer(path).vocab_size} tokens")


if __name__ == "__main__":
    typer.run(main)
