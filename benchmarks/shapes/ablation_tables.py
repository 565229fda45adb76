"""The ablations' results as Markdown tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .ablation_methods import METHODS
from .ablation_plan import START
from .ablation_statistics import Paired, Spread, decline, paired, spread, together
from .ablation_world import DISTURBANCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stablepref.groupmean import GroupMean

    from .ablation_cells import Result
    from .ablation_plan import Choice, Row

NEAR = 0.01
"""How far from the best a point of a surface may lie to be near it."""


def title_of(name: str) -> str:
    """What tables call a method."""
    return "before training" if name == START else METHODS[name].title


def held_out_means(row: Row, *names: str, end: bool = False) -> list[GroupMean | None]:
    """A measure of each seed, at the stopping step or after the last; untrained is both."""
    return [
        result.tested(result.cell.config.steps if end and row.method != START else row.stop, *names)
        for result in row.results
    ]


def comparison(rows: Sequence[Row], *, tested_on: str) -> str:
    """Agreement of methods with the truth and with people; all beside the first trained one.

    Args:
        rows: Of one model trained on one setting, the untrained model first.
        tested_on: Whose test groups.
    """
    first = rows[1]
    lines = []
    for row in rows:
        oracle = held_out_means(row, tested_on, "oracle")
        choice = row.choice
        lines.append(
            (
                title_of(row.method),
                "" if choice is None else f"{choice.rate:g}",
                "" if choice is None else str(row.stop),
                _percent(spread(oracle)),
                difference_text(paired(oracle, held_out_means(first, tested_on, "oracle")))
                if row.method not in (START, first.method)
                else "",
                _percent(spread(held_out_means(row, tested_on, "people"))),
                ""
                if choice is None
                else _percent(spread(held_out_means(row, tested_on, "oracle", end=True))),
            )
        )
    header = (
        "method", "rate", "stop", "truth", f"less {title_of(first.method)}", "annotators",
        "truth after the last step",
    )  # fmt: skip
    return markdown(header, lines)


def disturbances(rows: Sequence[Row]) -> str:
    """Accuracy under disturbances, and the share of pairs whose order flips; a column a method."""
    lines = [
        (
            "as it is",
            *(
                _percent(spread(held_out_means(row, row.results[0].cell.setting, "oracle")))
                for row in rows
            ),
        )
    ]
    for name in DISTURBANCES:
        cells = []
        for row in rows:
            after = spread(disturbed(row, name, "oracle"))
            before = spread(held_out_means(row, row.results[0].cell.setting, "oracle"))
            change = f" ({100 * (after.mean - before.mean):+.1f})" if after.seeds else ""
            flips = spread(disturbed(row, name, "flips"))
            cells.append(f"{_percent(after)}{change}; {_percent(flips)}")
        lines.append((name, *cells))
    return markdown(("disturbance", *(title_of(row.method) for row in rows)), lines)


def disturbed(row: Row, *names: str) -> list[GroupMean | None]:
    """A measure of each seed under a disturbance, at the stopping step."""
    return [result.disturbed(row.stop, *names) for result in row.results]


def choices(chosen: Mapping[str, Choice]) -> str:
    """What validation chose for each method."""
    lines = [
        (
            title_of(name),
            f"{choice.rate:g}{' (edge)' if choice.edge else ''}",
            *(
                ("", "")
                if METHODS[name].margins == "none"
                else (f"{margin:g}" for margin in choice.margins)
            ),
            str(choice.stop),
            f"{100 * choice.people:.1f}",
        )
        for name, choice in chosen.items()
    ]
    return markdown(("method", "rate", "b", "tau", "stop", "validation, annotators"), lines)


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
    return markdown(("", *(f"tau = {tau:g}" for tau in taus)), lines)


def surface(results: Sequence[Result]) -> str:
    """Agreement with the truth on validation groups; gradient norm; effective number of pairs."""
    steps = [int(row["step"]) for row in max((r.watched for r in results), key=len)]
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
    return markdown(("rate", *(f"step {step}" for step in steps)), lines)


def near_best(surfaces: Mapping[str, Sequence[Result]]) -> str:
    """How much of each method's surface of rates and steps is near the best."""
    points = {
        name: [row["oracle"] for result in results for row in result.watched]
        for name, results in surfaces.items()
    }
    # Points that a diverged training did not reach are far from the best.
    sizes = {
        name: len(results) * max(len(result.watched) for result in results)
        for name, results in surfaces.items()
    }
    best = max(max(values) for values in points.values())
    lines = []
    for name, values in points.items():
        own = sum(value >= max(values) - NEAR for value in values)
        shared = sum(value >= best - NEAR for value in values)
        lines.append(
            (title_of(name), f"{100 * max(values):.1f}", f"{own} of {sizes[name]}",
             f"{shared} of {sizes[name]}")
        )  # fmt: skip
    header = (
        "method", "best", f"within {100 * NEAR:g} point of its own best",
        f"within {100 * NEAR:g} point of the best of all",
    )  # fmt: skip
    return markdown(header, lines)


def overfitting(rows: Sequence[Row], *, tested_on: str) -> str:
    """The peak of each method's mean curve, and what is left long after it."""
    lines = []
    for row in rows[1:]:
        peak, at_peak, at_end = peak_and_end(row, tested_on)
        lost = [
            None if before is None or after is None else decline(before, after)
            for before, after in zip(at_peak, at_end, strict=True)
        ]
        fit = [result.tested(result.cell.config.steps, "fit") for result in row.results]
        lines.append(
            (title_of(row.method), str(peak), _percent(spread(at_peak)), _percent(spread(at_end)),
             _percent(spread(lost)), _percent(spread(fit)))
        )  # fmt: skip
    header = (
        "method", "peak after step", "truth there", "truth after the last step", "lost",
        "training pairs fitted at the end",
    )  # fmt: skip
    return markdown(header, lines)


def peak_and_end(
    row: Row, tested_on: str
) -> tuple[int, list[GroupMean | None], list[GroupMean | None]]:
    """The step at which the seeds' mean curve is highest, and the truth there and at the end."""
    curve = {
        step: spread([result.tested(step, tested_on, "oracle") for result in row.results]).mean
        for step in row.results[0].cell.tested
    }
    peak = max(
        (step for step, value in curve.items() if not math.isnan(value)), key=curve.__getitem__
    )
    last = row.results[0].cell.config.steps
    at_peak, at_end = (
        [result.tested(step, tested_on, "oracle") for result in row.results]
        for step in (peak, last)
    )
    return peak, at_peak, at_end


def disturbed_flips(row: Row, names: Sequence[str]) -> list[GroupMean | None]:
    """Flips of each seed over several disturbances."""
    found = []
    for result in row.results:
        means = [result.disturbed(row.stop, name, "flips") for name in names]
        present = [mean for mean in means if mean is not None]
        found.append(together(present) if present else None)
    return found


def markdown(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    rows = [list(header)]
    rows += [["---"] * len(rows[0]), *map(list, lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _percent(value: Spread) -> str:
    if not value.seeds:
        return "diverged"
    deviation = "" if math.isnan(value.deviation) else f" ± {100 * value.deviation:.1f}"
    return f"{100 * value.mean:.1f}{deviation}"


def difference_text(value: Paired | None) -> str:
    """A comparison in points, with interval, p and seeds."""
    if value is None:
        return "diverged"
    bounds = f"{100 * value.low:+.1f} to {100 * value.high:+.1f}"
    return (
        f"{100 * value.difference:+.1f} ({bounds}); p {value.p:.2g}; "
        f"{value.higher} of {value.seeds} seeds"
    )
