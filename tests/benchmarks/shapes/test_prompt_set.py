"""The command that writes the laboratory's prompt set."""

import csv
import io
from pathlib import Path

from helpers.typed import typed

from stablepref.benchmarks.shapes.prompt_set import main
from stablepref.benchmarks.shapes.world.prompts import lab_prompts


def test_the_table_is_drawbenchs(tmp_path: Path) -> None:
    assert "200 prompts in 10 categories" in typed(main, tmp_path / "lab.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "lab.csv").read_text())))
    assert [(row["Prompts"], row["Category"]) for row in rows] == [
        (one.prompt, one.category) for one in lab_prompts()
    ]
