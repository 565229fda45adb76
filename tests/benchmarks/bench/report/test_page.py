"""The report of a benchmark: what is in its page and beside it, and what it refuses."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.bench_report_case import write_run
from helpers.commandline import run
from helpers.html_outline import Outline
from helpers.isolated import heavy_imports
from PIL import Image

from stablepref.benchmarks.bench.report.page import write_report

DATA = re.compile(r'<script type="application/json" id="gallery-data">(.*?)</script>', re.DOTALL)
FEW = {"resamples": 20, "fits": 5}


def gallery(page: Path) -> dict[str, Any]:
    (text,) = DATA.findall(page.read_text())
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which the second model has no image of the sixth prompt."""

    def fault(model: int, place: int) -> str | None:
        return "</script><i>blank" if (model, place) == (1, 5) else None

    return write_run(tmp_path_factory.mktemp("report") / "run", prompts=12, fault=fault)


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return write_report([folder], **FEW)


def test_it_is_beside_its_tables(page: Path, folder: Path) -> None:
    assert page == folder / "report" / "index.html"
    beside = {path.name for path in page.parent.iterdir()}
    tables = ("leaderboard", "categories", "pairs", "ranking", "scores", "failures")
    expected = {"index.html", "leaderboard.md", "leaderboard.json", *(f"{n}.csv" for n in tables)}
    assert beside == expected
    links = {attrs["href"] for tag, attrs in Outline(plain(page)).elements if tag == "a"}
    assert {name for name in links if name and "#" not in name} == expected - {"index.html"}


def plain(page: Path) -> str:
    """The page as checked HTML, without SVG, whose elements may end themselves."""
    text = re.sub(r"<svg.*?</svg>", "", page.read_text(), flags=re.DOTALL)
    return re.sub(r"<input[^>]*>", "", text)


def test_its_numbers_are_those_of_the_tables(page: Path) -> None:
    text = plain(page)
    summary = json.loads((page.parent / "leaderboard.json").read_text())
    for row in summary["standings"]:
        own = [one for one in summary["standings"] if one["scorer"] == row["scorer"]]
        largest = max(abs(one[key] or 0) for one in own for key in ("mean", "low", "high"))
        digits = 3 - math.floor(math.log10(largest))  # all of a column with as many
        assert f"{row['mean']:.{digits}f} <span" in text
    for pair in summary["pairs"]:
        a, b = (pair[side].replace("<", "&lt;").replace(">", "&gt;") for side in "ab")
        rate, other = pair["win_rate"], 1 - pair["win_rate"]
        label = "" if pair["distinct"] else ", not distinguishable"
        low, high = pair["low"], pair["high"]
        prompts = f"{pair['prompts']} prompts{label}"
        assert f"{a} wins over {b} at {rate:.3f}, {low:.3f} to {high:.3f}, {prompts}" in text
        assert f"{b} wins over {a} at {other:.3f}, {1 - high:.3f} to {1 - low:.3f}, " in text
    for warning in summary["warnings"]:
        assert warning.replace("<", "&lt;").replace(">", "&gt;") in text


def test_nothing_is_fetched_and_nothing_unescaped(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"https?:|<link|@import|url\((?!#)|<i>|<b>", text)
    assert "default-src 'none'; img-src 'self' data:" in text
    assert re.search(r"script-src( 'sha256-[\w+/=]{44}'){2}\"", text)
    assert "&lt;b&gt;other" in text
    ids = [str(attrs["id"]) for _, attrs in Outline(plain(page)).elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    drawn = re.findall(r' id="([^"]+)"', "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL)))
    assert drawn
    assert len(drawn) == len(set(drawn))


def test_the_gallery_knows_every_image_and_score(page: Path, folder: Path) -> None:
    data = gallery(page)
    assert data["models"] == ["plain", "tuned", "<b>other"]
    assert data["reasons"] == {"1 5 0": f"there is no {folder}/images/tuned/00005.png; user/1 is "
                               "not there either; first: </script><i>blank; second: "
                               "</script><i>blank"}  # fmt: skip
    assert data["pictures"][1][5] == [None]
    assert data["scores"][1][0][5] == [None]
    assert data["pictures"][2][3] == ["../images/%3Cb%3Eother/00003.png"]
    assert data["labels"]["category"]["kind 1"] == [1, 4, 7, 10]
    rows = (folder / "scores" / "000.jsonl").read_text().splitlines()[1:]
    for row in map(json.loads, rows):
        model = data["models"].index(row["model"])
        own = [data["scores"][model][s][row["prompt"]][0] for s in range(2)]
        assert own == [row["scores"].get(name) for name in ("first", "second")]


def test_several_runs_are_one(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", models=("a",), prompts=6, scorers=("oracle",))
    other = write_run(tmp_path / "other", models=("b",), prompts=6, scorers=("oracle",), seed=1)
    (other / "leaderboard.json").unlink()
    with pytest.raises(ValueError, match="2 runs make one report: say with --out"):
        write_report([one, other], **FEW)
    with pytest.raises(ValueError, match="other is the folder of a run"):
        write_report([one, other], out=other, **FEW)
    page = write_report([one, other], out=tmp_path / "both", **FEW)
    data = gallery(page)
    assert data["models"] == ["a", "b"]
    assert data["pictures"][1][0] == ["../other/images/b/00000.png"]
    assert data["disagreement"] == [None] * 6
    text = plain(page)
    assert "other is not finished" in text
    assert "one is not finished" not in text
    assert "6 of 6 prompts are outside its grammar" in text
    assert "rank nothing" in text
    assert "How the scorers agree" not in text


def test_copies_make_it_a_folder_of_its_own(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", prompts=3, models=("a",), images=2)
    drawn = tmp_path / "drawn"
    shutil.copytree(made / "images" / "a", drawn)
    shutil.rmtree(made / "images")
    Image.new("RGB", (8, 8), "red").save(drawn / "00001.tif")
    (drawn / "00001.png").unlink()
    (drawn / "00002.png").unlink()
    config = json.loads((made / "run.json").read_text())
    config["models"]["a"]["source"] = str(drawn)
    (made / "run.json").write_text(json.dumps(config))
    data = gallery(write_report([made], **FEW))
    assert data["pictures"][0][0] == ["../../drawn/00000.png", "../../drawn/00000-1.png"]
    page = write_report([made], copy=True, **FEW)
    data = gallery(page)
    assert data["pictures"][0][:2] == [
        ["images/a/00000.png", "images/a/00000-1.png"],
        ["images/a/00001.png", "images/a/00001-1.png"],
    ]
    copies = page.parent / "images" / "a"
    assert (copies / "00000.png").read_bytes() == (drawn / "00000.png").read_bytes()
    with Image.open(copies / "00001.png") as picture:
        assert picture.getpixel((4, 4)) == (255, 0, 0)
    # A killed copy goes on: what is there whole stays, what is not is copied again.
    before = (copies / "00000.png").stat().st_ino
    (copies / "00000-1.png").write_bytes(b"half")
    write_report([made], copy=True, **FEW)
    assert (copies / "00000.png").stat().st_ino == before
    assert (copies / "00000-1.png").read_bytes() == (drawn / "00000-1.png").read_bytes()
    shutil.rmtree(drawn)
    reasons = gallery(write_report([made], **FEW))["reasons"]
    assert all(f"{drawn} is not there either" in reason for reason in reasons.values())
    assert len(reasons) == 6


def test_one_model_is_compared_with_none(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", prompts=1, models=("only",), draw=False)
    text = plain(write_report([made], **FEW))
    assert "1 model on 1 prompt<" in text
    assert "Win rates" not in text


def test_on_the_command_line(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", prompts=4, models=("plain", "tuned"), scorers=("one",))
    done = run("bench", "report", made, "--out", tmp_path / "page", "--copy")
    assert done.returncode == 0
    assert done.stdout.strip() == str(tmp_path / "page" / "index.html")
    assert (tmp_path / "page" / "images" / "plain" / "00000.png").is_file()
    wrong = run("bench", "report", tmp_path)
    assert wrong.returncode == 2
    assert "is not a run of a benchmark" in wrong.stderr


def test_a_failing_report_leaves_the_old_one(page: Path, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    with (copy / "scores" / "000.jsonl").open("a") as rows:
        rows.write('{"half\n')
    with pytest.raises(Exception, match="is damaged in line"):
        write_report([copy], **FEW)
    assert (copy / "report" / "index.html").read_text() == page.read_text()


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom stablepref.cli.main import main\n"
        'sys.argv = ["stablepref", "bench", "report", "--help"]\n'
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert heavy_imports(code, tmp_path) == set()
