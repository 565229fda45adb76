"""The plan: every method gets the same, and only validation chooses."""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stablepref.benchmarks.shapes.ablation.cells import Cell, Result, Store
from stablepref.benchmarks.shapes.ablation.methods import (
    METHODS,
    PAPER_MARGINS,
    TABLES,
    Method,
    method_config,
)
from stablepref.benchmarks.shapes.ablation.plan import START, Experiment
from stablepref.benchmarks.shapes.ablation.run import supposed
from stablepref.benchmarks.shapes.ablation.suite import Suite, watch_steps

SUITE = Suite(steps=400)
FAR = "test and disturbed results are not for choosing"


class Recorder:
    """Gives every cell a made-up result, and keeps the cells."""

    def __init__(self, best: dict[str, tuple[float, int]] | None = None) -> None:
        self.cells: list[Cell] = []
        self.best = best or {}

    def __call__(self, cells: Sequence[Cell]) -> list[Result]:
        self.cells += cells
        return [Result(cell, self.found(cell)) for cell in cells]

    def found(self, cell: Cell) -> dict[str, Any]:
        rate, step = self.best.get(cell.config.name, (3e-5, 100))
        near = cell.config.learning_rate == rate
        return {
            "watched": [
                {"step": s, "people": 0.7 + 0.1 * near + 0.05 * (s == step), "oracle": 0.0}
                for s in cell.watched
            ],
            "tested": {FAR: {}},
            "disturbed": {FAR: {}},
        }


def experiment(
    run: Callable[[Sequence[Cell]], Sequence[Result]], suite: Suite = SUITE
) -> Experiment:
    return Experiment(suite, lambda _, method: 6 if method.fewer_pairs else suite.batch_size, run)


def test_every_method_is_tuned_over_the_same_rates_on_the_small_model_with_one_seed() -> None:
    run = Recorder()
    plan = experiment(run)
    plan.everything(list(TABLES))
    tuned = [cell for cell in run.cells if cell.watched and not cell.tested]
    assert {(cell.model, cell.config.seed) for cell in tuned} == {("small", 0)}
    rates: dict[tuple[str, str], set[float]] = defaultdict(set)
    for cell in tuned:
        rates[cell.setting, cell.config.name].add(cell.config.learning_rate)
    assert set(rates) == {
        (setting, name)
        for table in TABLES.values()
        for setting in table.settings
        for name in table.methods
    }
    for (_, name), found in rates.items():
        # In the made-up results every method is best at 3e-5.
        assert found == ({3e-5} if name == "sp-at-ce-rate" else set(SUITE.rates))
    assert {cell.watched for cell in tuned} == {watch_steps(400)}


def test_validation_chooses_rate_and_step_and_ties_take_the_lowest_rate() -> None:
    run = Recorder({"ce": (1e-4, 25), "sp": (1e-3, 400), "sp-through": (1e-5, 25)})
    plan = experiment(run)
    ce, sp, through = (plan.choice("hpdv2", name) for name in ("ce", "sp", "sp-through"))
    assert (ce.rate, ce.stop, ce.early) == (1e-4, 25, False)
    assert (sp.rate, sp.stop, sp.early) == (1e-3, 400, False)
    # Of 400 steps 40 are step 1.
    assert (through.rate, through.stop, through.early) == (1e-5, 25, True)
    assert ce.people == pytest.approx(0.85)

    class Flat(Recorder):
        def found(self, cell: Cell) -> dict[str, Any]:
            return {"watched": [{"step": s, "people": 0.7, "oracle": 1.0} for s in cell.watched]}

    flat = experiment(Flat()).choice("hpdv2", "ce")
    assert (flat.rate, flat.stop) == (min(SUITE.rates), min(watch_steps(400)))

    class Two(Recorder):
        """As good at a high rate after few steps as at a lower one after many."""

        def found(self, cell: Cell) -> dict[str, Any]:
            good = {(1e-3, 12), (1e-4, 300)}
            rate = cell.config.learning_rate
            rows = [{"step": s, "people": 0.7 + 0.1 * ((rate, s) in good)} for s in cell.watched]
            return {"watched": rows}

    two = experiment(Two()).choice("hpdv2", "ce")
    assert (two.rate, two.stop) == (1e-4, 300)


def test_margins_are_tuned_at_the_best_rate_and_handed_to_variants() -> None:
    class Wide(Recorder):
        def found(self, cell: Cell) -> dict[str, Any]:
            good = (cell.config.b, cell.config.tau) == (1.0, 0.7)
            # With them a lower rate is better yet.
            better = 0.2 * good + 0.2 * (good and cell.config.learning_rate == 1e-5)
            return {
                "watched": [
                    {**row, "people": row["people"] + better}
                    for row in super().found(cell)["watched"]
                ]
            }

    run = Wide({"sp": (1e-4, 75)})
    plan = experiment(run)
    sp = plan.choice("hpdv2", "sp")
    assert (sp.rate, sp.margins) == (1e-5, (1.0, 0.7))
    grid = {
        (cell.config.b, cell.config.tau) for cell in run.cells if cell.config.learning_rate == 1e-4
    }
    assert grid == {(b, tau) for b in SUITE.bs for tau in SUITE.taus}
    others = [c for c in run.cells if c.config.learning_rate != 1e-4]
    assert {(c.config.b, c.config.tau) for c in others} == {PAPER_MARGINS, (1.0, 0.7)}
    # The rate is tuned again at what was chosen, as that of the variants is.
    surface = plan.surface("hpdv2", "sp")
    assert [result.cell.config.learning_rate for result in surface] == list(SUITE.rates)
    assert {(r.cell.config.b, r.cell.config.tau) for r in surface} == {(1.0, 0.7)}
    assert plan.choice("hpdv2", "sp-through").margins == (1.0, 0.7)
    assert plan.choice("hpdv2", "sp-figure4").margins == (0.1, 0.05)


def test_a_method_may_take_anothers_rate() -> None:
    run = Recorder({"ce": (1e-4, 25), "sp": (1e-5, 400)})
    plan = experiment(run)
    taken = plan.choice("hpdv2", "sp-at-ce-rate")
    assert (taken.rate, taken.margins) == (1e-4, plan.choice("hpdv2", "sp").margins)
    rows = plan.everything(["overfitting"])["overfitting", "small", "hpdv2"]
    rates = {row.method: {r.cell.config.learning_rate for r in row.results} for row in rows[1:]}
    assert rates == {"ce": {1e-4}, "sp": {1e-5}, "sp-at-ce-rate": {1e-4}}


def test_tables_have_equal_budgets_and_as_many_seeds_as_asked() -> None:
    run = Recorder({"sp": (1e-4, 75)})
    rows = experiment(run).everything(list(TABLES))
    assert set(rows) == {
        (name, model, setting)
        for name, table in TABLES.items()
        for model in table.models
        for setting in table.settings
    }
    for (name, model, setting), some in rows.items():
        table = TABLES[name]
        assert [row.method for row in some] == [START, *table.methods]
        for row in some[1:]:
            cells = [result.cell for result in row.results]
            seeds = 5 if name in ("table2", "table5") else 3
            assert [cell.config.seed for cell in cells] == list(range(seeds))
            assert {(cell.model, cell.setting) for cell in cells} == {(model, setting)}
            steps = SUITE.long_steps if table.lengthened else SUITE.steps
            assert {cell.config.steps for cell in cells} == {steps}
            assert {cell.last for cell in cells} == {steps}
            fewer = METHODS[row.method].fewer_pairs
            assert {cell.config.batch_size for cell in cells} == {6 if fewer else 32}
            assert not any(cell.config.hflip for cell in cells)
            if not table.lengthened:
                assert {cell.tested for cell in cells} == {tuple(sorted({row.stop, 400}))}
                assert all(result.cell.watched == () for result in row.results)
            if table.disturbed:
                assert {cell.disturbed for cell in cells} == {tuple(sorted({row.stop, 400}))}
    # Tables 1, 3 and 5 share trainings with Table 2.
    shared = [
        {row.method: [result.cell for result in row.results][:3] for row in rows[name, "large", s]}
        for name in ("table1", "table2", "table5") for s in ("hpdv2",)
    ]  # fmt: skip
    assert shared[0]["sp"] == shared[1]["sp"] == shared[2]["sp"]
    untrained = rows["table2", "large", "hpdv2"][0]
    assert untrained.results[0].cell.last == 0
    assert experiment(run).before("hpdv2").watched[0]["step"] == 0


@pytest.mark.parametrize("tables", [*([name] for name in TABLES), list(TABLES)], ids=str)
def test_the_estimate_is_no_less_than_what_may_come(tables: list[str]) -> None:
    def asked(found: Callable[[Cell], Result]) -> int:
        kept: dict[str, Cell] = {}

        def run(cells: Sequence[Cell]) -> list[Result]:
            for cell in cells:
                kept[json.dumps(cell.described(), sort_keys=True)] = cell
            return [found(cell) for cell in cells]

        plan = experiment(run)
        plan.everything(tables)
        return sum(cell.last for cell in kept.values())

    estimated = asked(supposed)
    for seed in range(3):

        def made_up(cell: Cell, seed: int = seed) -> Result:
            chance = random.Random(f"{seed} {json.dumps(cell.described(), sort_keys=True)}")
            rows = [{"step": step, "people": chance.random()} for step in cell.watched]
            return Result(cell, {"watched": rows, "tested": {}, "disturbed": {}})

        assert asked(made_up) <= estimated


def test_every_training_diverging_is_an_error() -> None:
    class Nothing(Recorder):
        def found(self, cell: Cell) -> dict[str, Any]:
            return {"watched": []}

    with pytest.raises(ValueError, match="every training diverged: give lower --rates"):
        experiment(Nothing()).choice("hpdv2", "ce")


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_methods_are_what_they_say(method: Method) -> None:
    config = method_config(
        method, rate=1e-5, margins=(1.0, 0.5), steps=200, batch_size=8, seed=3,
        image_blocks=1, text_blocks=2,
    )  # fmt: skip
    assert config.loss == ("cross-entropy" if method.name.startswith("ce") else "stable-preference")
    views = {"sp-k1": 1, "sp-k7": 7}.get(method.name, 3)
    assert config.views == (views if config.anti_interference else 0)
    without = ("ce", "ce-augmented", "sp-no-ai", "ce-pairs", "ce-pairs-images")
    assert config.anti_interference == (method.name not in without)
    assert config.augment == (method.name == "ce-augmented")
    order = {"sp-step1-none": 0, "sp-step1-30": 60, "sp-step1-all": 200}
    expected = 20 if config.loss == "stable-preference" else 0
    assert config.order_steps == order.get(method.name, expected)
    assert config.warmup_steps == 10
    kinds = {"sp-uniform": "uniform", "sp-inverse": "inverse"}
    assert config.margin_weighting == kinds.get(method.name, "softmax")
    assert config.detach_weights == (method.name != "sp-through")
    assert config.batching == ("pairs" if "-pairs" in method.name else "groups")
    own = {"sp-figure4": (0.1, 0.05), "sp-paper": (0.3, 0.2), "sp-wide": (2.0, 1.0)}
    given = (1.0, 0.5) if config.loss == "stable-preference" else (0.3, 0.2)
    assert (config.b, config.tau) == own.get(method.name, given)
    assert (config.seed, config.image_blocks, config.text_blocks) == (3, 1, 2)


def test_results_are_kept_by_what_decides_them(tmp_path: Path) -> None:
    config = method_config(
        METHODS["ce"], rate=1e-5, margins=(0.3, 0.2), steps=4, batch_size=8, seed=0,
        image_blocks=1, text_blocks=1,
    )  # fmt: skip
    cell = Cell("small", "hpdv2", config, tested=(4,))
    store = Store(tmp_path, SUITE, {"small": "a", "large": "b"})
    assert not store.has(cell)
    with pytest.raises(FileNotFoundError):
        store.read(cell)
    store.write(cell, {"watched": [], "tested": {"4": {"fit": {"sums": [3], "counts": [4]}}}})
    found = store.read(cell)
    mean = found.tested(4, "fit")
    assert mean is not None
    assert mean.value == 0.75
    assert found.tested(2, "fit") is None
    assert store.has(Cell("small", "hpdv2", replace(config, name="another"), tested=(4,)))
    for other in (
        Cell("large", "hpdv2", config, tested=(4,)),
        Cell("small", "imagereward", config, tested=(4,)),
        Cell("small", "hpdv2", replace(config, seed=1), tested=(4,)),
        Cell("small", "hpdv2", config, tested=(2, 4)),
    ):
        assert not store.has(other)
    more = Store(tmp_path, replace(SUITE, groups=300), store.weights)
    assert not more.has(cell)
    # Seeds and rates are no part of a single training's result.
    assert Store(tmp_path, replace(SUITE, seeds=9, rates=(1e-6,)), store.weights).has(cell)
    assert not Store(tmp_path, SUITE, {"small": "other", "large": "b"}).has(cell)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
