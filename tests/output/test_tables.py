"""Tables: one description, shown on a terminal and written as Markdown or CSV."""

import csv
import io
import math
import re
from contextlib import redirect_stdout

import pytest

from stablepref.output.tables import Table, csv_line, markdown_lines, print_table

TABLE = Table(
    title="Means",
    columns=("model", "mean", "good", "of"),
    rows=(("a|b\nc", 1 / 3, True, 12), ("d", math.nan, False, None)),
    shown=("model", "mean", "good"),
)


def printed(table: Table) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        print_table(table)
    return out.getvalue()


def test_a_title_that_is_longer_than_its_table() -> None:
    title = "a-model-with-a-long-name: logit_scale x cosine"
    first, *rest = printed(Table(title=title, columns=("score",), rows=((2.0,),))).splitlines()
    assert first == title
    assert max(map(len, rest)) < len(title)


def test_where_there_is_no_terminal_nothing_is_wrapped_or_cut() -> None:
    long = "word " * 100
    assert long.strip() in printed(Table(columns=("text", "n"), rows=((long, 1),)))


def test_a_terminal_keeps_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = (("a long text " * 10, 123456.5),)
    text = printed(Table(columns=("text", "n"), rows=rows, unbroken=("n",), number_format=".1f"))
    assert "123456.5" in text
    plain = re.sub("\x1b\\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 40
    assert plain.split().count("long") == 10


def test_numbers_are_aligned_to_the_right_and_text_to_the_left() -> None:
    table = Table(columns=("text", "number"), rows=(("a", 1), ("abcdef", 1000)))
    assert table.lines()[-2:] == [" a             1", " abcdef     1000"]
    right = Table(columns=("text", "number"), rows=(("a", 1), ("abcdef", 1000)), right=("text",))
    assert right.lines()[-2:] == ["      a   1", " abcdef   1000"]


def test_what_is_missing_is_a_dash_for_people_and_empty_in_csv() -> None:
    assert TABLE.markdown() == (
        "## Means\n\n"
        "| model | mean | good |\n"
        "| --- | --- | --- |\n"
        "| a\\|b c | 0.3333 | yes |\n"
        "| d | - | no |\n"
    )
    rows = list(csv.reader(io.StringIO(TABLE.csv())))
    assert rows == [
        ["model", "mean", "good", "of"],
        ["a|b\nc", repr(1 / 3), "True", "12"],
        ["d", "", "False", ""],
    ]


def test_the_note_stands_below() -> None:
    lines = printed(Table(columns=("n",), rows=((1,),), note="all of them are ones")).splitlines()
    assert [line for line in lines if line.strip()][-1] == "all of them are ones"


def test_rows_of_markdown_are_given_as_they_come() -> None:
    asked = []

    def rows() -> object:
        for name in ("a", "b"):
            asked.append(name)
            yield [name]

    lines = markdown_lines(["n"], rows())  # type: ignore[arg-type]
    assert [next(lines), next(lines), next(lines)] == ["| n |", "| --- |", "| a |"]
    assert asked == ["a"]
    assert list(lines) == ["| b |"]


def test_a_line_of_csv_is_quoted_where_it_must_be() -> None:
    cells = ["a,b", 'say "x"', "two\nlines", None, math.nan, 0.1]
    line = csv_line(cells)
    assert line.endswith("\n")
    assert next(csv.reader(io.StringIO(line))) == ["a,b", 'say "x"', "two\nlines", "", "", "0.1"]


def test_rows_of_another_length_and_unknown_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="a row has 1 cells for 2 columns"):
        Table(columns=("a", "b"), rows=(("x",),))
    with pytest.raises(ValueError, match="there is no column 'c': a, b"):
        Table(columns=("a", "b"), rows=(), shown=("c",))


def test_control_characters_of_others_reach_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table(columns=("na\x1bme",), rows=[["a\x1b]0;title\x07.png"], ["\u202egnp.exe"]])
    print_table(table)
    shown = capsys.readouterr().out + table.markdown() + "\n".join(table.lines())
    assert r"\x1b]0;title\x07.png" in shown
    assert r"\u202egnp.exe" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("[here](http://example.org)", r"[here\](http://example.org)"),
        ("**bold** and *thin*", r"\*\*bold\*\* and \*thin\*"),
        ("_thin_ my_model_v2", r"\_thin\_ my_model_v2"),
        ("`code` a|b c\\d", r"\`code\` a\|b c\\d"),
        ("fish & chips", "fish &amp; chips"),
        ("0.3 [0.1, 0.5] 2 * 3", "0.3 [0.1, 0.5] 2 * 3"),
    ],
)
def test_markdown_of_others_is_shown_literally(cell: str, shown: str) -> None:
    (*_, line) = markdown_lines(["x"], [[cell]])
    assert line == f"| {shown} |"


@pytest.mark.parametrize("end", ["\r", "\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_every_line_break_is_quoted_in_csv(end: str) -> None:
    assert csv_line([f"a{end}b", 1]) == f'"a{end}b",1\n'


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_runs_no_formula_of_others(start: str) -> None:
    text = f'{start}HYPERLINK("http://example.org")'
    table = Table(columns=("prompt", "score"), rows=[[text, -1.5]])
    (_, row) = csv.reader(io.StringIO(table.csv()))
    assert row == [f"'{text}", "-1.5"]  # a number is no formula
    (_, row) = csv.reader(io.StringIO(table.csv(spreadsheet=False)))
    assert row[0] == text
    assert next(csv.reader(io.StringIO(csv_line([text])))) == [text]


def test_cells_of_our_own_marks_keep_them() -> None:
    table = Table(columns=["a|b"], rows=[["`code` | **bold**"]], marked=True)
    assert table.markdown().splitlines() == ["| a\\|b |", "| --- |", "| `code` \\| **bold** |"]
