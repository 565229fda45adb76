"""The script that says what HPS v3 costs, at a tiny size, and its arithmetic by hand."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from stablepref.benchmarks.parity.hps_v3 import TINY, layout
from stablepref.benchmarks.speed import hps_v3
from stablepref.models.catalog import BY_NAME

PARTS = ["patch embedding", "vision block", "merger", "embedding", "language layer"]


def shown(report: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(hps_v3.table(report), *hps_v3.lines(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_tiny_model_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hps_v3, "matrix_rate", lambda *_: 1e9)
    full = {**TINY, "num_hidden_layers": 5, "vision": {**TINY["vision"], "depth": 4}}
    monkeypatch.setitem(hps_v3.BY_NAME, "hps-v3", replace(BY_NAME["hps-v3"], sizes=full))
    app = typer.Typer()
    app.command()(hps_v3.hps_v3)
    out = tmp_path / "out.json"
    options = ["--layers", "2", "--blocks", "1", "--rounds", "2", "--text-tokens", "20"]
    done = CliRunner().invoke(app, [*options, "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "language layer" in done.output
    assert "2 layers and 1 blocks" in done.output
    for name in PARTS:
        assert name in out.read_text()


def test_each_part_is_timed_in_the_scorers_own_pass() -> None:
    sizes = hps_v3.shortened(TINY, 2, 1)
    scorer = hps_v3.build(sizes, torch.bfloat16, torch.device("cpu"))
    assert {name: len(modules) for name, modules in hps_v3.parts(scorer).items()} == {
        "patch embedding": 1,
        "vision block": 1,
        "merger": 1,
        "embedding": 1,
        "language layer": 2,
        "final norm and head": 2,
    }
    assert {weight.dtype for weight in scorer.body.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in scorer.head.parameters()} == {torch.float32}
    measured = hps_v3.measure(
        sizes,
        layers=2,
        blocks=1,
        rounds=1,
        side=64,
        text_tokens=20,
        batch=1,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    (one,) = measured["passes"]
    assert all(one[name] > 0 for name in PARTS)
    assert sum(value for name, value in one.items() if name != "all") == pytest.approx(one["all"])
    assert measured["image_tokens"] == 256
    assert measured["tokens"] == 256 + 20 + len(scorer._before)


def test_the_estimate_by_hand() -> None:
    full = {"num_hidden_layers": 28, "vision": {"depth": 32}}
    one = {"patch embedding": 1.0, "vision block": 4.0, "merger": 2.0, "embedding": 0.5}
    one |= {"language layer": 8.0, "final norm and head": 0.25, "the rest": 0.25, "all": 16.0}
    slow = {name: 9 * seconds for name, seconds in one.items()}
    fast = {name: seconds / 2 for name, seconds in one.items()}
    measured = {"passes": [slow, one, fast], "batch": 2, "preparing": 0.2, "layers": 4, "blocks": 2}
    found = hps_v3.estimate(full, measured)
    # Half of the median pass is one picture's: a block 1 s, a layer 1 s.
    assert found["once"]["vision block"] == pytest.approx(1.0)
    assert found["once"]["language layer"] == pytest.approx(1.0)
    further = 28 * 1.0 + (0.5 + 0.25 + 0.25) / 2
    assert found["further"] == pytest.approx(further)
    assert found["first"] == pytest.approx(0.1 + (1.0 + 2.0) / 2 + 32 * 1.0 + further)
    report = {
        "measured": {**measured, "dtype": "float32", "tokens": 850, "image_tokens": 256}
        | {"working_bytes": 1.5e9},
        "estimate": found,
        "weights_bytes": {"float32": 31e9, "bfloat16": 15.5e9},
        "matrix_rates": {"float32": 100e9, "bfloat16": 4e9},
        "bfloat16_units": False,
    }
    text = " ".join(shown(report).split())
    assert "62.1 s for a picture, 28.5 s for each further prompt" in text
    assert "Weights in bfloat16: 15.5 GB" in text
    assert "a pass takes 1.50 GB" in text
    assert "no bfloat16 units: products take 25.0 times as long" in text


def test_weights_are_counted_as_the_official_file_has_them() -> None:
    counted = hps_v3.weights(TINY, rows=100)
    shapes = layout(TINY)
    sizes = {key: torch.Size(shape).numel() for key, shape in shapes.items()}
    rows = shapes["lm_head.weight"][0]
    assert counted["vision"] == sum(n for k, n in sizes.items() if k.startswith("visual."))
    assert counted["head"] == sum(n for k, n in sizes.items() if k.startswith("rm_head."))
    language = sum(n for k, n in sizes.items() if k.startswith("model."))
    assert counted["language"] == language + (100 - rows) * TINY["hidden_size"]
    by_hand = {"vision": 10, "language": 20, "head": 3}
    assert hps_v3.bytes_of(by_hand, torch.bfloat16) == 30 * 2 + 3 * 4
