"""docs/lab.md has the laboratory's numbers, and what it shows runs."""

import re

import pytest
from helpers.places import DOCS

from stablepref.benchmarks.shapes.people.alignment import MISTAKE_COSTS
from stablepref.benchmarks.shapes.people.fidelity import FAULT_COSTS
from stablepref.benchmarks.shapes.people.generators import GENERATORS
from stablepref.benchmarks.shapes.people.settings import SETTINGS

PAGE = (DOCS / "lab.md").read_text(encoding="utf-8")


def rows() -> dict[str, list[str]]:
    """Cells of each table row by its first cell."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line[:1] == "|"]
    return {first.strip("`"): rest for first, *rest in lines}


def test_costs_generators_and_settings_are_those_of_the_code() -> None:
    found = rows()
    for name, cost in {**MISTAKE_COSTS, **FAULT_COSTS}.items():
        assert found[name][0] == str(cost)
    for name, generator in GENERATORS.items():
        numbers = (generator.errors, generator.faults, generator.severity)
        assert found[name] == [f"{number:g}" for number in numbers]
    for name, setting in SETTINGS.items():
        assert found[name][-2:] == [
            f"{setting.noise:g}",
            f"{setting.grid:g}" if setting.grid else "none",
        ]
        assert f"{100 * setting.target:g} %" in PAGE
        assert f"There are {setting.people} people" in PAGE


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(block, "docs/lab.md", "exec"), {"__name__": "__main__"})
    assert "Interval(value=0." in capsys.readouterr().out
