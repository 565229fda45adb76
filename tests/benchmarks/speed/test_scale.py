"""What more images cost: the drawings, the ways that are measured, and what is worked out."""

import io
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs stablepref[bench]")

import pyarrow.parquet
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

import stablepref
from stablepref.benchmarks.speed import scale, scale_run
from stablepref.benchmarks.speed.machine import machine_kind

MEASURED = {
    100: {"cpu_seconds": 5.0, "seconds": 6.0, "peak_bytes": 300e6},
    1_000: {"cpu_seconds": 14.0, "seconds": 19.5, "peak_bytes": 309e6},
    10_000: {"cpu_seconds": 104.0, "seconds": 123.0, "peak_bytes": 309e6},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return scale.draw_rows(tmp_path_factory.mktemp("scale"), [2, 5], side=32)


def test_growth_is_what_each_further_image_costs() -> None:
    first, second = scale.growth(dict(reversed(MEASURED.items())))
    assert first == {
        "from": 100,
        "to": 1_000,
        "cpu_seconds": pytest.approx(0.01),
        "seconds": pytest.approx(0.015),
        "bytes": pytest.approx(10_000),
    }
    assert second["cpu_seconds"] == pytest.approx(0.01)
    assert second["bytes"] == 0


def test_the_table_has_a_row_for_each_number() -> None:
    machine = machine_kind(torch.device("cpu"))
    report = {"model": "shapes", "machine": machine, "ways": {"stream": MEASURED}}
    shown = io.StringIO()
    Console(width=scale.WIDTH, file=shown).print(scale.scale_table(report))
    lines = [line.split() for line in shown.getvalue().splitlines() if "stream" in line]
    cells = [[cell for cell in line if cell != "│"] for line in lines]
    assert cells[0] == ["stream", "100", "5.0", "6.0", "-", "300", "-"]
    assert cells[1] == ["stream", "1,000", "14.0", "19.5", "10.00", "309", "10000"]
    assert cells[2] == ["stream", "10,000", "104.0", "123.0", "10.00", "309", "0"]


def test_manifests_and_parquet_files_hold_the_same_first_rows(drawn: dict[int, Path]) -> None:
    rows = {
        size: [json.loads(line) for line in path.read_text().splitlines()]
        for size, path in drawn.items()
    }
    assert {size: len(found) for size, found in rows.items()} == {2: 2, 5: 5}
    assert rows[5][:2] == rows[2]
    assert len({row["image"] for row in rows[5]}) == 5
    for size, path in drawn.items():
        table = pyarrow.parquet.read_table(path.with_suffix(".parquet"))
        assert table["prompt"].to_pylist() == [row["prompt"] for row in rows[size]]
        files = [(path.parent / row["image"]).read_bytes() for row in rows[size]]
        assert table["image"].to_pylist() == files


def test_drawings_that_are_there_stay_and_equal_calls_draw_equal_ones(
    drawn: dict[int, Path], tmp_path: Path
) -> None:
    again = scale.draw_rows(tmp_path, [5], side=32)[5]
    assert again.read_text() == drawn[5].read_text()
    pictures = sorted(tmp_path.glob("pictures/*"))
    assert [path.read_bytes() for path in pictures] == [
        path.read_bytes() for path in sorted(drawn[5].parent.glob("pictures/*"))
    ]
    written = [path.stat().st_mtime_ns for path in pictures]
    scale.draw_rows(tmp_path, [5], side=32)
    assert [path.stat().st_mtime_ns for path in pictures] == written


@pytest.mark.parametrize("way", ["stream", "one-prompt", "score", "command", "parquet"])
def test_every_way_scores_every_row(
    way: str,
    drawn: dict[int, Path],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = stablepref.load(model, device="cpu")
    seen: list[str] = []
    encode = scorer.cached_prompts

    def noted(prompts: list[str]) -> torch.Tensor:
        seen.extend(prompts)
        return encode(prompts)

    monkeypatch.setattr(scorer, "cached_prompts", noted)
    monkeypatch.setattr(sys, "argv", [])
    to = str(tmp_path / "scores")
    scale_run.WAYS[way]({"rows": str(drawn[5]), "model": str(model), "to": to})
    assert len(seen) == 5
    if way != "one-prompt":
        assert seen == [json.loads(line)["prompt"] for line in drawn[5].read_text().splitlines()]


@pytest.mark.slow  # another process loads torch
def test_a_way_is_measured_in_a_process_of_its_own_and_once(
    drawn: dict[int, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scale.run_way("stream", drawn[2], str(model), tmp_path / "run")
    assert found["seconds"] > 0
    assert found["cpu_seconds"] > 0
    assert found["peak_bytes"] > 50e6  # Python with torch
    monkeypatch.setattr(sys, "executable", "nothing")
    assert scale.run_way("stream", drawn[2], str(model), tmp_path / "run") == found
    with pytest.raises(ValueError, match="not shapes: give another --workdir"):
        scale.run_way("stream", drawn[2], "shapes", tmp_path / "run")


def test_the_end_of_a_failed_processs_output_is_in_the_error(
    drawn: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho no such model >&2\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    with pytest.raises(RuntimeError, match=r"stream of .* exit status 3:\nno such model"):
        scale.run_way("stream", drawn[2], "none", tmp_path / "run")


def test_unknown_ways_are_refused(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(scale.scale)
    done = CliRunner().invoke(app, ["--workdir", str(tmp_path / "none"), "--way", "nobody"])
    assert done.exit_code == 2
    assert "nobody" in done.output
    assert not (tmp_path / "none").exists()
