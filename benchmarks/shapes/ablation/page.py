"""The ablations' results in the form that the documentation includes: one file and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .cells import write_text
from .claims import claims, claims_counts, claims_table, other_setting
from .methods import METHODS, TABLES
from .plots import draw_overfitting, draw_surfaces
from .surfaces import by_rate, choices, margin_grid, range_of_settings, surface
from .tables import comparison, overfitting, perturbed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from .methods import Model
    from .plan import Experiment, Row

    RowsOf = Mapping[tuple[str, Model, str], Sequence[Row]]

RESULTS_FILE: Final = "results.inc"
"""Markdown with a name that no site builder takes for a page."""
FIGURES: Final = "assets/ablations"
"""Where the page finds the figures, relative to itself."""

_TITLES: Final[Mapping[str, str]] = {
    "table2": "Table 2: the loss and the training in two steps",
    "table1": "Table 1: under perturbations",
    "table3": "Table 3: the weights of step 2",
    "table5": "Table 5: trained on one kind of data, tested on the other",
    "open": "What the paper leaves open",
    "batching": "Batches of pairs against batches of groups",
    "overfitting": "Overfitting",
    "surface": "Learning rates and steps",
}

_READ: Final = (
    "Per cent of pairs in the right order: by the truth, and by the mean of ten annotators; mean "
    "and standard deviation over seeds. Differences are in points, with 95 % intervals over "
    'prompts and Wilcoxon\'s p over prompts, not corrected for the number of comparisons; "none" '
    "stands where both are the same training. A model that stops in step 1 knows nothing of step 2."
)
_NOTES: Final[Mapping[str, str]] = {
    "table2": _READ,
    "table1": "Per cent of pairs in the order of the truth, its change in points, and per cent of "
    "pairs whose order the perturbation flips.",
    "table3": _READ,
    "table5": _READ,
    "open": _READ,
    "batching": _READ + " Batches of Stable Preference are compared under `open`.",
    "overfitting": "Trained far past the optimum, at the rate that validation chose for the "
    "shorter training; Stable Preference also at the rate of cross-entropy, since a lower rate "
    "alone overfits less. The best step is that of the seeds' mean agreement with validation's "
    "annotators.",
    "surface": "The small model with one seed: what rates and steps are chosen from. Each point "
    "has the agreement with the truth on the validation groups and, both as means since the point "
    "before, the norm of the gradient and the effective number of pairs of a batch: how many of "
    "equal weight would share the weight as evenly. Where a batch's margins are wide, the weights "
    "of step 2 fall on one or two of its pairs.",
}
_COUNTS: Final = (
    "In how many places each claim held, by its interval and by every seed: models and kinds of "
    "data. All claims with their sizes are near the end."
)
_BY_RATE: Final = (
    "Each method's trainings by learning rate, the truth on validation groups: the highest over "
    "the steps, which only hindsight knows, and after the last; the small model, one seed."
)


def write_results(
    folder: Path, experiment: Experiment, tables: Sequence[str], *, described: str
) -> Path:
    """Write `results.inc` and the figures of some tables.

    Args:
        folder: Made if it does not exist.
        experiment: Its `run` gives all results.
        tables: Names of `TABLES`.
        described: How and where it was run, for the first line.

    Returns:
        The Markdown file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = experiment.everything(tables)
    parts = [described]
    found = claims(rows)
    if found:
        parts += ["### What held", _COUNTS, claims_counts(found)]
    for name in tables:
        parts += [f"### {_TITLES[name]}", _NOTES[name]]
        parts += _section(folder, experiment, rows, name)
    if found:
        parts += ["### Every claim", claims_table(found)]
    parts.append("### What validation chose")
    for setting in _settings(tables):
        names = dict.fromkeys(
            method
            for table in tables
            if setting in TABLES[table].settings
            for method in TABLES[table].methods
        )
        chosen = {name: experiment.choice(setting, name) for name in names}
        tuned = {
            name: experiment.surface(setting, name) for name in names if not METHODS[name].rate_of
        }
        suite = experiment.suite
        parts += [f"On `{setting}`:", choices(chosen, suite), _BY_RATE, by_rate(tuned)]
    path = folder / RESULTS_FILE
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _section(folder: Path, experiment: Experiment, rows: RowsOf, name: str) -> Iterator[str]:
    """One table's parts, its figures drawn."""
    if name == "surface":
        for setting in TABLES[name].settings:
            surfaces = {each: experiment.surface(setting, each) for each in TABLES[name].methods}
            draw_surfaces(folder / f"surface-{setting}.svg", surfaces)
            yield f"![Surfaces on {setting}]({FIGURES}/surface-{setting}.svg)"
            yield f"On `{setting}`:"
            yield range_of_settings(experiment.before(setting), surfaces)
            for each, results in surfaces.items():
                yield f"`{each}` on `{setting}`, truth; gradient norm; effective pairs:"
                yield surface(results)
        return
    own = {
        (model, setting): some for (table, model, setting), some in rows.items() if table == name
    }
    if name == "overfitting":
        draw_overfitting(
            folder / "overfitting.svg", {setting: some for (_, setting), some in own.items()}
        )
        yield f"![Agreement over the steps]({FIGURES}/overfitting.svg)"
    if name == "open":
        for setting in TABLES[name].settings:
            yield f"b and tau of `sp` on `{setting}`, agreement with validation's annotators:"
            yield margin_grid(experiment.margin_grid(setting, "sp"))
    for (model, setting), some in own.items():
        yield f"Model `{model}`, trained on `{setting}`:"
        if name == "overfitting":
            yield overfitting(some, tested_on=setting)
        elif name == "table1":
            yield "At each method's stop:"
            yield perturbed(some)
            yield "After the last step:"
            yield perturbed(some, end=True)
        else:
            where = other_setting(setting) if name == "table5" else setting
            yield comparison(some, tested_on=where)


def _settings(tables: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(s for table in tables for s in TABLES[table].settings))
