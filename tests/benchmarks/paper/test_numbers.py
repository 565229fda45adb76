"""The paper's numbers and rows, written here once more from the paper, and its own arithmetic."""

import re
from decimal import Decimal
from pathlib import Path

import pytest
from helpers.paper_case import MODELS, ROWS, TABLE_1_LINES

from stablepref.benchmarks.paper.layouts import LAYOUTS
from stablepref.benchmarks.paper.numbers import STYLES, TABLE_1, TABLE_6, human_order, misprints


def test_table_1_is_as_printed_and_its_misprints_are_found() -> None:
    wrong = []
    for line, row in zip(TABLE_1_LINES, TABLE_1, strict=True):
        method, dataset, original, *cells = line.split("|")
        assert (row.method, row.dataset, f"{row.original:.1f}") == (method, dataset, original)
        published = row.published()[1:]
        for place, cell in enumerate(cells):
            value, change = cell.strip(")").split(" (")
            assert published[place].value == float(value)
            own = Decimal(value) - Decimal(original)
            assert Decimal(f"{row.own_change(place):.1f}") == own
            if own == Decimal(change):
                assert published[place].printed == cell
            else:
                wrong.append((method, dataset, change, f"{own:+.1f}"))
                corrected = f"{value} ({change}, printed; {own:+.1f} by its own numbers)"
                assert published[place].printed == corrected
    assert wrong == [
        ("SP (CLIP-H)", "HPD v2", "+0.4", "-0.4"),
        ("SP (CLIP-H)", "HPD v2", "+0.3", "-0.3"),
    ]
    first, second, third = misprints()
    assert "crop 0.95: printed is +0.4, but 80.3 - 80.7 is -0.4" in first
    assert "crop 0.93: printed is +0.3, but 80.4 - 80.7 is -0.3" in second
    assert "ImageReward on ImageReward has 65.2 in Table 1 and 65.1 in Table 4" in third
    assert [note[:22] for note in human_order()] == ["as printed: in Table 4"]


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_there_in_the_order_of_the_paper(name: str) -> None:
    lines = LAYOUTS[name].lines
    found = ["|".join((*line.labels, *(one.printed for one in line.published))) for line in lines]
    assert found == ROWS[name].splitlines()
    assert all(float(one.printed) == one.value for line in lines for one in line.published)


def test_table_6_is_as_printed(shared_data: Path) -> None:
    assert tuple(system.name for system in TABLE_6) == MODELS
    assert len(STYLES) == 4
    page = (shared_data.parent / "paper.txt").read_text(encoding="utf-8")
    for system in TABLE_6:
        numbers = [f"{mean:.2f}±{deviation:.3f}" for mean, deviation in system.styles]
        line = "\t".join((*numbers, f"{system.drawbench:.2f}"))
        assert re.search(rf"^{re.escape(system.name)}(?: \[\d+\])?\t{line}$", page, re.MULTILINE)


def test_tables_4_and_5_are_those_of_the_paper(shared_data: Path) -> None:
    page = (shared_data.parent / "paper.txt").read_text(encoding="utf-8")
    for name in ("table4", "table5"):
        place = page.index(f"Table {name[-1]}: Comparison")
        for row in ROWS[name].splitlines():
            title, value = row.split("|")
            word = re.escape(title).replace("†", r" \[†\]")
            found = re.compile(rf"^{word}(?: \[[\d, ]+\])?\t{value}$", re.MULTILINE)
            assert found.search(page, place), row
