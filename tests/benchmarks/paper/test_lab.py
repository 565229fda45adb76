"""The paper's tables and figures in the laboratory, out of ablations, and out of runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.paper_case import ROWS, TABLE_1_LINES, cells, paper

from stablepref.benchmarks.paper.ablations import Ablations
from stablepref.benchmarks.paper.methods import Trained
from stablepref.benchmarks.shapes.ablation.cells import Cell, Store, mean_values
from stablepref.benchmarks.shapes.ablation.methods import METHODS, method_config
from stablepref.benchmarks.shapes.ablation.suite import Suite
from stablepref.evaluation.means import GroupMean

LAB = "on the laboratory, not the paper's data"
STOP = 100


def measure(share: float) -> dict[str, list[float]]:
    """The same share of the 20 pairs of each of four prompts."""
    return mean_values(GroupMean(np.full(4, 20 * share), np.full(4, 20.0)))


def train(store: Store, size: str, method: str, setting: str, seed: int, share: float) -> None:
    """A made-up training: `share` on its own data, 0.1 less on the other, 0.02 less disturbed."""
    start = method == "start"
    config = method_config(
        METHODS["ce" if start else method], rate=1e-4, margins=(1.0, 0.7), steps=200,
        batch_size=8, seed=seed, image_blocks=1, text_blocks=1,
    )  # fmt: skip
    stop = 0 if start else STOP
    ends = (0,) if start else (STOP, 200)
    robust = size == "large"
    cell = Cell(size, setting, config, tested=ends, disturbed=(stop,) * robust)  # type: ignore[arg-type] # one of its literals

    def tests(value: float) -> dict[str, object]:
        return {
            name: {"people": measure(value if name == setting else value - 0.1),
                   "oracle": measure(0.99)}
            for name in ("hpdv2", "imagereward")
        }  # fmt: skip

    names = ("crop-0.97", "crop-0.95", "crop-0.93", "crop-0.9")
    changed = {name: {"people": measure(share - 0.02)} for name in names}
    found = {
        "watched": [],
        "tested": {str(step): tests(share if step == stop else 0.5) for step in ends},
        "disturbed": {str(stop): changed} if robust else {},
        "seconds": 1.0,
    }
    store.write(cell, found)


@pytest.fixture(scope="module")
def ablations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up results of some trainings."""
    folder = tmp_path_factory.mktemp("ablations")
    (folder / "cells").mkdir()
    store = Store(folder / "cells", Suite(), {"small": "a", "large": "b"})
    for seed, share in enumerate((0.7, 0.8)):
        train(store, "large", "sp", "imagereward", seed, share)
    train(store, "large", "start", "imagereward", 0, 0.6)
    train(store, "small", "sp", "imagereward", 0, 0.65)
    train(store, "small", "ce", "imagereward", 0, 0.62)
    train(store, "large", "ce", "hpdv2", 0, 0.75)
    train(store, "large", "sp-uniform", "imagereward", 0, 0.66)
    # One that only tunes, and one far past the optimum, are in no table.
    tuning = method_config(
        METHODS["sp"], rate=1e-3, margins=(1.0, 0.7), steps=200, batch_size=8, seed=0,
        image_blocks=1, text_blocks=1,
    )  # fmt: skip
    nothing = {"watched": [], "tested": {}, "disturbed": {}}
    store.write(Cell("large", "imagereward", tuning, watched=(50,)), nothing)
    long = replace(tuning, steps=800, order_steps=80, warmup_steps=40)
    store.write(Cell("large", "imagereward", long, tested=(0, 400, 800)), nothing)
    return folder


def ours(text: str) -> dict[str, list[float | None]]:
    """Values by what stands before them; None where there is a reason."""
    return {
        name: [None if cell["ours"] is None else round(cell["ours"]["value"], 6) for cell in row]  # type: ignore[index] # JSON
        for name, row in cells(text).items()
    }


def test_table_4_of_the_bundled_model_and_simulated_people(tmp_path: Path) -> None:
    done = paper("table4", "--size", 3, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Table 4: agreement with people on ImageReward, {LAB}")
    found = json.loads((tmp_path / "table4.json").read_text())
    assert found["laboratory"]
    rows = cells((tmp_path / "table4.json").read_text())
    assert [f"{name}|{row[0]['printed']}" for name, row in rows.items()] == ROWS[
        "table4"
    ].splitlines()
    filled = [name for name, (row,) in rows.items() if row["ours"] is not None]
    assert filled == ["CLIP-H", "Single Human vs. Single Human", "Single Human vs. Averaged Human"]
    why = {name: row[0]["why_not"] for name, row in rows.items()}
    assert why["HPS v1"] == "the laboratory has no counterpart"
    assert "--ablations FOLDER" in str(why["Stable Preference (CLIP-H)"])
    assert any("human preference" in note for note in found["notes"])
    # It states what the paper's own numbers need.
    assert "hf:THUDM/ImageRewardDB" in done.stderr
    assert "get hpc.pt from" in done.stderr


def test_ablations_fill_the_rows_that_they_have(ablations: Path) -> None:
    done = paper("table4", "--ablations", ablations, "--size", 1, "--json")
    assert done.returncode == 0, done.stderr
    found = ours(done.stdout)
    assert found["Stable Preference (CLIP-H)"] == [75.0]  # the mean of two seeds
    assert found["Stable Preference (CLIP-L)"] == [65.0]
    assert found["CLIP-H"] == [60.0]
    assert found["HPS v2"] == [65.0]  # trained on the other data
    rows = cells(done.stdout)
    assert "does not have this training" in str(rows["CLIP-L"][0]["why_not"])
    assert rows["Stable Preference (CLIP-H†)"][0]["why_not"] == "the laboratory has no counterpart"
    note = rows["Stable Preference (CLIP-H)"][0]["ours"]["note"]  # type: ignore[index] # JSON
    assert note.endswith("Stable Preference, trained on its imagereward: 2 seeds")


def test_table_5_is_across_data_and_table_3_on_both(ablations: Path) -> None:
    found = ours(paper("table5", "--ablations", ablations, "--size", 1, "--json").stdout)
    assert found["Stable Preference (CLIP-H)"] == [65.0]
    assert found["CLIP-L"] == [52.0]
    assert found["CLIP-H"] == found["BLIP"] == [None]
    third = ours(paper("table3", "--ablations", ablations, "--size", 1, "--json").stdout)
    assert list(third.values()) == [[None, None], [56.0, 66.0], [65.0, 75.0]]


def test_table_1_has_what_was_disturbed(ablations: Path) -> None:
    done = paper("table1", "--ablations", ablations, "--size", 1, "--json")
    found = ours(done.stdout)
    assert list(found) == ["|".join(line.split("|")[:2]) for line in TABLE_1_LINES]
    assert found["SP (CLIP-H)|ImageReward"] == [75.0, 73.0, 73.0, 73.0, 73.0]
    assert found["HPS v2|HPD v2"] == [75.0, 73.0, 73.0, 73.0, 73.0]
    assert found["SP (CLIP-H)|HPD v2"] == [65.0, None, None, None, None]
    assert found["ImageReward|HPD v2"] == [None] * 5
    cell = cells(done.stdout)["SP (CLIP-H)|ImageReward"][1]["ours"]
    bounds = [cell[name] for name in ("change", "change_low", "change_high")]  # type: ignore[index] # JSON
    assert bounds == pytest.approx([-2, -2, -2])
    assert "without the flips" in done.stdout


def test_two_runs_in_one_folder_are_not_mixed(ablations: Path, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for path in (ablations / "cells").iterdir():
        (tmp_path / "cells" / path.name).write_text(path.read_text())
    store = Store(tmp_path / "cells", Suite(), {"small": "a", "large": "other"})
    train(store, "large", "sp", "imagereward", 0, 0.9)
    found = Ablations(tmp_path).accuracy(Trained("large", "sp"), "imagereward")
    assert "several runs" in str(found)
    (tmp_path / "cells" / "x.json").write_text("{}")
    with pytest.raises(ValueError, match=r"x\.json is not a training of the ablations"):
        Ablations(tmp_path)
