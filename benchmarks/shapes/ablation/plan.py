"""Which trainings the questions need, and the hyper-parameters that each method gets.

The one plan serves twice: with a function that trains, and with one that only counts.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple, final

from .cells import Cell
from .methods import (
    METHODS,
    PAPER_MARGINS,
    TABLES,
    Method,
    Model,
    Table,
    method_config,
)
from .suite import watch_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stablepref.recipes import TrainConfig

    from .cells import Result
    from .methods import Margins
    from .suite import Suite

START: Final = "start"
"""What stands among the methods for the model before any training."""
TUNED_SEED: Final = 0
TUNED_MODEL: Final[Model] = "small"


class Choice(NamedTuple):
    """What a method trains with, as validation on the small model chose it.

    Attributes:
        rate: Peak of the learning rate.
        margins: b and τ.
        stop: After which step the model is taken.
        people: Agreement there with the annotators of the validation groups.
        early: Whether it stops before step 1 ends, so that step 2 never ran.
    """

    rate: float
    margins: tuple[float, float]
    stop: int
    people: float
    early: bool


class Row(NamedTuple):
    """A method in one place of a table.

    Attributes:
        method: Its name, or `START`.
        choice: What it was trained with; None for `START`.
        results: One for each seed.
        stop: The step after which the model is taken.
    """

    method: str
    choice: Choice | None
    results: Sequence[Result]
    stop: int


@final
class Experiment:
    """The plan of a suite.

    Args:
        suite: Sizes.
        batch_size: Pairs of a batch of a method on a setting.
        run: Trains those of the cells that were not yet, and gives the results of all.
    """

    def __init__(
        self,
        suite: Suite,
        batch_size: Callable[[str, Method], int],
        run: Callable[[Sequence[Cell]], Sequence[Result]],
    ) -> None:
        self.suite = suite
        self.batch_size = batch_size
        self.run = run
        self._choices: dict[tuple[str, str], Choice] = {}
        self._margins: dict[tuple[str, str], tuple[float, float]] = {}

    def before(self, setting: str) -> Result:
        """The model that is tuned, before any training, with its validation."""
        (result,) = self.run([self._start(TUNED_MODEL, setting)])
        return result

    def surface(self, setting: str, name: str) -> list[Result]:
        """The trainings that a method's rate and stop are chosen from, lowest rate first."""
        return list(self.run(self._rate_cells(setting, name)))

    def margin_grid(self, setting: str, name: str) -> list[Result]:
        """The trainings that b and τ are chosen from, at the rate that is best with the paper's."""
        return list(self.run(self._margin_cells(setting, name)))

    def choice(self, setting: str, name: str) -> Choice:
        """What a method trains with on a setting; its tuning is run first if it was not."""
        if (setting, name) not in self._choices:
            best = _best(self.surface(setting, name))
            self._choices[setting, name] = best
        return self._choices[setting, name]

    def rows(self, table: str, model: Model, setting: str) -> list[Row]:
        """The rows of a table for one model and one setting, the untrained model first."""
        rows = [Row(START, None, self.run([self._start(model, setting)]), 0)]
        for name in TABLES[table].methods:
            choice = self.choice(setting, name)
            cells = self._final_cells(table, model, setting, name)
            rows.append(Row(name, choice, self.run(cells), choice.stop))
        return rows

    def everything(self, tables: Sequence[str]) -> Mapping[tuple[str, Model, str], list[Row]]:
        """All rows of some tables, by table, model and setting.

        Trainings that do not depend on each other are run in one call.
        """
        self._tune(tables)
        settings = dict.fromkeys(s for table in tables for s in TABLES[table].settings)
        self.run([self._start(TUNED_MODEL, setting) for setting in settings])
        self.run(
            [
                cell
                for table in tables
                for model, setting in product(TABLES[table].models, TABLES[table].settings)
                for name in TABLES[table].methods
                for cell in self._final_cells(table, model, setting, name)
            ]
        )
        return {
            (table, model, setting): self.rows(table, model, setting)
            for table in tables
            for model, setting in product(TABLES[table].models, TABLES[table].settings)
        }

    def _tune(self, tables: Sequence[str]) -> None:
        """Rates at the paper's b and τ, then b and τ, then the rates at those that were chosen."""
        asked = {
            place: METHODS[place[1]].margins
            for table in tables
            for place in product(TABLES[table].settings, TABLES[table].methods)
        }
        places = list(asked)
        for setting, name in places:  # which grows
            needed = [METHODS[name].rate_of] if METHODS[name].rate_of else []
            needed += ["sp"] if METHODS[name].margins == "sp" else []
            places += [(setting, each) for each in needed if (setting, each) not in asked]
            asked |= {(setting, each): METHODS[each].margins for each in needed}

        def having(*kinds: Margins) -> list[tuple[str, str]]:
            return [place for place, margins in asked.items() if margins in kinds]

        first = having("none", "own", "fixed")
        self.run([cell for place in first for cell in self._first_cells(*place)])
        self.run([cell for place in having("own") for cell in self._margin_cells(*place)])
        self.run([cell for place in having("own", "sp") for cell in self._rate_cells(*place)])

    def _first_cells(self, setting: str, name: str) -> list[Cell]:
        return self._over_rates(setting, name, PAPER_MARGINS)

    def _margin_cells(self, setting: str, name: str) -> list[Cell]:
        best = _best(self.run(self._first_cells(setting, name)))
        pairs = product(self.suite.bs, self.suite.taus)
        return [self._tuned(setting, METHODS[name], best.rate, pair) for pair in pairs]

    def _rate_cells(self, setting: str, name: str) -> list[Cell]:
        return self._over_rates(setting, name, self._chosen_margins(setting, name))

    def _chosen_margins(self, setting: str, name: str) -> tuple[float, float]:
        kind = METHODS[name].margins
        if kind == "sp":
            return self._chosen_margins(setting, "sp")
        if kind != "own":
            return PAPER_MARGINS
        if (setting, name) not in self._margins:
            best = _best(self.margin_grid(setting, name))
            self._margins[setting, name] = best.margins
        return self._margins[setting, name]

    def _over_rates(self, setting: str, name: str, margins: tuple[float, float]) -> list[Cell]:
        method = METHODS[name]
        of = method.rate_of
        rates = (self.choice(setting, of).rate,) if of else self.suite.rates
        return [self._tuned(setting, method, rate, margins) for rate in rates]

    def _final_cells(self, table: str, model: Model, setting: str, name: str) -> list[Cell]:
        asked = TABLES[table]
        seeds = self.suite.seeds if asked.seeds == "many" else self.suite.other_seeds
        return [self._final(asked, model, setting, name, seed) for seed in range(seeds)]

    def _tuned(
        self, setting: str, method: Method, rate: float, margins: tuple[float, float]
    ) -> Cell:
        watched = watch_steps(self.suite.steps)
        config = self._config(
            setting, method, rate, margins, steps=self.suite.steps, seed=TUNED_SEED
        )
        return Cell(TUNED_MODEL, setting, config, watched=watched)

    def _final(self, table: Table, model: Model, setting: str, name: str, seed: int) -> Cell:
        choice = self.choice(setting, name)
        steps = self.suite.long_steps if table.lengthened else self.suite.steps
        config = self._config(
            setting, METHODS[name], choice.rate, choice.margins, steps=steps, seed=seed
        )
        if table.lengthened:
            looked = (0, *watch_steps(steps))
            return Cell(model, setting, config, watched=looked, tested=looked)
        ends = tuple(sorted({choice.stop, steps}))
        # Also in other tables, so that those and Table 1 share their trainings.
        robust = model == "large" and any(
            name in each.methods for each in TABLES.values() if each.disturbed
        )
        return Cell(model, setting, config, tested=ends, disturbed=ends * robust)

    def _start(self, model: Model, setting: str) -> Cell:
        config = self._config(
            setting, METHODS["ce"], self.suite.rates[0], PAPER_MARGINS,
            steps=self.suite.steps, seed=TUNED_SEED,
        )  # fmt: skip
        disturbed = (0,) * (model == "large")
        return Cell(model, setting, config, watched=(0,), tested=(0,), disturbed=disturbed)

    def _config(
        self,
        setting: str,
        method: Method,
        rate: float,
        margins: tuple[float, float],
        *,
        steps: int,
        seed: int,
    ) -> TrainConfig:
        return method_config(
            method,
            rate=rate,
            margins=margins,
            steps=steps,
            batch_size=self.batch_size(setting, method),
            seed=seed,
            image_blocks=self.suite.image_blocks,
            text_blocks=self.suite.text_blocks,
            mixed_precision=self.suite.mixed_precision,
        )


def _best(results: Sequence[Result]) -> Choice:
    """The highest agreement with the validation's annotators; of equal ones the lowest rate."""
    candidates = [
        (-row["people"], result.cell.config.learning_rate, int(row["step"]), result.cell.config)
        for result in results
        for row in result.watched
    ]
    if not candidates:
        raise ValueError("every training diverged: give lower --rates")
    people, rate, stop, config = min(candidates, key=lambda each: each[:3])
    early = stop <= config.order_steps
    return Choice(rate, (config.b, config.tau), stop, -people, early)
