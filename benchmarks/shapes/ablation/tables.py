"""The ablations' results as Markdown tables."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from stablepref.output.tables import markdown_lines

from ..world.perturbations import PERTURBATIONS
from .methods import METHODS
from .plan import START
from .statistics import Paired, Spread, decline, paired, spread, together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.evaluation.means import GroupMean

    from .plan import Choice, Row


def title_of(name: str) -> str:
    """What tables call a method."""
    return "before training" if name == START else METHODS[name].title


def held_out_means(row: Row, *names: str, end: bool = False) -> list[GroupMean | None]:
    """A measure of each seed, at the stopping step or after the last; untrained is both."""
    return [result.tested(_measured_step(row, end=end), *names) for result in row.results]


def comparison(rows: Sequence[Row], *, tested_on: str) -> str:
    """Agreement of methods with the truth and with people; the first trained one is the baseline.

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
                "" if choice is None else stop_text(choice),
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
    return "\n".join(markdown_lines(header, lines))


def stop_text(choice: Choice) -> str:
    """A stopping step; whether step 2 never ran is said."""
    return f"{choice.stop} (in step 1)" if choice.early else str(choice.stop)


def perturbed(rows: Sequence[Row], *, end: bool = False) -> str:
    """Accuracy under perturbations, and the share of pairs whose order flips; a column a method.

    Args:
        rows: Of one model trained on one setting.
        end: After the last step, and not at each method's stop.
    """
    undisturbed = [
        spread(held_out_means(row, row.results[0].cell.setting, "oracle", end=end)) for row in rows
    ]
    lines = [("as it is", *map(_percent, undisturbed))]
    for name in PERTURBATIONS:
        cells = []
        for row, before in zip(rows, undisturbed, strict=True):
            after = spread(disturbed(row, (name,), "oracle", end=end))
            change = f" ({100 * (after.mean - before.mean):+.1f})" if after.seeds else ""
            flips = spread(disturbed(row, (name,), "flips", end=end))
            cells.append(f"{_percent(after)}{change}; {_percent(flips)}")
        lines.append((name, *cells))
    return "\n".join(
        markdown_lines(("perturbation", *(title_of(row.method) for row in rows)), lines)
    )


def overfitting(rows: Sequence[Row], *, tested_on: str) -> str:
    """Where validation would have stopped each method, and what is left long after it."""
    lines = []
    for row in rows[1:]:
        peak, at_peak, at_end = peak_and_end(row, tested_on)
        fit = [result.tested(result.cell.config.steps, "fit") for result in row.results]
        lines.append(
            (
                title_of(row.method),
                f"{row.results[0].cell.config.learning_rate:g}",
                str(peak),
                *(_percent(spread(each)) for each in (at_peak, at_end, lost(at_peak, at_end), fit)),
            )
        )
    header = (
        "method", "rate", "best after step", "truth there", "truth after the last step", "lost",
        "training pairs fitted at the end",
    )  # fmt: skip
    return "\n".join(markdown_lines(header, lines))


def peak_and_end(
    row: Row, tested_on: str
) -> tuple[int, list[GroupMean | None], list[GroupMean | None]]:
    """The step best on validation, in the mean of the seeds; the truth there, and at the end.

    Steps that not all seeds reached are left out.
    """
    curves: dict[int, list[float]] = defaultdict(list)
    for result in row.results:
        for watched in result.watched:
            curves[int(watched["step"])].append(watched["people"])
    whole = [step for step, values in curves.items() if len(values) == len(row.results)]
    peak = max(whole, key=lambda step: (statistics.fmean(curves[step]), -step))
    last = row.results[0].cell.config.steps
    at_peak, at_end = (
        [result.tested(step, tested_on, "oracle") for result in row.results]
        for step in (peak, last)
    )
    return peak, at_peak, at_end


def lost(
    at_peak: Sequence[GroupMean | None], at_end: Sequence[GroupMean | None]
) -> list[GroupMean | None]:
    """What each seed loses of the truth from the best step to the last."""
    return [
        None if before is None or after is None else decline(before, after)
        for before, after in zip(at_peak, at_end, strict=True)
    ]


def disturbed(
    row: Row, names: Sequence[str], measure: str, *, end: bool = False
) -> list[GroupMean | None]:
    """A measure of each seed over perturbations, at the stop or after the last step."""
    found = []
    for result in row.results:
        means = [result.disturbed(_measured_step(row, end=end), name, measure) for name in names]
        present = [mean for mean in means if mean is not None]
        found.append(together(present) if present else None)
    return found


def _measured_step(row: Row, *, end: bool) -> int:
    """The last step, or the stop; before training there is one alone."""
    return row.results[0].cell.config.steps if end and row.method != START else row.stop


def _percent(value: Spread) -> str:
    if not value.seeds:
        return "diverged"
    deviation = "" if math.isnan(value.deviation) else f" ± {100 * value.deviation:.1f}"
    some = "" if value.seeds == value.of else f" ({value.seeds} of {value.of} seeds)"
    return f"{100 * value.mean:.1f}{deviation}{some}"


def difference_text(value: Paired | None) -> str:
    """A comparison in points, with interval, p and seeds."""
    if value is None:
        return "diverged"
    if value.same:
        return "none"
    bounds = f"{100 * value.low:+.1f} to {100 * value.high:+.1f}"
    return (
        f"{100 * value.difference:+.1f} ({bounds}); p {value.p:.2g}; "
        f"{value.higher} of {value.of} seeds"
    )
