"""Tables on standard output: as wide as the terminal, or elsewhere as wide as they need to be."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stablepref.models.catalog import Entry

WIDEST = 10_000
NUMBERS = ("rank", "score", "spread")


def print_results(rows: Sequence[Mapping[str, object]], *, title: str) -> None:
    """Print rows of results; the prompt where there are several, the error where there is one."""
    shown = ["rank", "score", "spread", "image"]
    if len({row["prompt"] for row in rows}) > 1:
        shown.append("prompt")
    if any(row["error"] is not None for row in rows):
        shown.append("error")
    columns = [name for name in shown if any(name in row for row in rows)]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        number = name in NUMBERS
        table.add_column(
            name, justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    print_table(table)


def print_models(entries: Sequence[Entry], here: Mapping[str, bool]) -> None:
    """Print the zoo in 80 columns, with the published numbers of each test set, and a legend."""
    tests = list(dict.fromkeys(test for entry in entries for test in entry.published))
    short = {test: "".join(filter(str.isupper, test)) for test in tests}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("name\nbackbone")
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("unit\nprotocol")
    table.add_column("licence", no_wrap=True)
    for test in tests:
        table.add_column(short[test], justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(
            _stacked(entry.name, entry.backbone),
            str(entry.size_mb),
            "yes" if here[entry.name] else "no",
            _stacked(entry.unit, entry.protocol),
            entry.licence,
            *(str(entry.published.get(test, "-")) for test in tests),
        )
    print_table(table)
    print()
    print("here: loads without a download. More about each model: stablepref models --json")
    for test in tests:
        print(f"{short[test]}: published pairwise agreement with people on {test}, in per cent")


def print_table(table: Table) -> None:
    """Print a table; on a terminal it keeps to the width, elsewhere nothing is wrapped or cut."""
    console = Console(markup=False, emoji=False, highlight=False)
    # Written as a whole, because rich ends the process by itself where the reader has gone.
    sys.stdout.write(_drawn(table, console))


def table_lines(table: Table) -> list[str]:
    """A table as lines of plain text, as wide as it needs to be."""
    console = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False)
    return [line.rstrip() for line in _drawn(table, console).rstrip().splitlines()]


def _drawn(table: Table, console: Console) -> str:
    if not console.is_terminal:
        room = console.options.update(max_width=WIDEST)
        console.width = max(console.measure(table, options=room).maximum, 1)
        if isinstance(table.title, str):  # which rich breaks where the table is narrower
            table.title = Text(table.title, no_wrap=True, overflow="ignore")
            console.width = max(console.width, table.title.cell_len)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _stacked(above: str, below: str) -> Text:
    return Text(above) + Text(f"\n{below}", style="dim")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
