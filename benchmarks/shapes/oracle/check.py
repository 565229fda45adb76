"""How often the oracle is right about pictures of which it is known what they show."""

import random
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from rich.progress import track
from scipy import ndimage

from ..world.accuracy import Accuracy, with_interval
from ..world.drawing import Pixels, render
from ..world.errors import ERROR_KINDS, error_kinds, single_error
from ..world.scenes import Split, sample_scene
from .grading import ATTRIBUTES, grade

CORRECT = "correct"
"""What a picture without an error is called among the kinds of error."""


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
"""What is done to pictures before they are graded, by name."""


def check_oracle(
    damage: str, *, scenes: int, split: Split = "test", seed: int = 0, quiet: bool = False
) -> tuple[dict[str, Accuracy], dict[str, dict[str, float]]]:
    """Grade pictures whose content is known.

    Of each scene one correct picture is drawn, and one with each kind of error that it can have.

    Args:
        damage: one of `DAMAGES`.
        scenes: number of scenes.
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
