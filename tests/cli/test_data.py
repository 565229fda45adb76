"""`stablepref data check` as a user meets it."""

import json
import re
from pathlib import Path

import pytest
from helpers.commandline import run
from helpers.html_outline import Outline
from helpers.splits import make_split


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return make_split(tmp_path / "train", [[1, 2, 3], [4, 5]], [(1, 2, 2), (2, 1)])


def test_clean_data(train: Path) -> None:
    done = run("data", "check", train)
    assert done.returncode == 0, done.stderr
    assert "data: 2 groups of 2 to 3 images" in done.stdout
    assert "example: train 0" in done.stdout
    assert done.stdout.endswith("everything can be used\n")
    assert "example" not in run("data", "check", train, "--examples", "0").stdout


def test_two_files_are_two_splits(train: Path, tmp_path: Path) -> None:
    test = make_split(tmp_path / "test", [[5, 6]], [(1, 2)])  # shade 5 is in both
    done = run("data", "check", train, test, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert [split["name"] for split in report["splits"]] == [str(train), str(test)]
    (shared,) = report["shared_images"]
    assert set(shared) == {str(train), str(test)}
    renamed = test.rename(test.with_name("test.jsonl"))
    names = [
        s["name"]
        for s in json.loads(run("data", "check", train, renamed, "--json").stdout)["splits"]
    ]
    assert names == ["data", "test"]


def test_splits_of_one_folder(train: Path, tmp_path: Path) -> None:
    folder = train.parent
    train.rename(folder / "train.jsonl")
    other = make_split(tmp_path / "other", [[8, 9]], [(1, 2)])
    rows = other.read_text().replace('"images/', f'"{other.parent}/images/')
    (folder / "test.jsonl").write_text(rows)
    done = run("data", "check", folder, "--split", "train", "--split", "test", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    splits = json.loads(done.stdout)["splits"]
    assert [(split["name"], split["groups"]) for split in splits] == [("train", 2), ("test", 1)]


def test_what_is_broken_is_listed_and_the_exit_code_says_so(train: Path) -> None:
    images = sorted((train.parent / "images").iterdir())
    images[0].write_bytes(b"no image")
    done = run("data", "check", train, "--html", train.parent / "page.html")
    assert done.returncode == 1
    assert "broken images: 1" in done.stdout
    assert "there are problems, see above" in done.stdout
    page = (train.parent / "page.html").read_text()
    assert page.count("<img") == 4
    assert "Cannot be used: 1" in page
    for image in images:
        image.unlink()
    assert run("data", "check", train).returncode == 2


def test_the_page_shows_the_examples_in_the_order_of_their_ranks(train: Path) -> None:
    page = train.parent / "page.html"
    done = run("data", "check", train, "--html", page, "--examples", "2")
    assert done.returncode == 0
    assert f"wrote {page}" in done.stderr
    text = page.read_text()
    assert re.findall(r'alt="Rank (\S+),', text) == ["1", "2", "2", "1", "2"]
    assert "<h2>data, g0: train 0</h2>" in text
    assert text.count('<li class="best">') == 2
    assert ("html", {"lang": "en"}) in Outline(text).elements
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.jsonl"], "no such file or folder: none.jsonl"),
        (["{t}", "{t}"], "a source is given twice"),
        (
            ["{t}", "none.jsonl", "--split", "train"],
            "--split names splits of one source",
        ),
        (["{t}", "--format", "hpd"], "format is 'hpd'"),
        (["{t}", "--html", "no/page.html"], "there is no folder no"),
        (["{t}", "--html", "."], "this is a folder"),
        (["{t}", "--html", "{t}"], "would write over"),
        (["{t}", "--examples", "-1"], "--examples"),
        ([], "paths"),
    ],
)
def test_wrong_use_is_told_and_exit_code_2(train: Path, arguments: list[str], says: str) -> None:
    done = run("data", "check", *(a.format(t=train) for a in arguments), cwd=train.parent)
    assert done.returncode == 2
    assert says.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_gallery(shared_data: Path) -> None:
    done = run("data", "check", shared_data / "hpdv2_gallery" / "groups.json", "--json")
    assert done.returncode == 0
    (split,) = json.loads(done.stdout)["splits"]
    assert (split["groups"], split["images"], split["annotated"]) == (40, 371, 40)
