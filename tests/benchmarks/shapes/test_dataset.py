"""The command that writes data sets of the laboratory."""

import json
from pathlib import Path

from helpers.typed import refused, typed

from stablepref.benchmarks.shapes.dataset import main
from stablepref.benchmarks.shapes.world.scenes import SPLITS
from stablepref.data.read import read_groups


def test_the_command_writes_all_splits(tmp_path: Path) -> None:
    out = tmp_path / "data"
    few = ("--groups", 3, "--held-out", 1, "--seed", 5)
    assert str(out / "train.jsonl") in typed(main, "--out", out, "--setting", "imagereward", *few)
    assert [len(list(read_groups(out, split=split))) for split in SPLITS] == [3, 1, 1]
    recipe = json.loads((out / "recipe.json").read_text())
    assert (recipe["seed"], recipe["setting"]["name"]) == (5, "imagereward")
    told = refused(main, "--out", out, "--setting", "pickapic")
    assert "'pickapic' is not one of 'hpdv2', 'imagereward'" in told
    assert "other settings" in refused(main, "--out", out, "--setting", "hpdv2", *few)
    told = refused(main, "--out", tmp_path / "other", "--annotators", 51)
    assert "annotators is 51" in told
    assert not (tmp_path / "other").exists()
