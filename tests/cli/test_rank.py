"""`stablepref rank` as a user meets it."""

import csv
import io
import json
from pathlib import Path

import pytest
from helpers.commandline import run
from helpers.tiny import tiny_clip

from stablepref.scoring.items import Outcome
from stablepref.scoring.stream import score as score_images


def test_rank_lets_go_of_images_inside_a_manifest(
    model: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"image": path.read_bytes(), "prompt": "a cat"} for path in pictures]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    kept: list[object] = []
    row = Outcome.row

    def watched(self: Outcome, **shown: bool) -> dict[str, object]:
        kept.append(self.item.image)
        return row(self, **shown)

    monkeypatch.setattr(Outcome, "row", watched)
    done = run("rank", path, "-s", model, "--json")
    assert [r["rank"] for r in json.loads(done.stdout)] == [1, 2, 3, 4, 5, 6]
    assert kept == [None] * 6
    page = tmp_path / "out.html"
    assert run("rank", path, "-s", model, "--json", "--html", page).returncode == 0
    assert page.read_text().count("<img") == 6


def test_a_page_takes_the_place_of_an_older_one(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    page = tmp_path / "out.html"
    page.write_text("old")
    assert run("rank", tmp_path, "-p", "x", "-s", model, "--html", page).returncode == 0
    assert page.read_text().count("<img") == 6
    assert not list(tmp_path.glob("*.tmp"))


def test_rank_orders_and_reports_what_failed(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    page = tmp_path / "out.html"
    done = run("rank", bad, *pictures, "-p", "a cat", "-s", model, "--json", "--html", page)
    assert done.returncode == 1
    assert f"{bad}: it is not an image" in done.stderr
    assert "1 of 7 could not be scored" in done.stderr
    rows = json.loads(done.stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6, None]
    scores = [row["score"] for row in rows[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert rows[-1]["score"] is None
    assert rows[-1]["image"] == str(bad)
    assert rows[-1]["error"].startswith("it is not an image")
    assert page.read_text().count("<img") == 6
    top = run(
        *("rank", *pictures, bad, "-p", "a cat", "-s", model, "--top", 2, "--csv", "--html", page)
    )
    assert top.returncode == 1
    best = list(csv.DictReader(io.StringIO(top.stdout)))
    assert [row["image"] for row in best] == [row["image"] for row in rows[:2]]
    assert page.read_text().count("<img") == 2
    assert "bad.png" in page.read_text()


def test_rank_takes_each_prompt_of_a_manifest(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    pairs = [(path, prompt) for path in pictures for prompt in ("a cat", "a dog")]
    rows = [{"image": path.name, "prompt": prompt} for path, prompt in pairs]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("rank", path, "-s", model, "--json", "--top", 3, "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(r["prompt"], r["rank"]) for r in found] == [
        (prompt, place) for prompt in ("a cat", "a dog") for place in (1, 2, 3)
    ]
    for prompt, group in (("a cat", found[:3]), ("a dog", found[3:])):
        scores = score_images(tiny_clip(), pictures, prompt)
        best = scores.argsort(descending=True)[:3].tolist()
        assert [row["image"] for row in group] == [str(pictures[i]) for i in best]
