"""The accelerator's script on a CPU with a tiny model, and its arithmetic by hand."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from stablepref.benchmarks.speed import accelerator
from stablepref.benchmarks.speed.synthetic import write_groups, write_jpegs
from stablepref.data.read import read_groups

BACKBONE = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 56},
    "text_cfg": {"width": 64, "heads": 1, "layers": 2},
}


def shown(report: dict[str, object]) -> str:
    console = Console(file=io.StringIO(), width=120)
    for table in accelerator.tables(report):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everything_is_measured_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "matrix_rate", lambda *_: 1e9)
    report = accelerator.measure_all(
        BACKBONE,
        device=torch.device("cpu"),
        blocks=(1, 1),
        batches=[2, 3],
        pictures=9,
        pairs=3,
        candidates=3,
        workdir=tmp_path,
        steps=1,
        side=64,
    )
    assert [row["batch"] for row in report["scoring"]] == [2, 3]
    assert all(row["pictures"] > 0 and row["tower"] > 0 for row in report["scoring"])
    assert len(report["training"]["seconds"]) == 3
    assert all(rate > 0 for rate in report["best_of_n"].values())
    assert "best of n, batches of the chosen size" in shown(report)


def test_the_tables_by_hand() -> None:
    report = {
        "matrix_rate": 1000.0,
        "flops": {"image": 10, "text": 1, "training": 5},
        "pairs": 4,
        "scoring": [{"batch": 8, "pictures": 20.0, "tower": 70.0}],
        # Two steps of 2 s with 3 images, 4 views each: 3 * 2 * 4 * 5 operations in 4 s.
        "training": {"seconds": [2.0, 2.0], "images": [3, 3]},
        "best_of_n": {"1": 0.5, "0": 2.0},
    }
    text = shown(report)
    assert "20.0 (20%)" in text
    assert "70%" in text
    assert "2.0 pairs" in text
    assert "3%" in text


def test_made_up_pictures_and_groups(tmp_path: Path) -> None:
    paths = write_jpegs(tmp_path / "pictures", 7, side=40)
    before = [path.read_bytes() for path in paths]
    assert len(set(before)) == 7
    paths[2].write_bytes(b"kept")
    assert write_jpegs(tmp_path / "pictures", 7, side=40) == paths
    assert paths[2].read_bytes() == b"kept"
    groups = list(read_groups(write_groups(tmp_path / "groups.jsonl", paths, size=3)))
    assert [list(group.ranks) for group in groups] == [[1, 2, 3]] * 2


def test_an_unknown_backbone_is_refused() -> None:
    import typer  # noqa: PLC0415 (only here)

    app = typer.Typer()
    app.command()(accelerator.accelerator)
    done = CliRunner().invoke(app, ["--backbone", "ViT-Z-1", "--device", "cpu"])
    assert done.exit_code == 2
    assert "open_clip has no model of this name" in done.output
