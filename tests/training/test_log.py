"""Metrics for programs, and a bar for people."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.progress import Progress

from stablepref.losses import Objective, batch_objective
from stablepref.output.progress import ProgressLines
from stablepref.training.log import TrainLog, batch_metrics, train_log, training_bar
from stablepref.training.step import StepResult


class Engine:
    """As much of an Accelerator as a log needs."""

    is_main_process = True

    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []

    def log(self, values: dict[str, float], *, step: int) -> None:
        self.told.append((step, values))


def result(margin: list[float], weight: list[float], loss: float = 0.5) -> StepResult:
    objective = Objective(torch.tensor(loss), torch.tensor(margin), torch.tensor(weight))
    return StepResult(objective, torch.zeros(1, 1), torch.ones(1).bool(), len(margin))


def test_metrics_by_hand() -> None:
    """Weights 1, 1 and 0.5: (2.5)² / (1 + 1 + 0.25) = 2.7778 equal pairs."""
    found = batch_metrics(result([1.0, -2.0, 0.25], [1.0, 1.0, 0.5]))
    assert found["loss"] == 0.5
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["margin"] == pytest.approx(-0.25)
    assert found["weight"] == pytest.approx(2.5 / 3)
    assert found["effective_pairs"] == pytest.approx(6.25 / 2.25)
    assert found["pairs"] == 3


@pytest.mark.parametrize(("spread", "effective"), [(0.0, 4.0), (50.0, 1.0)])
def test_effective_pairs_tell_in_step_2_where_the_mean_weight_cannot(
    spread: float, effective: float
) -> None:
    scores = torch.tensor([[spread], [0.0], [0.0], [0.0], [0.0]])
    better, worse = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 4, 4])
    objective = batch_objective(
        scores, better, worse, torch.ones(4), weighting="margin", anti_interference=False
    )
    found = batch_metrics(StepResult(objective, scores, torch.ones(5).bool(), 4))
    assert found["weight"] == pytest.approx(1)
    assert found["effective_pairs"] == pytest.approx(effective)


def test_a_batch_without_pairs_has_no_loss() -> None:
    found = batch_metrics(result([], [], loss=0.0))
    assert found.pop("pairs") == 0
    assert all(math.isnan(value) for value in found.values())


def strict(text: str) -> Any:  # noqa: ANN401 (JSON)
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_rows_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    engine: Any = Engine()
    with train_log(engine, tmp_path, steps=3, start=0, show=False) as log:
        log.write(1, {"loss": 0.5, "accuracy": math.nan, "grad_norm": math.inf})
        log.write(2, {"loss": 0.25})
    rows = [strict(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 1, "loss": 0.5, "accuracy": None, "grad_norm": None},
        {"step": 2, "loss": 0.25},
    ]
    assert engine.told[1] == (2, {"loss": 0.25})


def test_rows_after_the_start_and_half_rows_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 2, "lo')
    engine: Any = Engine()
    with train_log(engine, tmp_path, steps=3, start=2, show=False):
        pass
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def bar_and_log(folder: Path) -> tuple[Progress, TrainLog, SimpleNamespace]:
    """A bar of 10 steps, of which 4 were done before, on a clock of the test's own."""
    clock = SimpleNamespace(now=0.0)
    bar = training_bar(hidden=False)
    bar.get_time = lambda: clock.now
    task = bar.add_task("training", total=10, completed=4, shown="")
    engine: Any = Engine()
    return bar, TrainLog(engine, folder, bar, task, ProgressLines("training", None)), clock


@pytest.mark.parametrize("seconds", [0.5, 45.0, 600.0])
def test_the_time_left_is_known_however_long_a_step_takes(tmp_path: Path, seconds: float) -> None:
    bar, log, clock = bar_and_log(tmp_path)
    for step in (5, 6, 7):
        clock.now += seconds
        log.advance(step)
    assert bar.tasks[0].completed == 7
    assert bar.tasks[0].time_remaining == pytest.approx(3 * seconds, abs=1)


def test_the_bar_tells_what_people_watch(tmp_path: Path) -> None:
    bar, log, _ = bar_and_log(tmp_path)
    log.show(batch_metrics(result([1.0, -2.0], [1.0, 1.0])) | {"images_per_second": 12.4})
    assert bar.tasks[0].fields["shown"] == (
        "loss 0.500  pairs 50.0%  ΔS -0.50  effective pairs 2.0  12 images/s"
    )


@pytest.mark.parametrize(
    "line", ["{}", "[1]", '{"step": "2"}', "hello", "\0", '{"step": null}', "3"]
)
def test_a_damaged_line_of_metrics_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": 0.5}}\n{line}\n')
    with (
        pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 2"),
        train_log(
            Engine(),
            tmp_path,
            steps=3,
            start=1,
            show=False,  # type: ignore[arg-type] # enough of one
        ),
    ):
        pass
    assert line in path.read_text()
