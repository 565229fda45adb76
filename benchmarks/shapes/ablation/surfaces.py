"""The ablations' tuning as Markdown tables: surfaces of rates and steps, and what was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stablepref.output.tables import markdown_lines

from .methods import METHODS
from .tables import stop_text, title_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .cells import Result
    from .plan import Choice
    from .suite import Suite

NEAR = 0.01
"""Difference of agreement by which points are near the best one, or worse than no training."""


def choices(chosen: Mapping[str, Choice], suite: Suite) -> str:
    """What validation chose for each method of a suite, and what lies at the edge of the tried."""
    lines = [
        (
            title_of(name),
            _tried(choice.rate, suite.rates, marked=not METHODS[name].rate_of),
            *(
                ("", "")
                if METHODS[name].margins == "none"
                else (
                    _tried(margin, tried, marked=METHODS[name].margins != "fixed")
                    for margin, tried in zip(choice.margins, (suite.bs, suite.taus), strict=True)
                )
            ),
            stop_text(choice),
            f"{100 * choice.people:.1f}",
        )
        for name, choice in chosen.items()
    ]
    return "\n".join(
        markdown_lines(("method", "rate", "b", "tau", "stop", "validation, annotators"), lines)
    )


def margin_grid(results: Sequence[Result]) -> str:
    """The highest agreement with validation's annotators for each b and τ, and after which step."""
    best = {
        (result.cell.config.b, result.cell.config.tau): max(
            (row["people"], -int(row["step"])) for row in result.watched
        )
        for result in results
        if result.watched
    }
    taus = sorted({result.cell.config.tau for result in results})
    lines = []
    for b in sorted({result.cell.config.b for result in results}):
        found = [best.get((b, tau)) for tau in taus]
        cells = (
            "diverged" if one is None else f"{100 * one[0]:.1f}; step {-one[1]}" for one in found
        )
        lines.append((f"b = {b:g}", *cells))
    return "\n".join(markdown_lines(("", *(f"tau = {tau:g}" for tau in taus)), lines))


def surface(results: Sequence[Result]) -> str:
    """Agreement with the truth on validation groups; gradient norm; effective number of pairs."""
    steps = results[0].cell.watched
    lines = []
    for result in results:
        found = {int(row["step"]): row for row in result.watched}
        cells = (
            f"{100 * found[step]['oracle']:.1f}; {found[step]['grad_norm']:.2g}; "
            f"{found[step]['effective_pairs']:.1f}"
            if step in found
            else "diverged"
            for step in steps
        )
        lines.append((f"{result.cell.config.learning_rate:g}", *cells))
    return "\n".join(markdown_lines(("rate", *(f"step {step}" for step in steps)), lines))


def range_of_settings(before: Result, surfaces: Mapping[str, Sequence[Result]]) -> str:
    """In how many of the rates and steps each method gains, is near its best, and harms.

    Args:
        before: The model without training, whose validation was watched.
        surfaces: Tunings of each method.
    """
    start = before.watched[0]["oracle"]
    gains = {
        name: [row["oracle"] - start for result in results for row in result.watched]
        for name, results in surfaces.items()
    }
    half = max(max(values, default=0.0) for values in gains.values()) / 2
    lines = []
    for name, values in gains.items():
        results = surfaces[name]
        points = sum(len(result.cell.watched) for result in results)
        # Points that a diverged training did not reach are worse.
        worse = points - sum(value > -NEAR for value in values)
        much = sum(value >= half > 0 for value in values)
        best = max(values, default=0.0)
        near = sum(value > best - NEAR for value in values)
        lines.append(
            (title_of(name), f"{100 * best:+.1f}" if values else "diverged",
             *(f"{count} of {points}" for count in (near, much, worse)))
        )  # fmt: skip
    header = (
        "method", "greatest gain, points", f"within {100 * NEAR:g} point of its own best",
        "gains half of the greatest of all or more",
        f"worse than before training by {100 * NEAR:g} point or more",
    )  # fmt: skip
    return "\n".join(markdown_lines(header, lines))


def by_rate(surfaces: Mapping[str, Sequence[Result]]) -> str:
    """The truth on validation groups where each training is best, and after its last step."""
    rates = sorted({r.cell.config.learning_rate for some in surfaces.values() for r in some})
    lines = []
    for name, results in surfaces.items():
        found = {result.cell.config.learning_rate: result for result in results}
        lines.append((title_of(name), *(_best_and_last(found[rate]) for rate in rates)))
    return "\n".join(markdown_lines(("method", *(f"{rate:g}" for rate in rates)), lines))


def _best_and_last(result: Result) -> str:
    oracle = {int(row["step"]): row["oracle"] for row in result.watched}
    last = oracle.get(result.cell.watched[-1])
    best = f"{100 * max(oracle.values()):.1f}; " if oracle else ""
    return best + ("diverged" if last is None else f"{100 * last:.1f}")


def _tried(value: float, values: Sequence[float], *, marked: bool) -> str:
    """A chosen value, and whether better ones may lie beyond those that were tried."""
    return f"{value:g}{' (edge)' if marked and value in (min(values), max(values)) else ''}"
