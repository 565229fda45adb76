"""Tables, described once: shown on a terminal, and written as Markdown or CSV."""

from __future__ import annotations

import io
import math
import re
import sys
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final, final

import rich.table
from rich import box
from rich.console import Console
from rich.text import Text

from stablepref.output.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

Cell = str | int | float | bool | None

_QUOTED: Final = frozenset(',"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029')
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
# Backslash, code, links and images, tables, and emphasis, which begins or ends at a word's edge.
_MARKS: Final = re.compile(
    r"[\\`|]|\](?=[(\[:])|(?<!\w)_+(?=\S)|(?<=\S)_+(?!\w)|\*+(?=\S)|(?<=\S)\*+|~~+"
)
_WIDEST: Final = 10_000
"""Characters in a line where there is no terminal."""


@final
@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        columns: Names of the columns.
        rows: Cells, as many in each row as there are columns. None and NaN are shown as "-", and
            are empty in CSV. Lines of a cell or a name after its first are dimmed on a terminal.
        title: Stands above it.
        note: Stands below it on a terminal.
        name: Of its file, without a suffix.
        shown: The columns that people see; all if None. CSV always has all.
        right: The columns that are aligned to the right; those that hold a number if None.
        unbroken: Columns that are not wrapped on a narrow terminal as long as others can be.
        number_format: How numbers with a fraction are shown, such as ".4g"; CSV has them in full.
        compact: With the least room between columns, and no line around them.
        marked: Whether the cells are Markdown of our own, with marks such as backticks.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    name: str = ""
    shown: Sequence[str] | None = None
    right: Collection[str] | None = None
    unbroken: Collection[str] = ()
    number_format: str = ".4g"
    compact: bool = False
    marked: bool = False

    def __post_init__(self) -> None:
        """Check that every row has a cell for each column.

        Raises:
            ValueError: One does not, or a column that is to be shown is not there.
        """
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells for {len(self.columns)} columns")
        unknown = [name for name in self.shown or () if name not in self.columns]
        if unknown:
            raise ValueError(f"there is no column {unknown[0]!r}: {', '.join(self.columns)}")

    def lines(self) -> list[str]:
        """The table as lines of plain text, as wide as it needs to be."""
        console = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False)
        return [line.rstrip() for line in _drawn(self._rich(), console).rstrip().splitlines()]

    def markdown(self) -> str:
        """The table in Markdown, under its title as a heading if it has one."""
        cells = self._shown_cells()
        body = "\n".join(markdown_lines(self._shown_names(), cells, marked=self.marked))
        heading = f"## {markdown_text(self.title)}\n\n" if self.title else ""
        return f"{heading}{body}\n"

    def html(self) -> str:
        """The table in HTML, under its title and above its note; text is escaped.

        Columns are aligned as on a terminal, and a table that is too wide for its place scrolls.
        """
        styles = [
            "text-align:right;white-space:nowrap" if self._is_right(place) else "text-align:left"
            for place in self._places()
        ]

        def line(cells: Iterable[str], tag: str) -> str:
            styled = (
                f'<{tag} style="{style};padding:0 0.5em">{escape(cell)}</{tag}>'
                for cell, style in zip(cells, styles, strict=True)
            )
            return f"<tr>{''.join(styled)}</tr>"

        head = line(self._shown_names(), "th")
        body = "".join(line(cells, "td") for cells in self._shown_cells())
        title = f"<p><b>{escape(self.title)}</b></p>" if self.title else ""
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
        return f'<div>{title}<div style="overflow-x:auto">{table}</div>{note}</div>'

    def csv(self, *, spreadsheet: bool = True) -> str:
        """All columns under their names, numbers in full.

        Args:
            spreadsheet: Whether a person will open it in a spreadsheet; see `csv_line`.
        """
        lines = (csv_line(cells, spreadsheet=spreadsheet) for cells in (self.columns, *self.rows))
        return "".join(lines)

    def _places(self) -> list[int]:
        if self.shown is None:
            return list(range(len(self.columns)))
        return [list(self.columns).index(name) for name in self.shown]

    def _is_right(self, place: int) -> bool:
        if self.right is None:
            return any(isinstance(row[place], int | float) for row in self.rows)
        return self.columns[place] in self.right

    def _shown_names(self) -> list[str]:
        return [printable(self.columns[place], keep="\n") for place in self._places()]

    def _shown_cells(self) -> list[list[str]]:
        places = self._places()
        return [[self._text(row[place]) for place in places] for row in self.rows]

    def _text(self, cell: Cell) -> str:
        if _missing(cell):
            return "-"
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        if isinstance(cell, float):
            return f"{cell:{self.number_format}}"
        return printable(str(cell), keep="\n")

    def _rich(self) -> rich.table.Table:
        drawn = rich.table.Table(
            title=self.title or None,
            title_justify="left",
            caption=f"{self.note}\n" if self.note else None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=not self.compact,
            padding=(0, 1, 0, 0) if self.compact else (0, 1),
        )
        for place in self._places():
            name = self.columns[place]
            shown = printable(name, keep="\n")
            drawn.add_column(
                shown,
                justify="right" if self._is_right(place) else "left",
                no_wrap=name in self.unbroken,
                overflow="fold",
            )
        for cells in self._shown_cells():
            drawn.add_row(*map(_stacked, cells))
        return drawn


def print_table(table: Table) -> None:
    """Print a table; on a terminal it keeps to the width, elsewhere nothing is wrapped or cut."""
    console = Console(markup=False, emoji=False, highlight=False)
    # Written as a whole, because rich ends the process by itself where the reader has gone.
    sys.stdout.write(_drawn(table._rich(), console))


def markdown_lines(
    columns: Iterable[str], rows: Iterable[Iterable[str]], *, marked: bool = False
) -> Iterator[str]:
    """The lines of a Markdown table, each as soon as its row is there.

    Args:
        columns: Names of the columns.
        rows: Cells as text; what Markdown or HTML would take for a mark is escaped.
        marked: Whether the cells are Markdown already; then only bars are escaped.

    Yields:
        Lines without their ends.
    """
    names = list(columns)
    yield _markdown_line(names)
    yield _markdown_line(["---"] * len(names))
    yield from (_markdown_line(row, marked=marked) for row in rows)


def csv_line(cells: Iterable[object], *, spreadsheet: bool = False) -> str:
    """A line of CSV with its end; None and NaN are empty cells.

    A cell with any kind of line break is quoted, since readers differ in which of them end a line.

    Args:
        cells: Values; numbers are written in full.
        spreadsheet: Whether texts that a spreadsheet would run as a formula, those that begin with
            ``=``, ``+``, ``-``, ``@``, a tab or a return, get an apostrophe in front. A program
            that reads the file back finds it there, so that data for programs leave it off.
    """
    return ",".join(_csv_cell(cell, spreadsheet=spreadsheet) for cell in cells) + "\n"


def _csv_cell(cell: object, *, spreadsheet: bool) -> str:
    text = "" if _missing(cell) else str(cell)
    if spreadsheet and isinstance(cell, str) and text.startswith(_FORMULA):
        text = f"'{text}"
    if _QUOTED.isdisjoint(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def markdown_text(text: str) -> str:
    """A text that others wrote as Markdown shows it literally, in one line.

    What begins a mark of Markdown or HTML is escaped; an underscore and an asterisk only where they
    would not stand for themselves, so that names stay readable.
    """
    one_line = printable(" ".join(text.splitlines()))
    without_html = one_line.replace("&", "&amp;").replace("<", "&lt;")
    return _MARKS.sub(lambda found: "".join(f"\\{mark}" for mark in found[0]), without_html)


def _markdown_line(cells: Iterable[str], *, marked: bool = False) -> str:
    if marked:
        escaped = [" ".join(cell.replace("|", "\\|").splitlines()) for cell in cells]
    else:
        escaped = list(map(markdown_text, cells))
    return f"| {' | '.join(escaped)} |"


def _missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _stacked(cell: str) -> Text:
    first, *below = cell.split("\n", 1)
    return Text(first) + Text("".join(f"\n{lines}" for lines in below), style="dim")


def _drawn(table: rich.table.Table, console: Console) -> str:
    if not console.is_terminal:
        room = console.options.update(max_width=_WIDEST)
        console.width = max(console.measure(table, options=room).maximum, 1)
        for place in ("title", "caption"):  # which rich breaks where the table is narrower
            words = getattr(table, place)
            if words is not None:
                whole = Text(words, no_wrap=True, overflow="ignore")
                setattr(table, place, whole)
                console.width = max(console.width, whole.cell_len)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
