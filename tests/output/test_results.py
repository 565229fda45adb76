"""Result files: complete or resumable, never half."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stablepref.output.partial import ResumeError
from stablepref.output.results import (
    ResultsFile,
    check_input,
    check_place,
    results_table,
    write_rows,
)

SETTINGS = {"model": "tiny", "views": 0}
ROWS: list[dict[str, object]] = [
    {"index": i, "image": f"{i}.png", "prompt": "a, 'cat'\n", "score": i / 3, "error": None}
    for i in range(3)
]


def items(count: int = 3) -> Iterator[dict[str, object]]:
    return ({"image": f"{i}.png", "prompt": "a, 'cat'\n"} for i in range(count))


def written(path: Path, rows: list[dict[str, object]]) -> None:
    file = ResultsFile(path)
    file.resume(SETTINGS, items())
    with file.writing() as write:
        for row in rows:
            write(row)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".JSON"])
def test_every_format_holds_the_rows(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("an older file")
    written(path, ROWS)
    text = path.read_text()
    if suffix == ".jsonl":
        assert [json.loads(line) for line in text.splitlines()] == ROWS
    elif suffix == ".csv":
        with path.open(newline="") as file:
            read = list(csv.DictReader(file))
        assert [row["prompt"] for row in read] == ["a, 'cat'\n"] * 3
        assert [float(row["score"]) for row in read] == [0, 1 / 3, 2 / 3]
        assert [row["error"] for row in read] == [""] * 3
    else:
        assert json.loads(text) == ROWS
    assert {p.name for p in tmp_path.iterdir()} == {path.name, f".{path.name}.made"}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_no_rows_are_valid_too(suffix: str) -> None:
    file = io.StringIO()
    write_rows([], file, suffix)
    assert file.getvalue() == ("[]\n" if suffix == ".json" else "")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_rows_are_written_as_they_come(suffix: str) -> None:
    file = io.StringIO()

    def rows() -> Iterator[dict[str, object]]:
        for row in ROWS:
            yield row
            assert str(row["image"]) in file.getvalue()

    write_rows(rows(), file, suffix)


def test_rows_are_on_disk_at_once_and_an_error_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("an older file")
    file = ResultsFile(path)
    assert file.resume(SETTINGS, items()) == (0, 0)

    def interrupted() -> None:
        with file.writing() as write:
            write(ROWS[0])
            assert "0.png" in (tmp_path / "out.jsonl.partial").read_text()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "an older file"
    again = ResultsFile(path)
    left = items()
    assert again.resume(SETTINGS, left) == (1, 0)
    assert next(left)["image"] == "1.png"
    with again.writing() as write:
        write(ROWS[1])
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS[:2]


def _lost(partial: Path) -> None:
    partial.unlink()


def _emptied(partial: Path) -> None:
    partial.write_text("")


def _begun_anew(partial: Path) -> None:
    partial.unlink()
    partial.write_text(json.dumps({"settings": SETTINGS}) + "\n")


def _doubled(partial: Path) -> None:
    with partial.open("a") as file:
        file.write(json.dumps(ROWS[0]) + "\n")


@pytest.mark.parametrize("meddle", [_lost, _emptied, _begun_anew, _doubled])
def test_a_partial_file_that_something_else_changed_never_becomes_the_result(
    meddle: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("an older file")

    def meddled() -> None:
        file = ResultsFile(path)
        file.resume(SETTINGS, items())
        with file.writing() as write:
            for row in ROWS:
                write(row)
            meddle(tmp_path / "out.jsonl.partial")

    with pytest.raises(ResumeError, match=r"is gone|expected 3: something else wrote to it"):
        meddled()
    assert path.read_text() == "an older file"
    assert not (tmp_path / ".out.jsonl.made").exists()


def test_a_finished_file_is_known_by_its_inputs_settings_and_content(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    written(path, [*ROWS[:2], ROWS[2] | {"score": None, "error": "no such file"}])
    file = ResultsFile(path)
    file.check_finished(items())
    assert file.finished(SETTINGS) == (3, 1)
    for other in (items(2), items(4), ({**item, "prompt": "a dog"} for item in items())):
        with pytest.raises(ValueError, match=r"complete, and has other images or prompts \(3 rows"):
            file.check_finished(other)
    with pytest.raises(ValueError, match="views was 0, now it is 2: delete it"):
        file.finished(SETTINGS | {"views": 2})
    with path.open("a") as end:
        end.write("{}\n")
    with pytest.raises(ValueError, match="is not known to be of the same model, images"):
        file.check_finished(items())


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"settings": 3}', '{"rows": -1}', "\0"])
def test_a_damaged_record_is_no_record(record: str, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    written(path, ROWS)
    (tmp_path / ".out.jsonl.made").write_text(record)
    with pytest.raises(ValueError, match="is not known to be of the same model"):
        ResultsFile(path).check_finished(items())


def test_rows_with_errors_are_counted(tmp_path: Path) -> None:
    partial = tmp_path / "out.jsonl.partial"
    bad = ROWS[1] | {"score": None, "error": "no such file"}
    lines = [{"settings": SETTINGS}, ROWS[0], bad]
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ResultsFile(tmp_path / "out.jsonl").resume(SETTINGS, items()) == (2, 1)


@pytest.mark.parametrize("cut", [0, 5, 40])
def test_half_a_line_is_cut_off(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lines = [json.dumps({"settings": SETTINGS}), *map(json.dumps, ROWS)]
    (tmp_path / "out.jsonl.partial").write_text("\n".join(lines[:3]) + "\n" + lines[3][:cut])
    file = ResultsFile(path)
    assert file.resume(SETTINGS, items()) == (2, 0)
    with file.writing() as write:
        write(ROWS[2])
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS


@pytest.mark.parametrize("begun", ["", '{"settings": {"mo'])
def test_half_a_header_starts_anew(begun: str, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.partial").write_text(begun)
    written(tmp_path / "out.jsonl", ROWS[:1])
    assert json.loads((tmp_path / "out.jsonl").read_text()) == ROWS[0]


def test_other_settings_other_inputs_and_foreign_files_are_refused(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "out.jsonl")
    partial = tmp_path / "out.jsonl.partial"
    lines = [json.dumps({"settings": SETTINGS}), json.dumps(ROWS[0])]
    partial.write_text("\n".join(lines) + "\n")
    for settings, given, says in (
        ({"model": "other"}, items(), "was made with"),
        (
            SETTINGS,
            iter([{"image": "9.png", "prompt": "a, 'cat'\n"}]),
            r"0\.png.*now the image '9\.png'",
        ),
        (
            SETTINGS,
            iter([{"image": "0.png", "prompt": "a dog"}]),
            "now the image '0.png' with the prompt 'a dog'",
        ),
        (SETTINGS, items(0), "more results than the 0 there are now"),
    ):
        with pytest.raises(ResumeError, match=says):
            file.resume(settings, given)
    for text, says in (
        ("hello\n", "damaged in line 1"),
        ("[]\n", "is not a partial file"),
        ("{}\n", "was made with None"),
        (lines[0] + "\n\0\0\n", "damaged in line 2"),
    ):
        partial.write_text(text)
        with pytest.raises(ResumeError, match=says):
            file.resume(SETTINGS, items())
        assert partial.read_text() == text


def test_wrong_suffix_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.jsonl, \.json, \.csv"):
        ResultsFile(tmp_path / "out.txt")
    with pytest.raises(ValueError, match="there is no folder"):
        ResultsFile(tmp_path / "none" / "out.csv")


@pytest.mark.parametrize("row", [{"a": 1}, {"a": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}])
def test_a_row_of_csv_with_other_columns_is_refused(row: dict[str, object]) -> None:
    file = io.StringIO()
    with pytest.raises(ValueError, match=r"a row has the columns .*expected \['a', 'b'\]"):
        write_rows([{"a": 1, "b": 2}, row], file, ".csv")
    assert file.getvalue() == "a,b\n1,2\n"


def test_the_table_shows_the_prompt_and_the_error_only_where_they_say_something() -> None:
    row = {"score": 0.5, "image": "a.png", "prompt": "x", "error": None}
    assert results_table([row], title="").columns == ["score", "image"]
    other = row | {"prompt": "y", "score": None, "error": "no such file"}
    table = results_table([row | {"spread": 0.25}, other | {"spread": None}], title="tiny")
    assert table.columns == ["score", "spread", "image", "prompt", "error"]
    title, _, *lines = table.lines()
    assert title == "tiny"
    assert [line.split() for line in lines[-2:]] == [
        ["0.5000", "0.2500", "a.png", "x", "-"],
        ["-", "-", "a.png", "y", "no", "such", "file"],
    ]


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    check_place("--out", tmp_path / "new.csv")
    with pytest.raises(ValueError, match=r"--out .*this is a folder; expected the name of a file"):
        check_place("--out", tmp_path)
    with pytest.raises(ValueError, match=r"--out .*there is no folder .*none"):
        check_place("--out", tmp_path / "none" / "new.csv")


def test_an_input_is_known_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.csv"
    own.touch()
    (tmp_path / "other.csv").touch()
    (tmp_path / "link.csv").symlink_to(own)
    monkeypatch.chdir(tmp_path)
    for name in ("own.csv", str(own), f"{tmp_path}/./own.csv", "link.csv"):
        with pytest.raises(ValueError, match=r"--out own\.csv would write over .*, which is read"):
            check_input("--out", Path("own.csv"), ["other.csv", name])
    check_input("--out", own, ["other.csv", "none.csv", "https://host/own.csv", "a\0b", b"own.csv"])
    check_input("--out", tmp_path / "new.csv", ["new.csv", "own.csv"])
