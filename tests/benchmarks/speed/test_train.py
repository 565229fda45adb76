"""The training benchmark: its numbers by hand, and its ways of training on a tiny model."""

import io
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.splits import make_split
from rich.console import Console

from stablepref.benchmarks.speed import train as speed_train
from stablepref.benchmarks.speed import train_run as speed_train_run
from stablepref.data.read import read_groups
from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.training.pairs import PairBatches

BACKBONE = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 56},
    "text_cfg": {"width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    shades, ranks = [[1, 90, 200], [40, 150, 250]], [(1.0, 2.0, 3.0), (2.0, 1.0, 3.0)]
    return make_split(tmp_path / "train", shades, ranks)


def job(data: Path, **changed: object) -> dict[str, Any]:
    return {"data": str(data), "backbone": BACKBONE, "image_blocks": 1, "text_blocks": 1,
            "pairs": 3, "views": 1, "steps": 2, "workers": 0, "threads": 1, "device": "cpu",
            **changed}  # fmt: skip


@pytest.mark.parametrize(("way", "images"), [("plain loop", 6), ("pairs", 5), ("groups", 3)])
def test_each_way_counts_what_it_encodes(
    data: Path, way: str, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that moves by a second at every look; three pairs of a group have three images."""
    clock = itertools.count()
    monkeypatch.setattr(speed_train, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    measured = speed_train.measure(job(data, contender=way, views=0 if way == "pairs" else 1))
    assert measured["seconds"] == [1, 1]
    assert len(measured["images"]) == 2
    if way == "pairs":  # drawn anywhere, so an image may or may not be in several
        assert all(3 <= count <= 6 for count in measured["images"])
    else:
        assert measured["images"] == [images, images]
    assert measured["peak_bytes"] > 50e6  # Python with torch


def test_the_plain_loop_has_the_same_gradient(data: Path) -> None:
    """Without views both see the same pictures, so a faster way leaves no work out."""
    found = []
    for steps, batching in ((speed_train.plain_steps, "pairs"), (speed_train.our_steps, "pairs")):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            scorer = CLIPScorer(
                BACKBONE, preprocess=Preprocess("clip", 224), name="a", preference_scale=1.0
            )
        groups = list(read_groups(data))
        batches = PairBatches(groups, batch_size=3, batching=batching)  # type: ignore[arg-type] # a Literal
        next(steps(scorer, groups, batches, job(data, views=0), half=False))()
        found.append({n: p.grad for n, p in scorer.named_parameters() if p.grad is not None})
    plain, ours = found
    assert plain.keys() == ours.keys()
    for name, gradient in plain.items():
        # Pillow rounds to 8 bits, ours does not.
        scale = gradient.abs().max()
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=0.05 * float(scale) + 1e-6)


def test_the_table_by_hand() -> None:
    rows = {
        "plain loop": [{"seconds": [4.0, 4.0], "images": [64, 64]}, {"seconds": [2.0, 2.0]}],
        "groups": [{"seconds": [0.5, 0.5], "images": [16, 16]}, {"seconds": [0.5, 0.5]}],
    }
    for name, rounds in rows.items():
        for row in rounds:
            row |= {"peak_bytes": 3e9 if name == "groups" else 2e9, "peak_gpu_bytes": 0}
            row.setdefault("images", rounds[0]["images"])
    assert speed_train_run.pair_rates(rows["plain loop"], 32) == [8.0, 16.0]
    report = {"job": {"pairs": 32, "views": 3, "threads": 1, "steps": 2}, "rounds": 2,
              "flops": 1e9, "matrix_rates": {"float32": 256e9}, "contenders": rows}  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=140).print(speed_train_run.train_table(report))
    plain, groups = (
        next(line for line in out.getvalue().splitlines() if line.startswith(f"│ {name} "))
        for name in rows
    )
    # 12 pairs a second at 2 images a pair and 4 views are 96 GFLOP/s of 256; 64 pairs at half an
    # image each are 128.
    for cell in ("12.00 (8.00 to 16.00)", "2.00", "1.00x", "2.0", "38%"):
        assert cell in plain
    for cell in ("64.00 (64.00 to 64.00)", "0.50", "5.33x", "3.0", "50%"):
        assert cell in groups


@pytest.mark.slow  # as test_own_process, with a process that imports torch
def test_the_end_of_a_failing_ways_output_is_in_the_error(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.jsonl"
    with pytest.raises(RuntimeError, match=r"(?s)groups failed with exit status 1:.*nowhere"):
        speed_train_run.run_training(["groups"], job(missing), rounds=1)
