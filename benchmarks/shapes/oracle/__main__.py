"""The oracle of generated pictures: `python -m stablepref.benchmarks.shapes.oracle` checks it.

`read_picture` says what a picture shows and `grade` compares that with a prompt's scene. Both look
at the pixels alone, by the palette and the outlines that the renderer draws with. Nothing is
learned. Needs the extra ``bench``.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage

from ..evaluate import Accuracy, with_interval
from ..people.split_option import known_split
from ..world.drawing import render
from ..world.errors import ERROR_KINDS, error_kinds, single_error
from ..world.scenes import Split, sample_scene
from .grading import ATTRIBUTES, Grade, grade, grade_seen
from .reading import Seen, SeenObject, read_picture

__all__ = [
    "ATTRIBUTES",
    "Grade",
    "Seen",
    "SeenObject",
    "check_oracle",
    "grade",
    "grade_seen",
    "read_picture",
]

Pixels = NDArray[np.uint8]

CORRECT = "correct"


def _soften(picture: Pixels, rng: random.Random) -> Pixels:
    """Gaussian blur with a standard deviation of 0.8 pixels, about what an autoencoder leaves."""
    del rng
    return np.asarray(ndimage.gaussian_filter(picture, (0.8, 0.8, 0)))


def _roughen(picture: Pixels, rng: random.Random) -> Pixels:
    """Independent noise with a standard deviation of 10 of 255."""
    noise = np.random.default_rng(rng.getrandbits(64)).normal(0, 10, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


DAMAGES: dict[str, Callable[[Pixels, random.Random], Pixels]] = {
    "drawn": lambda picture, _: picture,
    "blurred": _soften,
    "noisy": _roughen,
}
"""What happens to pictures before they are graded."""


def check_oracle(
    damage: str, *, scenes: int, split: Split = "test", seed: int = 0, quiet: bool = False
) -> tuple[dict[str, Accuracy], dict[str, dict[str, float]]]:
    """Grade pictures of which it is known what they show.

    Of each scene one correct picture is drawn, and one with each kind of error that it can have.

    Args:
        damage: one of `DAMAGES`.
        scenes: how many.
        split: of the correct scenes.
        seed: of scenes, errors and pictures.
        quiet: no progress bar.

    Returns:
        How often the grade is right, for "correct" pictures and each kind of error; and for each
        of them the share of pictures in which each attribute was graded wrong.
    """
    right: dict[str, list[list[float]]] = defaultdict(list)
    blamed: dict[str, list[list[float]]] = defaultdict(list)
    rng = random.Random(f"oracle {seed}")
    for _ in track(range(scenes), description=damage, disable=quiet):
        scene = sample_scene(rng, split)
        for kind in (CORRECT, *error_kinds(scene)):
            shown = scene if kind == CORRECT else single_error(scene, kind, rng)
            picture = DAMAGES[damage](render(shown, seed=rng.getrandbits(48)), rng)
            grades = grade(picture, scene)
            right[kind].append([float(grades.correct == (kind == CORRECT))])
            blamed[kind].append([float(getattr(grades, name) is False) for name in ATTRIBUTES])
    kinds = [kind for kind in (CORRECT, *ERROR_KINDS) if right[kind]]
    shares = {kind: np.mean(blamed[kind], axis=0).tolist() for kind in kinds}
    return (
        {kind: with_interval(right[kind]) for kind in kinds},
        {kind: dict(zip(ATTRIBUTES, shares[kind], strict=True)) for kind in kinds},
    )


def main(
    scenes: Annotated[int, typer.Option(min=1, help="correct scenes")] = 1000,
    split: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    seed: Annotated[int, typer.Option(help="of scenes and pictures")] = 0,
    out: Annotated[Path | None, typer.Option("--json", help="also write the numbers here")] = None,
) -> None:
    """Print how often correct pictures are graded correct, and wrong ones wrong."""
    known = known_split(split)
    report = {}
    for damage in DAMAGES:
        accuracies, blamed = check_oracle(damage, scenes=scenes, split=known, seed=seed)
        table = Table("picture", "%", "of", *ATTRIBUTES, box=None)
        table.title = f"{damage}: % graded right, % in which each attribute was graded wrong"
        for kind, row in accuracies.items():
            shares = (f"{100 * share:.1f}" for share in blamed[kind].values())
            table.add_row(kind, f"{100 * row.value:.1f}", str(row.trials), *shares)
        Console().print(table)
        report[damage] = {
            kind: {**asdict(row), "graded_wrong": blamed[kind]} for kind, row in accuracies.items()
        }
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
