"""How far scorers agree with each other: Figure 5 of *Stable Preference*.

Needs no human ranks: scores of the same images are all.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from stablepref.evaluation.agreement import pearson_r, spearman_rho

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from stablepref.evaluation.means import Array

_LETTERS_PER_INCH = 13
_MOST_LABELLED = 30


@final
@dataclass(frozen=True, eq=False)
class Correlation:
    """Correlations of all pairs of scorers.

    Attributes:
        scorers: Their names.
        points: What is correlated, ``(scorers, points)``: scores of images, or means of models.
        labels: The generative models that the points are means of; empty for images.
        pearson: Pearson's r, symmetric ``(scorers, scorers)``; NaN where a scorer's points are all
            equal or there are fewer than two.
        spearman: Spearman's rho, likewise.
    """

    scorers: tuple[str, ...]
    points: Array
    labels: tuple[str, ...]
    pearson: Array
    spearman: Array

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON; what is not a number is None."""
        return {
            "scorers": list(self.scorers),
            "points": self.points.shape[1],
            "labels": list(self.labels),
            "pearson": _plain(self.pearson),
            "spearman": _plain(self.spearman),
        }

    def save_plot(self, path: str | os.PathLike[str], *, title: str | None = None) -> None:
        """Scatter plots of the first scorer against each other one, as .png or .svg.

        Args:
            path: File to write.
            title: Above all of them.

        Raises:
            ImportError: matplotlib is not installed; it is in the extra ``bench``.
        """
        from stablepref.output.figures import Figure, save_figure  # noqa: PLC0415 (an extra)

        others = range(1, len(self.scorers))
        figure = Figure(figsize=(3.8 * len(others), 3.8), layout="constrained")
        labels = self.labels if len(self.labels) <= _MOST_LABELLED else ()
        for place in others:
            axes = figure.add_subplot(1, len(others), place)
            x, y = self.points[[place, 0]]
            axes.scatter(x, y, s=16 if labels else 6, alpha=0.7, linewidths=0)
            for label, *at in zip(labels, x, y, strict=False):
                axes.annotate(label, (*at,), fontsize=6, xytext=(3, 3), textcoords="offset points")
            axes.margins(x=0.15)  # room for the labels
            axes.set_xlabel(self.scorers[place])
            axes.set_ylabel(self.scorers[0])
            r, rho = self.pearson[0, place], self.spearman[0, place]
            axes.set_title(f"Pearson {r:.2f}, Spearman {rho:.2f}", fontsize="medium")
        if title is not None:
            letters = int(_LETTERS_PER_INCH * figure.get_figwidth())
            figure.suptitle(textwrap.fill(title, letters), fontsize="medium")
        save_figure(figure, Path(path))


def correlation(
    scores: Mapping[str, ArrayLike],
    *,
    models: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
) -> Correlation:
    """Pearson and Spearman correlation between scorers, over images or over generative models.

    Args:
        scores: Scores of the same images in the same order, ``(images,)`` for each scorer by name.
        models: The generative model of each image: every scorer's scores are averaged for each
            model, and these means are correlated, as in Figure 5. Without it images are.
        prompts: The prompt of each image: the mean over each prompt's images is subtracted first,
            since scores of different prompts do not compare.

    Returns:
        The correlations and the points they are of.

    Raises:
        ValueError: If there are fewer than two scorers, lengths differ, or a score is not finite.
    """
    if len(scores) < 2:
        raise ValueError(f"scores has {len(scores)} scorer(s); a correlation needs two")
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    lengths = {name: column.shape for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
        raise ValueError(f"shapes of scores are {lengths}; expected (images,), equal for all")
    points = np.stack(list(columns.values()))
    if not np.isfinite(points).all():
        bad = [name for name, column in columns.items() if not np.isfinite(column).all()]
        raise ValueError(f"scores of {', '.join(bad)} are not all finite; leave such images out")
    if prompts is not None:
        means, place, _ = _means(points, prompts, "prompts")
        points = points - means[:, place]
    labels: tuple[str, ...] = ()
    if models is not None:
        points, _, labels = _means(points, models, "models")
    size = len(points)
    pearson, rho = np.ones((size, size)), np.ones((size, size))
    for i, j in combinations_with_replacement(range(size), 2):
        pearson[i, j] = pearson[j, i] = pearson_r(points[i], points[j])
        rho[i, j] = rho[j, i] = spearman_rho(points[i], points[j])
    return Correlation(tuple(columns), points, labels, pearson, rho)


def _means(
    points: Array, labels: Sequence[str], name: str
) -> tuple[Array, np.ndarray[tuple[int], np.dtype[np.int64]], tuple[str, ...]]:
    """Each scorer's mean for each label, each point's place among the labels, and the labels."""
    if len(labels) != points.shape[1]:
        raise ValueError(f"{name} has {len(labels)} item(s) for {points.shape[1]} images")
    known = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    places = np.array([known[label] for label in labels], dtype=np.int64)
    counts = np.bincount(places, minlength=len(known))
    sums = [np.bincount(places, weights=row, minlength=len(known)) for row in points]
    return np.stack(sums) / counts, places, tuple(known)


def _plain(matrix: Array) -> list[list[float | None]]:
    return [[None if np.isnan(x) else float(x) for x in row] for row in matrix]
