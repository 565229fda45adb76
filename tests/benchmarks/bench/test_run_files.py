"""Runs from elsewhere: what their files say is checked as what is typed is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commandline import run
from PIL import Image

from stablepref.benchmarks.bench.contestants import Contestant
from stablepref.benchmarks.bench.prompt_sets import PromptSet
from stablepref.benchmarks.bench.run import bench
from stablepref.benchmarks.bench.score_table import read_table
from stablepref.data.prompts import ListedPrompt

CONFIG: dict[str, Any] = {
    "prompts": {"name": "two", "count": 2, "digest": "x"},
    "images": 1,
    "seed": 0,
    "arguments": {},
    "pipeline_dtype": None,
    "models": {"a": {"source": "nowhere", "loras": [], "arguments": {}}},
    "scorers": {"bright": {"unit": "brightness"}},
}
PROMPTS = [{"key": f"{i:05d}", "prompt": f"prompt {i}", "labels": {}} for i in range(2)]
ROWS = [
    {"model": "a", "prompt": i, "image": 0, "scores": {"bright": i / 2}, "faults": {}}
    for i in range(2)
]

LINE = "000.jsonl is damaged in line 3"


def written(folder: Path, config: object, prompts: list[Any], rows: list[Any]) -> Path:
    """A run's folder with these files, and a picture of each prompt."""
    (folder / "scores").mkdir(parents=True)
    (folder / "images" / "a").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(config))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    lines = [{"settings": {}}, *rows]
    (folder / "scores" / "000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    for i in range(2):
        picture = Image.fromarray(np.full((8, 8, 3), i, dtype=np.uint8))
        picture.save(folder / "images" / "a" / f"{i:05d}.png")
    return folder


def test_a_whole_run_is_read(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "run", CONFIG, PROMPTS, ROWS))
    assert table.scores.ravel().tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    ("place", "value", "file", "entry"),
    [
        (("prompts", 1, "key"), "../../../../stolen", "prompts.jsonl, line 2", "key"),
        (("prompts", 1, "key"), "/tmp/stolen", "prompts.jsonl, line 2", "key"),
        (("prompts", 1, "key"), "00000", "prompts.jsonl", "two prompts of one key"),
        (("prompts", 1, "prompt"), None, "prompts.jsonl, line 2", "prompt"),
        (("prompts", 1, "labels"), ["x"], "prompts.jsonl, line 2", "labels"),
        (("config", "models"), {"../../stolen": {"source": "nowhere"}}, "run.json", "models"),
        (("config", "models"), {}, "run.json", "models"),
        (("config", "models", "a", "source"), 3, "run.json", "models.a.source"),
        (("config", "images"), 10**9, "run.json", "images"),
        (("config", "images"), True, "run.json", "images"),
        (("config", "scorers"), ["bright"], "run.json", "scorers"),
        (("rows", 1, "prompt"), -1, LINE, "prompt is -1; expected a whole number from 0 to 1"),
        (("rows", 1, "image"), 10**9, LINE, "image is 1000000000; expected"),
        (("rows", 1, "scores", "bright"), "0.5", LINE, "scores.bright"),
        (("rows", 1, "model"), "b", LINE, "model is 'b'; expected one of a"),
        (("rows", 1, "scores"), {"dark": 0.5}, LINE, "scorer is 'dark'"),
        (("rows", 1), [1, 2], LINE, "the whole"),
    ],
)
def test_a_damaged_run_is_one_line_that_names_file_and_entry(
    place: tuple[str | int, ...], value: object, file: str, entry: str, tmp_path: Path
) -> None:
    parts = json.loads(json.dumps({"config": CONFIG, "prompts": PROMPTS, "rows": ROWS}))
    *way, last = place
    inner = parts
    for step in way:
        inner = inner[step]
    inner[last] = value
    folder = written(tmp_path / "deep" / "down" / "run", **parts)
    before = set(tmp_path.rglob("*"))
    done = run("bench", "report", folder, "--copy", "--out", tmp_path / "page")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert file in line
    assert entry in line
    assert set(tmp_path.rglob("*")) == before


def test_a_link_in_the_report_that_leads_outside_is_not_followed(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", CONFIG, PROMPTS, ROWS)
    (tmp_path / "mine").mkdir()
    (folder / "report" / "images").mkdir(parents=True)
    (folder / "report" / "images" / "a").symlink_to(tmp_path / "mine")
    done = run("bench", "report", folder, "--copy")
    assert done.returncode == 2
    assert "a link leads there" in done.stderr
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize("text", ["", "[]", "{}", "\0", "[" * 100_000, '{"models": {}}'])
def test_a_run_that_is_none_of_it(text: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "run", CONFIG, PROMPTS, ROWS)
    (folder / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        read_table(folder)


def test_names_and_keys_of_python_are_checked_too(tmp_path: Path) -> None:
    one = PromptSet("one", (ListedPrompt("../../a", "a dog"),))
    with pytest.raises(ValueError, match=r"'\.\./\.\./a' cannot name an image file"):
        bench(one, ["shapes"], ["shapes"], out=tmp_path / "run")
    good = PromptSet("one", (ListedPrompt("a", "a dog"),))
    with pytest.raises(ValueError, match=r"a model's name is '\.\./a'; expected"):
        bench(good, [Contestant("../a", "shapes")], ["shapes"], out=tmp_path / "run")
    assert not list(tmp_path.iterdir())
