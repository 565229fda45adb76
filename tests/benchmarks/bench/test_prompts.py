"""Prompt sets: real ones, names, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest

from stablepref.benchmarks.bench import prompt_sets
from stablepref.benchmarks.bench.prompt_sets import HPDV2_STYLES, read_prompt_set
from stablepref.benchmarks.shapes.prompt_set import prompts_csv
from stablepref.benchmarks.shapes.world.prompts import lab_prompts
from stablepref.data.prompts import ListedPrompt, read_prompt_file
from stablepref.weights.hub import UnavailableError

COLOURS = {"category": "Colors"}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_hpdv2s_folder_holds_other_sets_too(tmp_path: Path) -> None:
    """Its code expects drawbench.json beside the four styles."""
    for style in (*HPDV2_STYLES, "drawbench"):
        write(tmp_path, f"{style}.json", json.dumps(["x"] * 800))
    found = read_prompt_set("hpdv2", file=tmp_path)
    assert {one.labels["style"] for one in found.prompts} == set(HPDV2_STYLES)
    assert len(read_prompt_file(tmp_path)) == 4000


def test_the_laboratorys_prompts_need_no_file(tmp_path: Path) -> None:
    lab = read_prompt_set("lab")
    assert len(lab.prompts) == 200
    path = write(tmp_path, "lab.csv", prompts_csv(lab_prompts()))
    same = read_prompt_set(path)
    assert same.prompts == lab.prompts
    assert same.digest() == lab.digest()
    assert same.name == "lab"
    path.write_text(path.read_text().replace("circle", "disc", 1))
    assert read_prompt_set(path).digest() != lab.digest()


def test_drawbench_as_published(shared_data: Path) -> None:
    found = read_prompt_set("drawbench", file=shared_data / "prompts" / "drawbench.csv")
    assert found.prompts[0] == ListedPrompt("00000", "A red colored car.", COLOURS)
    counts = Counter(one.labels["category"] for one in found.prompts)
    assert len(counts) == 11
    assert counts["Reddit"] == 38
    assert counts["Gary Marcus et al."] == 10  # without the blank behind it in the file


def test_hpdv2_as_published(shared_data: Path) -> None:
    path = shared_data / "prompts" / "hpsv2_benchmark_prompts.json"
    found = read_prompt_set("hpdv2", file=path)
    assert Counter(one.labels["style"] for one in found.prompts) == dict.fromkeys(HPDV2_STYLES, 800)
    raw = json.loads(path.read_text())
    by_key = {one.key: one.prompt for one in found.prompts}
    assert by_key["paintings/00799"] == raw["paintings"][799]
    assert len({one.prompt for one in found.prompts}) < 3200  # repeated prompts stay


def test_imagereward_as_published(shared_data: Path) -> None:
    path = shared_data / "imagereward" / "benchmark-prompts.json"
    assert len(read_prompt_set("imagereward", file=path).prompts) == 100


def test_names_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="neither a file of prompts nor one of drawbench, hpdv2"):
        read_prompt_set("drawbenhc")
    with pytest.raises(ValueError, match="geneval has no place to be fetched from"):
        read_prompt_set("geneval")
    path = write(tmp_path, "a.txt", "x\n")
    with pytest.raises(ValueError, match=r"drawbench has 200 prompts .*, but 1 were found in"):
        read_prompt_set("drawbench", file=path)
    with pytest.raises(ValueError, match="is not one of drawbench"):
        read_prompt_set(path, file=path)

    def no_network(url: str) -> None:
        raise OSError(f"no way to {url}")

    monkeypatch.setattr(prompt_sets, "require_network", no_network)
    for name in ("drawbench", "parti", "hpdv2"):
        with pytest.raises(UnavailableError, match=f"{name} cannot be downloaded .*--prompts"):
            read_prompt_set(name)


def test_rows_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"Prompts": f"prompt {i}", "Category": "x"} for i in range(200)]
    monkeypatch.setattr(prompt_sets, "require_network", lambda _: None)
    monkeypatch.setattr(prompt_sets, "hub_rows", lambda name, split: rows)
    found = read_prompt_set("drawbench")
    assert found.prompts[199] == ListedPrompt("00199", "prompt 199", {"category": "x"})
