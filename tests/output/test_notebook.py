"""Tables and pictures as HTML for notebooks."""

import re
from html.parser import HTMLParser

from PIL import Image

from stablepref.output.notebook import pictures_html
from stablepref.output.tables import Table


class Cells(HTMLParser):
    """The texts of a table's cells, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1].append(data)


def test_a_table_holds_its_cells_as_text() -> None:
    table = Table(
        columns=["<b>", "score", "hidden"],
        rows=[["a & b", 1.23456, "x"], ["<i>", None, "y"]],
        shown=["<b>", "score"],
        title="<script>",
        number_format=".2f",
    )
    html = table.html()
    parser = Cells()
    parser.feed(html)
    assert parser.rows == [["<b>", "score"], ["a & b", "1.23"], ["<i>", "-"]]
    assert "<script>" not in html
    assert "x" not in re.sub(r"<[^>]*>", "", html)


def test_columns_are_aligned_as_on_a_terminal_and_a_wide_table_scrolls() -> None:
    table = Table(columns=["name", "score", "range"], rows=[["a", 1.5, "1 to 2"]])
    sides = re.findall(r"text-align:(\w+)", table.html())
    assert sides == ["left", "right", "left"] * 2
    named = Table(columns=["name", "range"], rows=[["a", "1 to 2"]], right=["range"]).html()
    assert re.findall(r"text-align:(\w+)", named) == ["left", "right"] * 2
    assert "overflow-x:auto" in named


def test_pictures_keep_their_shape_and_their_captions() -> None:
    html = pictures_html("<title>", [(Image.new("L", (400, 100)), "1 < 2")])
    assert "&lt;title&gt;" in html
    assert "1 &lt; 2" in html
    assert html.count("<img ") == 1
