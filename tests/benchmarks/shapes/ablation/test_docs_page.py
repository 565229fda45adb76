"""docs/ablations.md shows what runs, and its numbers are those of the code."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from helpers.places import DOCS
from typer.testing import CliRunner

from stablepref.benchmarks.shapes.ablation import __main__ as ablation
from stablepref.benchmarks.shapes.ablation import small as ablation_small
from stablepref.benchmarks.shapes.ablation.methods import TABLES
from stablepref.benchmarks.shapes.ablation.page import FIGURES, RESULTS_FILE
from stablepref.benchmarks.shapes.ablation.suite import Suite

PAGE = (DOCS / "ablations.md").read_text(encoding="utf-8")
FEW = shlex.split(
    "--only surface --steps 2 --rates 1e-3 --bs 0.3 --taus 0.2 --groups 2 --validation 2 --test 2 "
    "--batch-size 4 --pool 3"
)


def invoke(words: list[str]) -> str:
    """Run the page's command in this process."""
    assert words[:3] == ["python", "-m", ablation.__package__]
    app = typer.Typer()
    app.command()(ablation.main)
    done = CliRunner().invoke(app, words[3:])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (run,) = map(shlex.split, block.splitlines())

    def small_model(folder: Path, precision: str, *, device: str) -> Path:
        """Of one step, in place of thousands."""
        assert (precision, device) == ("no", "cpu")
        ablation_small.main(folder, steps=1, batch_size=4, workers=0)
        return folder / "model"

    monkeypatch.setattr(ablation, "small_model", small_model)
    monkeypatch.chdir(tmp_path)
    told = invoke([*run, *FEW])
    assert re.search(r"10 trainings, 0 of them done; about .+ GB to write", told)
    assert re.search(r"10 trainings of \d+ s in all: docs/assets/ablations/results.inc", told)
    written = tmp_path / "docs" / FIGURES
    assert (written / RESULTS_FILE).read_text().startswith("2 training")
    assert "10 trainings, 10 of them done; about 0 s" in invoke([*run, "--plan", *FEW])


def test_the_page_includes_what_the_command_writes() -> None:
    assert f'--8<-- "docs/{FIGURES}/{RESULTS_FILE}"' in PAGE
    results = (DOCS / FIGURES / RESULTS_FILE).read_text(encoding="utf-8")
    figures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", results)
    assert all((DOCS / figure).is_file() for figure in figures)
    # Either it says so, or it is a run's.
    assert "has not been run yet" in results or "### What validation chose" in results


def test_every_question_and_option_is_there() -> None:
    assert re.findall(r"^- `(\w+)`: ", PAGE, re.MULTILINE) == list(TABLES)
    app = typer.Typer()
    app.command()(ablation.main)
    options = {option for each in typer.main.get_command(app).params for option in each.opts}
    known = options | {"--help"}
    shown = set(re.findall(r"(?<!\S)`?(--[a-z][a-z-]+)", PAGE))
    assert {"--only", "--small", "--out", "--plan", "--page", "--other-seeds"} <= shown <= known


def test_the_defaults_are_those_of_the_code() -> None:
    suite = Suite()

    def told(*values: float) -> str:
        return ", ".join(f"{value:g}" for value in values)

    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE))
    expected = {
        "training, validation and test groups of each kind of data": told(
            suite.groups, suite.validation, suite.test
        ),
        "steps of a training, and far past the optimum": f"{suite.steps}, {suite.long_steps}",
        "pairs of a batch": told(suite.batch_size),
        "learning rates tried": told(*suite.rates),
        "values of b, and of τ": f"{told(*suite.bs)} and {told(*suite.taus)}",
        "seeds of Tables 2 and 5, and elsewhere": told(suite.seeds, suite.other_seeds),
        "weak views cached of each image": told(suite.pool),
        "trained image and text blocks": told(suite.image_blocks, suite.text_blocks),
    }
    assert {name: rows[name] for name in expected} == expected
