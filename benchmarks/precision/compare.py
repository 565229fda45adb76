"""Scores of a scorer in reduced precision against those in float32: error and kept order."""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, final

import numpy as np
from rich.table import Table

from stablepref.evaluation.agreement import pair_places, pair_signs, tau_b

from ..shapes.world.drawing import render
from ..shapes.world.errors import error_kinds, single_error
from ..shapes.world.language import describe
from ..shapes.world.scenes import sample_scene
from .candidates import CANDIDATES, CLIP_ONLY, EmulatedProducts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stablepref.scorer import Scorer

    Scores = NDArray[np.float64]

MARGINS = (0.0, 0.03, 0.1, 0.3, 1.0, float("inf"))
"""Edges of the sizes of a pair's float32 margin, in score units; 0.3 is the paper's b."""


@final
@dataclass(frozen=True)
class Agreement:
    """Scores of one candidate against those in float32.

    Attributes:
        mean_error: Mean absolute difference, in score units.
        max_error: The largest.
        tau: Kendall's tau over the pictures, mean over prompts.
        kept: Share of pairs that keep their order, by size of their float32 margin; None where
            there is no such pair. Bounds are in `MARGINS`.
        kept_all: The same over all pairs.
        seconds: Wall time per picture, one run.
    """

    mean_error: float
    max_error: float
    tau: float
    kept: tuple[float | None, ...]
    kept_all: float
    seconds: float


@final
@dataclass(frozen=True)
class Report:
    """One model: its scores in float32, and every candidate against them.

    Attributes:
        pictures: How many.
        prompts: How many.
        spread: Standard deviation of float32 scores over pictures, mean over prompts.
        pairs: Number of pairs of pictures by size of their margin, over all prompts.
        seconds: Wall time per picture in float32, one run.
        candidates: By name.
    """

    pictures: int
    prompts: int
    spread: float
    pairs: tuple[int, ...]
    seconds: float
    candidates: dict[str, Agreement]


def compare(
    scorer: Scorer,
    images: Sequence[object],
    prompts: Sequence[str],
    candidates: Sequence[str],
    *,
    emulate: bool = False,
) -> Report:
    """Score every image under every prompt, in float32 and by each candidate that fits the model.

    Args:
        scorer: In float32.
        images: Anything that `Scorer.score` takes, at least two.
        prompts: At least one.
        candidates: Names of `CANDIDATES`.
        emulate: Compute half-precision products in float32, see `EmulatedProducts`.
    """
    exact, seconds = _scores(scorer, images, prompts)
    found = {}
    for name in candidates:
        if name in CLIP_ONLY and scorer.log_scale is None:
            continue
        products = EmulatedProducts() if emulate else nullcontext()
        with CANDIDATES[name](scorer) as candidate, products:
            scores, time_taken = _scores(candidate, images, prompts)
        found[name] = agreement(exact, scores, seconds=time_taken)
    margins = np.abs(_margins(exact))
    return Report(
        pictures=len(images),
        prompts=len(prompts),
        spread=float(exact.std(axis=0).mean()),
        pairs=tuple(int(_within(margins, *edges).sum()) for edges in pairwise(MARGINS)),
        seconds=seconds,
        candidates=found,
    )


def agreement(exact: Scores, scores: Scores, *, seconds: float = 0.0) -> Agreement:
    """Error and rank agreement of scores `(images, prompts)` with exact ones of that shape."""
    error = np.abs(scores - exact)
    margins = np.abs(_margins(exact))
    same = pair_signs(exact.T).ravel() == pair_signs(scores.T).ravel()
    kept = [same[_within(margins, *edges)] for edges in pairwise(MARGINS)]
    taus = [tau_b(*columns) for columns in zip(exact.T, scores.T, strict=True)]
    return Agreement(
        mean_error=float(error.mean()),
        max_error=float(error.max()),
        tau=float(np.mean(taus)),
        kept=tuple(float(part.mean()) if part.size else None for part in kept),
        kept_all=float(same.mean()),
        seconds=seconds,
    )


def shape_scenes(count: int, *, seed: int = 0) -> tuple[list[object], list[str]]:
    """Pictures of held-out scenes, right and with single errors, and the scenes' prompts.

    Pictures are uint8 `(size, size, 3)`: for each prompt a right one, and one for each kind of
    error that its scene can have.
    """
    rng = random.Random(seed)
    pictures: list[object] = []
    prompts = []
    for scene in [sample_scene(rng, "test") for _ in range(count)]:
        prompts.append(describe(scene, rng))
        wrong = [single_error(scene, kind, rng) for kind in error_kinds(scene)]
        pictures += [render(shown, seed=rng.getrandbits(48)) for shown in (scene, *wrong)]
    return pictures, prompts


def _scores(
    scorer: Scorer, images: Sequence[object], prompts: Sequence[str]
) -> tuple[Scores, float]:
    """Scores `(images, prompts)`, and seconds per image without the prompts."""
    scorer.cached_prompts(prompts)
    start = time.perf_counter()
    scores = scorer.score_matrix(list(images), prompts, progress=False)
    seconds = (time.perf_counter() - start) / len(images)
    return scores.double().numpy(), seconds


def _margins(scores: Scores) -> Scores:
    """Differences of every pair of images under each prompt, in the order of `pair_signs`."""
    first, second = pair_places(len(scores))
    return (scores[first] - scores[second]).T.ravel()


def _within(margins: Scores, low: float, high: float) -> NDArray[np.bool_]:
    return (margins >= low) & (margins < high)


def table_of(name: str, report: Report) -> Table:
    """The report as a table: a row for each candidate."""
    title = (
        f"{name}: {report.pictures} pictures x {report.prompts} prompts, spread {report.spread:.2f}"
    )
    bins = [
        f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more"
        for low, high in pairwise(MARGINS)
    ]
    columns = (f"{b}\n{n} pairs" for b, n in zip(bins, report.pairs, strict=True))
    table = Table(
        "order kept by margin:",
        "mean error",
        "max error",
        "tau",
        *columns,
        "s / picture",
        title=title,
    )
    table.add_row("float32", "0", "0", "1", *["100%"] * len(bins), f"{report.seconds:.3f}")
    for candidate, row in report.candidates.items():
        table.add_row(
            candidate,
            f"{row.mean_error:.4f}",
            f"{row.max_error:.4f}",
            f"{row.tau:.4f}",
            *("-" if share is None else f"{share:.2%}" for share in row.kept),
            f"{row.seconds:.3f}",
        )
    return table
