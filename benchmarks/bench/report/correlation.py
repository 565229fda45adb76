"""How far the scorers of a benchmark agree with each other: numbers and plots for its report."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final, final

import numpy as np

from stablepref.evaluation.correlations import Correlation, correlation
from stablepref.output.figures import literal

from ..statistics.resampling import RESAMPLES, drawn_prompts
from .gallery import centred

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ImportError as error:
    msg = "the plots of a report need matplotlib: pip install 'stablepref[bench]'"
    raise ImportError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stablepref.evaluation.means import Array

    from ..score_table import ScoreTable

_TWO: Final = 2
_MANY: Final = 400
"""More points than this are drawn as pixels, so that the page stays small."""
_LABELLED: Final = 30
_LETTERS: Final = 22
_DOTS_PER_INCH: Final = 150
# Both are read on light and on dark ground; the ink becomes the page's own.
_DOT: Final = "#3d86c6"
_INK: Final = "#010203"
_SOFT: Final = "#010204"
_COLOURS: Final = {_INK: "var(--ink)", _SOFT: "var(--soft)"}


@final
@dataclass(frozen=True)
class ScorerPair:
    """How two scorers agree.

    Attributes:
        a: One scorer.
        b: The other.
        over: "models", their mean scores, as in Figure 5 of *Stable Preference*; or "prompts", the
            models' scores for each prompt less the prompt's mean over models.
        points: How many are correlated.
        pearson: Pearson's r; NaN where a scorer sees no difference.
        low: Lower bound of its 95 % bootstrap interval over prompts; NaN over models, of which
            there are too few.
        high: Upper bound of the interval.
        spearman: Spearman's rho.
        plot: An SVG element without outside references.
    """

    a: str
    b: str
    over: str
    points: int
    pearson: float
    low: float
    high: float
    spearman: float
    plot: str


def scorer_pairs(
    table: ScoreTable, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[ScorerPair, ...]:
    """Every pair of scorers, over models and over prompts.

    Args:
        table: The scores; means over each prompt's images are what counts.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        Pairs over models, then pairs over prompts; none for what has fewer than two points.
    """
    found: list[ScorerPair] = []
    for over in ("models", "prompts"):
        for a, b in combinations(table.scorers, _TWO):
            x, y = table.means(a), table.means(b)
            there = ~np.isnan(x) & ~np.isnan(y)
            if over == "prompts":
                there &= there.sum(axis=0) >= _TWO
            m, p = np.nonzero(there)
            if len(set(m.tolist())) < _TWO:
                continue
            known = correlation(
                {a: x[there], b: y[there]},
                models=[table.models[i] for i in m] if over == "models" else None,
                prompts=[table.prompts[i].key for i in p] if over == "prompts" else None,
            )
            low = high = float("nan")
            if over == "prompts" and not np.isnan(known.pearson[0, 1]):
                low, high = _interval(x, y, there, table.words, resamples=resamples, seed=seed)
            found.append(
                ScorerPair(
                    a=a,
                    b=b,
                    over=over,
                    points=known.points.shape[1],
                    pearson=float(known.pearson[0, 1]),
                    low=low,
                    high=high,
                    spearman=float(known.spearman[0, 1]),
                    plot=scatter(known, f"stablepref {over} {len(found)}"),
                )
            )
    return tuple(found)


def scatter(known: Correlation, salt: str) -> str:
    """The second scorer against the first, as an SVG element in the colours of its page.

    Args:
        known: Of two scorers.
        salt: Makes the names inside the element its own; equal inputs give equal bytes.
    """
    figure = Figure(figsize=(3.4, 3.0), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_SOFT)
    axes.tick_params(colors=_SOFT, labelsize=8)
    x, y = known.points
    named = bool(known.labels) and len(known.labels) <= _LABELLED
    axes.scatter(
        x, y, s=26 if named else 10, alpha=0.9 if named else 0.5, linewidths=0, color=_DOT,
        rasterized=len(x) > _MANY,
    )  # fmt: skip
    middle = (x.min() + x.max()) / 2
    for label, *at in zip(known.labels if named else (), x, y, strict=False):
        left = at[0] > middle  # on the side where there is room
        axes.annotate(
            literal(_shortened(label)), (*at,), fontsize=8, color=_INK, va="center",
            xytext=(-5 if left else 5, 0), textcoords="offset points",
            ha="right" if left else "left",
        ).set_in_layout(False)  # fmt: skip
    axes.margins(x=0.2 if named else 0.05, y=0.12)
    less = "" if known.labels else ", less its prompt's mean"
    axes.set_xlabel(literal(known.scorers[0] + less), fontsize=9, color=_INK)
    axes.set_ylabel(literal(known.scorers[1] + less), fontsize=9, color=_INK)
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(text, format="svg", dpi=_DOTS_PER_INCH, metadata={"Date": None})
    return _inlined(text.getvalue())


def _interval(
    x: Array,
    y: Array,
    there: NDArray[np.bool_],
    prompts: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Of Pearson's r over prompts; whole prompts are drawn."""
    one, other = centred(x, there), centred(y, there)
    sums = np.stack([(one * other).sum(axis=0), (one**2).sum(axis=0), (other**2).sum(axis=0)])

    def pearson(weights: Array) -> Array:
        both, first, second = sums @ weights
        scale = np.sqrt(first * second)
        # Draws in which a scorer sees no difference say nothing of agreement, either way.
        return np.array([both / scale if scale else 0.0])

    (low, high), _ = drawn_prompts(pearson, prompts, resamples=resamples, seed=seed)
    return float(low[0]), float(high[0])


def _shortened(label: str) -> str:
    return label if len(label) <= _LETTERS else f"{label[: _LETTERS - 1]}…"


def _inlined(svg: str) -> str:
    """A whole SVG file as an element of a page."""
    element = svg[svg.index("<svg") :].strip()
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    size = re.search(r'viewBox="[^"]+"', element)
    assert size is not None, "matplotlib writes a view box"
    body = element[element.index(">") + 1 :]
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # the same in every plot
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # would be the whole page's
    body = re.sub(r"font-family: [^;\"]+", "font-family: system-ui, sans-serif", body)
    for colour, variable in _COLOURS.items():
        body = body.replace(colour, variable)
    style = "stroke-linejoin: round; stroke-linecap: butt"
    return f'<svg {size[0]} style="{style}" aria-hidden="true" focusable="false">{body}'
