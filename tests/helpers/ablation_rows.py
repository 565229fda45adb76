"""Results of the ablations that are made up, so that every number is known."""

from dataclasses import replace

import numpy as np

from stablepref.benchmarks.shapes.ablation.cells import Cell, Result, mean_values
from stablepref.benchmarks.shapes.ablation.methods import METHODS, method_config
from stablepref.benchmarks.shapes.ablation.plan import START, Choice, Row
from stablepref.benchmarks.shapes.world.perturbations import PERTURBATIONS
from stablepref.evaluation.means import GroupMean

CHOICE = Choice(1e-4, (0.3, 0.2), 100, 0.812, early=False)
PROMPTS = 8


def measure(share: float) -> dict[str, list[float]]:
    """The same share of the 20 pairs of each of eight prompts."""
    return mean_values(GroupMean(np.full(PROMPTS, 20 * share), np.full(PROMPTS, 20.0)))


def cell(method: str, seed: int = 0, **values: float) -> Cell:
    name = "ce" if method == START else method
    config = method_config(
        METHODS[name], rate=1e-4, margins=(0.3, 0.2), steps=200, batch_size=8, seed=seed,
        image_blocks=1, text_blocks=1,
    )  # fmt: skip
    return Cell("large", "hpdv2", replace(config, **values))  # type: ignore[arg-type] # fields


def row(
    method: str,
    *shares: float,
    end: float = 0.5,
    flips: float = 0.1,
    end_flips: float | None = None,
) -> Row:
    """Seeds with a share of the truth at the stop: 0.02 less elsewhere, 0.01 less disturbed."""
    results = []
    stop = 0 if method == START else CHOICE.stop
    for seed, share in enumerate(shares):

        def test(value: float) -> dict[str, object]:
            return {
                "hpdv2": {"oracle": measure(value), "people": measure(value - 0.05)},
                "imagereward": {"oracle": measure(value - 0.02), "people": measure(0.6)},
                "fit": measure(0.9),
            }

        def change(value: float, flips: float) -> dict[str, object]:
            one = {"oracle": measure(value), "people": measure(0.5), "flips": measure(flips)}
            return dict.fromkeys(PERTURBATIONS, one)

        changed = {str(stop): change(share - 0.01, flips)}
        if method != START:
            changed["200"] = change(end - 0.02, flips if end_flips is None else end_flips)
        tested = {str(stop): test(share)} | ({} if method == START else {"200": test(end)})
        found = {"watched": [], "tested": tested, "disturbed": changed}
        results.append(Result(cell(method, seed), found))
    return Row(method, None if method == START else CHOICE, results, stop)


def cells_of(table: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]


def watched(method: str, values: list[float], **config: float) -> Result:
    rows = [
        {"step": 10 * (n + 1), "people": v, "oracle": v, "grad_norm": 2 * v, "effective_pairs": 3}
        for n, v in enumerate(values)
    ]
    planned = replace(cell(method, **config), watched=(10, 20))
    return Result(planned, {"watched": rows, "tested": {}, "disturbed": {}})
