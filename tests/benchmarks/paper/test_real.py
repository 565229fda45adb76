"""Tables of the paper on files in the official formats, small enough to work out by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.paper_case import ROWS, TABLE_1_LINES, cells, paper
from PIL import Image

import stablepref
from stablepref.models.clip import CLIPScorer
from stablepref.weights import cache

RANKS = [[1, 2, 3], [2, 1, 3], [3, 1, 2]]
"""Three annotators of every group."""
MEANS = [2.0, 4 / 3, 8 / 3]


def draw(folder: Path, names: Sequence[str]) -> None:
    rng = np.random.default_rng(len(names))
    folder.mkdir(parents=True)
    for name in names:
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def hpdv2(folder: Path, groups: int = 3) -> Path:
    """HPD v2's test.json with its pictures."""
    names = [f"{place:05d}.png" for place in range(3 * groups)]
    draw(folder / "test", names)
    rows = [
        {
            "prompt": f"prompt {place}",
            "image_path": names[3 * place : 3 * place + 3],
            "rank": MEANS,
            "raw_annotations": [{"rank": r, "user_hash": str(i)} for i, r in enumerate(RANKS)],
        }
        for place in range(groups)
    ]
    (folder / "test.json").write_text(json.dumps(rows))
    return folder


def imagereward(folder: Path) -> Path:
    """ImageReward's test.json, with a tie and a gap among the ranks."""
    names = [f"{place}.png" for place in range(8)]
    draw(folder, names)
    rows = [
        {"id": str(i), "prompt": f"words {i}", "generations": names[4 * i : 4 * i + 4],
         "ranking": ranks}
        for i, ranks in enumerate(([1, 2, 2, 4], [4, 1, 2, 3]))
    ]  # fmt: skip
    (folder / "test.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(autouse=True)
def _nothing_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setenv("STABLEPREF_CACHE", str(tmp_path / "cache"))


def test_every_row_of_table_4_and_why_it_is_empty(tmp_path: Path, model: Path) -> None:
    data = imagereward(tmp_path / "data")
    done = paper("table4", "--imagereward", data, "-m", f"SP CLIP-H={model}", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["title"] == (
        "Table 4: agreement with people on ImageReward; ImageReward's test split, 2 of its 466 "
        "groups; not the paper's models: tiny for sp-clip-h"
    )
    assert not found["laboratory"]
    rows = cells(done.stdout)
    printed = [f"{name}|{cell[0]['printed']}" for name, cell in rows.items()]
    assert printed == ROWS["table4"].splitlines()
    why = {name: str(cell[0]["why_not"]) for name, cell in rows.items()}
    assert "get hpc.pt from https://github.com/tgxs002/align_sd" in why["HPS v1"]
    assert "--download fetches 1,972 MB, or --model hps-v2=PATH" in why["HPS v2"]
    assert "one ranking of each prompt" in why["Single Human vs. Single Human"]
    assert "`stablepref train --recipe sp-clip-h-hps " in why["Stable Preference (CLIP-H†)"]
    filled = {name for name, reason in why.items() if reason == "None"}
    assert filled == {"Stable Preference (CLIP-H)"}
    # ImageReward's own rule: pairs that people tie are left out, scores that tie are wrong.
    scorer = stablepref.load(model)
    right = 0
    for group in stablepref.read_groups(data / "test.json"):
        scores = scorer.score(list(group.images), group.prompt)
        right += sum(bool(scores[a] > scores[b]) for a, b in group.pairs())
    (cell,) = rows["Stable Preference (CLIP-H)"]
    assert cell["ours"]["value"] == pytest.approx(100 * right / 11)  # type: ignore[index] # JSON
    assert cell["ours"]["note"] == "weights: tiny"  # type: ignore[index] # JSON


def test_people_of_table_5_by_hand(tmp_path: Path) -> None:
    done = paper("table5", "--hpdv2", hpdv2(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    assert "HPD v2's test split, 3 of its 400 groups" in done.stdout
    assert "laboratory" not in done.stdout
    line = {row.split("  ")[0].strip(): row for row in done.stdout.splitlines()}
    # Of the three pairs of images the first and second annotator agree on two, the first and third
    # on one, the second and third on two: five of nine.
    assert "55.56 (55.56 to 55.56)" in line["Single Human vs. Single Human"]
    # The sums of the two others are (5, 2, 5), (4, 3, 5) and (3, 3, 6), with which the annotators
    # agree on one and a half, three, and one and a half.
    assert "66.67 (66.67 to 66.67)" in line["Single Human vs. Averaged Human"]
    assert "no recipe trains it" in line["BLIP"]
    assert "`stablepref train --recipe ce-clip-l " in line["CLIP-L"]


def test_the_gallery_has_the_agreement_that_is_documented(shared_data: Path) -> None:
    done = paper("table5", "--hpdv2", shared_data / "hpdv2_gallery", "--json")
    rows = cells(done.stdout)
    values = [
        rows[f"Single Human vs. {whom} Human"][0]["ours"]["value"]  # type: ignore[index] # JSON
        for whom in ("Single", "Averaged")
    ]
    assert values == pytest.approx([79.57, 84.32], abs=0.005)  # docs/data.md
    assert "40 of its 400 groups" in done.stdout


def test_table_1_by_both_data_sets_own_rules(tmp_path: Path, model: Path) -> None:
    places = "--hpdv2", hpdv2(tmp_path / "h"), "--imagereward", imagereward(tmp_path / "i")
    out = tmp_path / "out"
    done = paper("table1", *places, "--model", f"sp-clip-l={model}", "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "table1.json").read_text())
    lines = [
        "|".join((row["method"], row["dataset"], *(c["printed"] for c in row["cells"])))
        for row in found["rows"]
    ]
    plain = [line.replace(", printed; -0.4 by its own numbers", "") for line in lines]
    plain = [line.replace(", printed; -0.3 by its own numbers", "") for line in plain]
    assert plain == TABLE_1_LINES
    assert sum("by its own numbers" in line for line in lines) == 1
    assert found["columns"] == [
        "ORG", "HP&CC (0.97)", "HP&CC (0.95)", "HP&CC (0.93)", "HP&CC (0.90)"
    ]  # fmt: skip
    assert any("hpsv2 on HPD v2, imagereward on ImageReward" in note for note in found["notes"])
    rows = cells((out / "table1.json").read_text())
    original, first = (cell["ours"] for cell in rows["SP (CLIP-L)|HPD v2"][:2])
    expected = stablepref.evaluate(
        stablepref.load(model),
        stablepref.read_groups(tmp_path / "h" / "test.json"),
        tie_rule="hpsv2",
        mirror_sided=True,
        progress=False,
    )
    assert original["value"] == pytest.approx(100 * expected.accuracy)  # type: ignore[index] # JSON
    row = expected.disturbed[0]
    assert row.name == "hflip+crop-0.97"
    assert first["value"] == pytest.approx(100 * row.accuracy.value)  # type: ignore[index] # JSON
    assert first["change"] == pytest.approx(100 * row.change.value)  # type: ignore[index] # JSON
    told = (out / "table1.md").read_text()
    assert "HPS v2 | HPD v2 | paper | 83.3 | 82.2 (-1.1)" in told
    assert "misprint: SP (CLIP-H) on HPD v2" in told


def test_scores_of_a_killed_run_are_not_made_again(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = hpdv2(tmp_path / "data"), tmp_path / "out"
    command = ("table5", "--hpdv2", data, "--model", f"sp-clip-h={model}", "--out", out, "--json")
    whole = paper(*command)
    (scores,) = (out / "scores").iterdir()
    lines = scores.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4  # settings, and a line for each group
    scores.write_bytes(b"".join(lines[:3]) + lines[3][:20])  # as a kill leaves it
    encoded = 0
    encode = CLIPScorer.encode_inputs

    def counting(self: CLIPScorer, inputs: object) -> object:
        nonlocal encoded
        encoded += len(inputs)  # type: ignore[arg-type] # a tensor
        return encode(self, inputs)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(CLIPScorer, "encode_inputs", counting)
    again = paper(*command)
    assert encoded == 3
    assert again.stdout == whole.stdout
    other = paper(*command[:2], imagereward(tmp_path / "other"), *command[3:])
    assert other.returncode == 2
    assert "delete it or choose another output" in other.stderr


def test_images_that_are_not_there(tmp_path: Path, model: Path) -> None:
    data = hpdv2(tmp_path / "data")
    command = ("table5", "--hpdv2", data, "--model", f"sp-clip-h={model}")
    (data / "test" / "00000.png").unlink()
    done = paper(*command)
    assert done.returncode == 1
    assert "1 of 9 images are missing" in done.stderr
    assert "1 images could not be scored" in done.stdout
    for path in (data / "test").iterdir():
        path.unlink()
    done = paper(*command)
    assert done.returncode == 0
    assert "none of HPD v2's images exists" in done.stdout
    images = tmp_path / "elsewhere"
    draw(images, [f"{place:05d}.png" for place in range(9)])
    done = paper(*command, "--hpdv2-images", images)
    assert "weights: tiny" in done.stdout


def test_one_data_set_of_two(tmp_path: Path, model: Path) -> None:
    done = paper("table3", "--hpdv2", hpdv2(tmp_path / "h"), "-m", f"sp-clip-h={model}", "--json")
    uniform, softmax = list(cells(done.stdout).values())[1:]
    assert softmax[0]["ours"] is not None
    assert "give --imagereward PATH" in str(softmax[1]["why_not"])
    assert "--recipe sp-clip-h --margin-weighting uniform" in str(uniform[0]["why_not"])


def test_a_laboratory_model_on_real_data_is_in_the_title(tmp_path: Path) -> None:
    done = paper("table5", "--hpdv2", hpdv2(tmp_path / "h"), "-m", "sp-clip-h=shapes", "--json")
    found = json.loads(done.stdout)
    assert found["laboratory"]
    assert found["title"].endswith("not the paper's models: shapes for sp-clip-h")


def test_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr("stablepref.data.read.hub_rows", fail)
    done = paper("table5", "--download")
    assert done.returncode == 2
    assert "hf:ymhao/HPDv2 cannot be downloaded (offline): give its files, --hpdv2" in done.stderr


def test_data_of_the_laboratory_are_not_taken_for_real(tmp_path: Path) -> None:
    row = {"prompt": "p", "images": ["a.png", "b.png"], "ranks": [1, 2]}
    row |= {"metadata": {"utilities": [0.0, -1.0]}}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    done = paper("table5", "--hpdv2", tmp_path / "test.jsonl")
    assert done.returncode == 2
    assert "holds groups of the laboratory" in done.stderr
