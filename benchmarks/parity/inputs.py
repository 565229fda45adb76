"""What every model scores: 16 pictures of the HPD v2 gallery and 4 prompts."""

from __future__ import annotations

import hashlib
import itertools
import string
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

# File, and the box to crop (left, top, right, bottom); None keeps the whole picture. Most are wide
# or tall, slightly or very, with odd sides, and some are smaller than a model's input.
PICTURES: tuple[tuple[str, tuple[int, int, int, int] | None], ...] = (
    ("02920.jpg", None),
    ("02929.jpg", None),
    ("03619.jpg", None),
    ("03389.jpg", None),
    ("01453.jpg", (0, 0, 512, 171)),
    ("00368.jpg", (0, 100, 512, 441)),
    ("03098.jpg", (11, 40, 494, 303)),
    ("02316.jpg", (0, 200, 500, 267)),
    ("02281.jpg", (100, 0, 271, 512)),
    ("03365.jpg", (7, 3, 348, 512)),
    ("01144.jpg", (200, 11, 463, 494)),
    ("00839.jpg", (220, 0, 287, 500)),
    ("03613.jpg", (30, 60, 183, 149)),
    ("02655.jpg", (60, 30, 149, 183)),
    ("00920.jpg", (100, 100, 324, 324)),
    ("01164.jpg", (50, 80, 451, 477)),
)
PROMPTS = (
    "a red fox asleep under a wooden bridge",
    "Naïve café scene, 1920s: chess players — “Zürich at dusk”, oil on canvas, 50% grey & gold!",
    "portrait",
    "an astronaut riding a horse across a frozen lake at sunrise, highly detailed, dramatic light, "
    * 6,
)
# Prompts whose BERT tokens are compared: cases in which tokenisers differ.
TOKEN_PROMPTS = (
    *PROMPTS,
    "UPPER lower MiXeD",
    "don't stop-me now... (really?) [maybe]",
    "crème brûlée façade ÅNGSTRÖM",
    "山の絵 in ink, 東京",
    "emoji 🎨 and tabs\tand\nnew lines",
    "a [MASK] and an [ENC] and a [DEC] and a [SEP]",
    "x" * 120,
    "  spaces   everywhere  ",
    "fish &amp; chips &lt;b&gt;",
    "“curly” \u2018quotes\u2019 and ﬁne ligatures",
    "it's we've I'll 3rd 1st 2024 a_b",
)
BERT_TOKENS = 30522


def load_pictures(folder: Path) -> list[Image.Image]:
    """The pictures as RGB, cropped."""
    pictures = []
    for name, box in PICTURES:
        with Image.open(folder / name) as image:
            rgb = image.convert("RGB")
        pictures.append(rgb.crop(box) if box else rgb)
    return pictures


def picture_digest(picture: Image.Image) -> str:
    """SHA-256 of size and RGB values; it differs where another JPEG decoder is at work."""
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()


def made_up_vocabulary() -> list[str]:
    """A WordPiece vocabulary of BERT's size, its special tokens where BERT has them.

    Single characters, and all two- and three-letter pieces, at a word's start and inside it, until
    it is full.
    """
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    tokens = [special.get(i, f"[unused{i}]") for i in range(104)]
    characters = [c for c in string.printable if c.isprintable() and not c.isupper() and c != " "]
    tokens += [*characters, "—", "“", "”", "山", "絵", "東", "京"]
    tokens += [f"##{c}" for c in string.ascii_lowercase + string.digits]
    for length in (2, 3):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            piece = "".join(letters)
            tokens += [f"##{piece}", piece]
    assert len(tokens) > BERT_TOKENS
    return tokens[:BERT_TOKENS]
