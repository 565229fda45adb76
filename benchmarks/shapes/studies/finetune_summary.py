"""The outcome of a study of fine-tuning: gains of reward against changes of correctness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from stablepref.output.figures import save_figure

from ..world.accuracy import Accuracy, with_interval
from .finetune_runs import by_training

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """One arm over its seeds; all numbers are differences to the pipeline before training.

    Attributes:
        arm: its name.
        reward_gains: of the plain reward at the end, by seed.
        correct_changes: of the share of correct pictures at the end, by seed.
        correct_change: their mean with a 95 % interval over prompts.
        gap_changes: of plain minus robust reward at the end, by seed.
        correct_at_equal_gain: change of the share of correct pictures where each seed's reward has
            first gained as much as every training gains at its best; empty if one gains nothing.
    """

    arm: str
    reward_gains: list[float]
    correct_changes: list[float]
    correct_change: Accuracy
    gap_changes: list[float]
    correct_at_equal_gain: list[float]


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """A summary for each arm, in the order of the rows, the first of which is the base."""
    base, trainings = by_training(rows)
    runs: dict[str, list[list[Row]]] = {}
    for (arm, _), run in trainings.items():
        runs.setdefault(arm, []).append(run)
    curves = {
        arm: [[_point(row, base) for row in run] for run in of_arm] for arm, of_arm in runs.items()
    }
    common = min(max(gain for gain, _ in curve) for arm in curves.values() for curve in arm)
    summaries = []
    for arm, of_arm in runs.items():
        last = [run[-1] for run in of_arm]
        changes = [
            [row["corrects"][i] - base["corrects"][i] for row in last]
            for i in range(len(base["corrects"]))
        ]
        summaries.append(
            Summary(
                arm=arm,
                reward_gains=[row["reward"] - base["reward"] for row in last],
                correct_changes=[row["correct"] - base["correct"] for row in last],
                correct_change=with_interval(changes),
                gap_changes=[_gap(row) - _gap(base) for row in last],
                correct_at_equal_gain=[at_gain(curve, common) for curve in curves[arm]]
                if common > 0
                else [],
            )
        )
    return summaries


def at_gain(curve: Sequence[tuple[float, float]], gain: float) -> float:
    """The change of correctness where the reward's gain first reaches `gain`.

    Between two measurements, and before the first, both change in proportion.

    Args:
        curve: gain of reward and change of correctness, step by step, after (0, 0), which is
            not in it.
        gain: above 0, and no more than the curve reaches.
    """
    before = (0.0, 0.0)
    for point in curve:
        if point[0] >= gain:
            share = (gain - before[0]) / (point[0] - before[0])
            return before[1] + share * (point[1] - before[1])
        before = point
    raise ValueError(f"the gain is {gain}; expected at most {max(curve)[0]}, the curve's largest")


def draw_finetune_study(path: Path, rows: Sequence[Row]) -> None:
    """Write the figure.

    Args:
        path: PNG file to write.
        rows: as `study_rows` gives them.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    base, runs = by_training(rows)
    arms = list(dict.fromkeys(arm for arm, _ in runs))
    named: set[str] = set()
    for (arm, _), trained in runs.items():
        run = [base, *trained]
        style = {"color": f"C{arms.index(arm)}", "marker": ".", "linewidth": 1.2}
        label = None if arm in named else arm
        named.add(arm)
        gains = [row["reward"] - base["reward"] for row in run]
        left.plot(gains, [100 * row["correct"] for row in run], label=label, **style)
        gaps = [row["reward"] - row["robust"] for row in run]
        right.plot(gains, gaps, label=label, **style)
    left.axhline(100 * base["correct"], color="grey", linewidth=0.8, linestyle=":")
    left.set_ylabel("fully correct by the oracle, %")
    left.set_ylim(bottom=0)
    right.set_ylabel("reward minus its mean over weak views")
    for axes in (left, right):
        axes.set_xlabel("gain of the plain reward, held-out prompts")
    handles, labels = left.get_legend_handles_labels()
    titled = [f"trained with the {label} reward" for label in labels]
    figure.legend(handles, titled, loc="outside upper center", ncols=len(titled), fontsize="small")
    save_figure(figure, path)


def _point(row: Row, base: Row) -> tuple[float, float]:
    return row["reward"] - base["reward"], row["correct"] - base["correct"]


def _gap(row: Row) -> float:
    return float(row["reward"] - row["robust"])
