"""`stablepref score` as a user meets it: what it prints and writes."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
from helpers.commandline import run, write_manifest
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.scoring.stream import score as score_images


def test_score_as_json_and_csv(model: Path, pictures: list[Path]) -> None:
    expected = score_images(tiny_clip(), pictures, "a cat").tolist()
    as_json = run("score", *pictures, "-p", "a cat", "-s", model, "--dtype", "float32", "--json")
    assert as_json.returncode == 0, as_json.stderr
    rows = json.loads(as_json.stdout)
    assert [row["index"] for row in rows] == list(range(6))
    assert [row["image"] for row in rows] == [str(path) for path in pictures]
    assert [row["prompt"] for row in rows] == ["a cat"] * 6
    assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-4)
    assert "spread" not in rows[0]
    as_csv = run("score", pictures[0].parent, "-p", "a cat", "-s", model, "--csv", "--views", 2)
    table = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert [row["image"] for row in table] == [str(path) for path in pictures]
    assert all(float(row["spread"]) > 0 for row in table)


def test_score_as_a_table_that_is_not_cut(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    path = folder / "[bold]:cat: 1.png"  # neither rich's markup nor its emoji codes
    Image.new("RGB", (64, 64), "red").save(path)
    done = run("score", path, "-p", "a cat", "-s", model, COLUMNS="80")
    assert str(path) in done.stdout
    assert "tiny: logit_scale x cosine" in done.stdout
    assert "error" not in done.stdout


def test_a_long_path_is_whole_in_the_results(model: Path, tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["deep" * 20] * 4)
    folder.mkdir(parents=True)
    path = folder / "1.png"
    Image.new("RGB", (64, 64), "red").save(path)
    assert len(str(path)) > 200
    rows = json.loads(run("score", folder, "-p", "a cat", "-s", model, "--json").stdout)
    assert [row["image"] for row in rows] == [str(path)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such file names")
def test_a_name_that_is_no_text_survives(model: Path, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Image.new("RGB", (64, 64), "red").save(os.fsdecode(path), "PNG")
    out, page = tmp_path / "out.csv", tmp_path / "page.html"
    done = run("rank", tmp_path, "-p", "x", "-s", model, "--html", page)
    assert path in os.fsencode(done.stdout)
    assert "caf?.png" in page.read_text()
    assert run("score", tmp_path, "-p", "x", "-s", model, "--out", out).returncode == 0
    assert path in out.read_bytes()


@pytest.mark.parametrize("style", ["table", "--csv", "--json", "out.csv", "out.jsonl", "out.json"])
def test_half_a_character_in_a_prompt_spoils_only_its_row(
    model: Path, pictures: list[Path], tmp_path: Path, style: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        r'{"image": "0.png", "prompt": "a\ud800"}'
        "\n" + json.dumps({"image": "1.png", "prompt": "a cat"})
    )
    options = {"table": [], "--csv": ["--csv"], "--json": ["--json"]}
    out = tmp_path / style
    done = run("score", rows, "-s", model, *options.get(style, ["--out", out]))
    assert done.returncode == 1, done.stderr
    assert "no valid text" in done.stderr
    text = done.stdout if style in options else out.read_text()
    assert r"a\ud800" in text
    assert str(pictures[1]) in text
    assert "a cat" in text


def test_a_manifest_with_bad_rows(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    path = write_manifest(tmp_path, pictures, 1)
    done = run("score", path, "-s", model, "--json", "--dtype", "float32")
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert [i for i, row in enumerate(rows) if row["error"]] == [3, 5]
    assert (rows[3]["image"], rows[3]["prompt"]) == (str(tmp_path / "none.png"), "prompt 3")
    assert rows[3]["error"] == "there is no such file"
    assert (rows[5]["image"], rows[5]["prompt"]) == (f"{path}:6", None)
    assert rows[5]["error"].startswith("there is no column for the prompt, only image; expected")
    assert f"{path}:6: there is no column for the prompt" in done.stderr
    good = [row for row in rows if not row["error"]]
    prompts = [f"prompt {i}" for i in (0, 1, 2, 4)]
    assert [row["prompt"] for row in good] == prompts
    expected = score_images(tiny_clip(), [pictures[i] for i in (0, 1, 2, 4)], prompts).tolist()
    assert [row["score"] for row in good] == pytest.approx(expected, abs=1e-4)


def test_a_row_that_names_a_folder_does_not_shift_the_others(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("image,prompt\n.,a cat\n?.png,a dog\n1.png,an owl\n0*.png,a fox\n")
    done = run("score", path, "-s", model, "--json", "--dtype", "float32")
    rows = json.loads(done.stdout)
    assert [row["prompt"] for row in rows] == ["a cat", "a dog", "an owl", "a fox"]
    assert "this is a folder" in rows[0]["error"]
    for pattern in (rows[1], rows[3]):
        assert "a row is not a pattern" in pattern["error"]
    expected = score_images(tiny_clip(), [pictures[1]], ["an owl"]).tolist()
    assert [rows[2]["score"]] == pytest.approx(expected, abs=1e-4)


def test_a_manifest_as_spreadsheets_write_it(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    """Semicolons, usual names of columns, and a seed that stays with its row."""
    folder = pictures[0].parent
    path = folder / "spreadsheet.csv"
    path.write_text("\ufefffilename;Caption;seed\n0.png;a cat;7\n1.png;a dog;8\nnone.png;a dog;9\n")
    done = run("score", path, "-s", model, "--json")
    assert done.returncode == 1
    assert [(row["prompt"], row["seed"]) for row in json.loads(done.stdout)] == [
        ("a cat", "7"), ("a dog", "8"), ("a dog", "9")
    ]  # fmt: skip
    table = list(csv.DictReader(io.StringIO(run("rank", path, "-s", model, "--csv").stdout)))
    assert {row["seed"] + row["prompt"] for row in table} == {"7a cat", "8a dog", "9a dog"}
    assert "seed" not in run("score", path, "-s", model).stdout
    out = tmp_path / "scores.csv"
    assert run("score", path, "-s", model, "--out", out).returncode == 1
    assert [row["seed"] for row in csv.DictReader(out.open())] == ["7", "8", "9"]


def test_columns_of_a_manifest_may_be_named(model: Path, pictures: list[Path]) -> None:
    path = pictures[0].parent / "columns.jsonl"
    path.write_text(
        json.dumps({"image": "none.png", "left": "0.png", "prompt": "x", "en": "a cat"})
    )
    chosen = ("--image-column", "left", "--prompt-column", "en")
    done = run("score", path, "-s", model, "--json", *chosen)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["image"], row["prompt"]) == (str(pictures[0]), "a cat")
    wrong = run("rank", path, "-s", model, "--prompt-column", "english")
    assert wrong.returncode == 2
    assert "no column for the prompt, only image, left, prompt, en; expected 'en" in wrong.stderr
    alone = run("score", pictures[0], "-p", "a cat", "-s", model, *chosen)
    assert alone.returncode == 2
    assert "--image-column and --prompt-column are for a manifest" in alone.stderr


@pytest.mark.parametrize("command", ["score", "rank"])
def test_csv_for_a_spreadsheet(command: str, model: Path, pictures: list[Path]) -> None:
    formula = "=1+1"
    words = (command, pictures[0], "-p", formula, "-s", model)
    plain, safe = run(*words, "--csv"), run(*words, "--csv", "--spreadsheet")
    (row,) = csv.DictReader(io.StringIO(plain.stdout))
    assert row["prompt"] == formula
    (row,) = csv.DictReader(io.StringIO(safe.stdout))
    assert row["prompt"] == f"'{formula}"
    assert float(row["score"]) < 1e9  # numbers stay numbers
    done = run(*words, "--spreadsheet")
    assert done.returncode == 2
    assert "give --csv with it" in done.stderr
