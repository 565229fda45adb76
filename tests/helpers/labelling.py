"""Pictures to choose between, and a session that asks about them."""

from pathlib import Path

import numpy as np
from PIL import Image

from stablepref.integrations.label.journal import Journal
from stablepref.integrations.label.questions import Show, make_questions, read_pictures
from stablepref.integrations.label.session import Session

PROMPTS = ("a red circle", "a blue star", "two green hearts")


def draw(folder: Path, *, images: int = 3, prompts: tuple[str, ...] = PROMPTS) -> Path:
    """A folder of grey pictures, named after the places of the prompts in `prompts.txt`."""
    folder.mkdir()
    for place in range(len(prompts)):
        for number in range(images):
            level = 40 * place + 20 * number
            name = f"{place:05d}-{number}.png" if number else f"{place:05d}.png"
            Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(folder / name)
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    return folder


def session_of(
    folder: Path,
    out: Path,
    *,
    show: Show = "pairs",
    repeats: float = 0.0,
    annotators: int | None = None,
) -> Session:
    """A session that asks about the pictures of `draw`."""
    pictures = read_pictures([folder], folder / "prompts.txt", None)
    questions = make_questions(pictures, show, seed=0)
    return Session(questions, Journal(out), repeats=repeats, annotators=annotators)
