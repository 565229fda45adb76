"""The figure of a study of fine-tuning: correctness against the reward's gain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from stablepref.output.figures import save_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any


def draw_finetune_study(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the figure.

    Args:
        path: PNG file to write.
        rows: as `study_rows` gives them.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    base, *others = rows
    runs: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in others:
        runs.setdefault((row["arm"], row["seed"]), [base]).append(row)
    arms = list(dict.fromkeys(arm for arm, _ in runs))
    named: set[str] = set()
    for (arm, _), run in runs.items():
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
