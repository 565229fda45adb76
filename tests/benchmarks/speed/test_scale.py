"""What more images cost: the files, the ways that are measured, and what is worked out."""

import io
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs stablepref[bench]")
pytest.importorskip("matplotlib", reason="needs stablepref[bench]")

import pyarrow.parquet
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

import stablepref
from stablepref.benchmarks.speed import scale, scale_run
from stablepref.benchmarks.speed.machine import machine_kind
from stablepref.benchmarks.speed.scale_figure import growth_figure, save_figure

MEASURED = {
    100: {"cpu_seconds": 5.0, "seconds": 6.0, "peak_bytes": 300e6},
    1_000: {"cpu_seconds": 14.0, "seconds": 19.5, "peak_bytes": 309e6},
    10_000: {"cpu_seconds": 104.0, "seconds": 123.0, "peak_bytes": 309e6},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return scale.write_rows(tmp_path_factory.mktemp("scale"), [4, 10], side=32)


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


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_manifests_parquet_files_and_groups_hold_the_same_first_rows(
    written: dict[int, Path],
) -> None:
    rows = {size: _rows(path) for size, path in written.items()}
    assert {size: len(found) for size, found in rows.items()} == {4: 4, 10: 10}
    assert rows[10][:4] == rows[4]
    for name in ("image", "prompt"):
        assert len({row[name] for row in rows[10]}) == 10
    for size, path in written.items():
        table = pyarrow.parquet.read_table(scale_run.parquet_of(path))
        assert table["prompt"].to_pylist() == [row["prompt"] for row in rows[size]]
        files = [(path.parent / row["image"]).read_bytes() for row in rows[size]]
        assert table["image"].to_pylist() == files
        groups = list(stablepref.read_groups(scale_run.groups_of(path)))
        grouped = [str(image) for group in groups for image in group.images]
        whole = size // scale.GROUP * scale.GROUP  # an incomplete last group is left out
        assert grouped == [str(path.parent / row["image"]) for row in rows[size][:whole]]


def test_pictures_that_are_there_stay_and_equal_calls_write_equal_ones(
    written: dict[int, Path], tmp_path: Path
) -> None:
    again = scale.write_rows(tmp_path, [10], side=32)[10]
    assert again.read_text() == written[10].read_text()
    pictures = sorted(tmp_path.glob("pictures/*"))
    assert [path.read_bytes() for path in pictures] == [
        path.read_bytes() for path in sorted(written[10].parent.glob("pictures/*"))
    ]
    found = [path.stat().st_mtime_ns for path in pictures]
    scale.write_rows(tmp_path, [10], side=32)
    assert [path.stat().st_mtime_ns for path in pictures] == found


def test_more_files_than_distinct_pictures_are_links_or_copies_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "DISTINCT", 3)
    scale.write_rows(tmp_path, [5], side=32)

    def no_links(*_: object) -> None:
        raise OSError("no links on this disk")

    monkeypatch.setattr(scale.os, "link", no_links)
    scale.write_rows(tmp_path, [8], side=32)
    contents = [path.read_bytes() for path in sorted(tmp_path.glob("pictures/*"))]
    assert len(contents) == 8
    assert len(set(contents)) == 3
    assert contents[:3] == contents[3:6]


def test_the_smallest_scorer_is_written_once_and_the_same(tmp_path: Path) -> None:
    folders = [scale.smallest_scorer(tmp_path / name) for name in ("a", "b", "a")]
    first, second = (stablepref.load(folder, device="cpu") for folder in folders[:2])
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_figure_draws_every_way(tmp_path: Path) -> None:
    figure = growth_figure({"eval": MEASURED, "ray-2": dict(reversed(MEASURED.items()))})
    total, each, memory = figure.axes
    for axes, wanted in (
        (total, [5.0, 14.0, 104.0]),
        (each, [10.0, 10.0]),  # milliseconds from 100 to 1,000 and from there to 10,000
        (memory, [300.0, 309.0, 309.0]),
    ):
        assert [line.get_label() for line in axes.get_lines()] == ["eval", "ray-2"]
        for line in axes.get_lines():
            assert list(line.get_ydata()) == pytest.approx(wanted)
    save_figure(figure, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("way", ["stream", "one-prompt", "score", "command", "parquet"])
def test_every_way_scores_every_row(
    way: str,
    written: dict[int, Path],
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
    scale_run.WAYS[way]({"rows": str(written[10]), "model": str(model), "to": to})
    assert len(seen) == 10
    if way != "one-prompt":
        assert seen == [json.loads(line)["prompt"] for line in written[10].read_text().splitlines()]


def test_eval_scores_every_image_of_whole_groups(
    written: dict[int, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    to = str(tmp_path / "report")
    scale_run.WAYS["eval"]({"rows": str(written[10]), "model": str(model), "to": to})
    report = json.loads((tmp_path / "report.json").read_text())
    text = json.dumps(report)
    for row in _rows(written[10])[:8]:
        assert Path(row["image"]).name in text


@pytest.mark.slow  # another process loads torch
def test_a_way_is_measured_in_a_process_of_its_own_and_once(
    written: dict[int, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scale.run_way("stream", written[4], str(model), tmp_path / "run")
    assert found["seconds"] > 0
    assert found["cpu_seconds"] > 0
    assert found["peak_bytes"] > 50e6  # Python with torch
    monkeypatch.setattr(sys, "executable", "nothing")
    assert scale.run_way("stream", written[4], str(model), tmp_path / "run") == found
    with pytest.raises(ValueError, match="not shapes: give another --workdir"):
        scale.run_way("stream", written[4], "shapes", tmp_path / "run")


def test_the_end_of_a_failed_processs_output_is_in_the_error(
    written: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho no such model >&2\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    with pytest.raises(RuntimeError, match=r"stream of .* exit status 3:\nno such model"):
        scale.run_way("stream", written[4], "none", tmp_path / "run")


def test_unknown_ways_are_refused(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(scale.scale)
    done = CliRunner().invoke(app, ["--workdir", str(tmp_path / "none"), "--way", "nobody"])
    assert done.exit_code == 2
    assert "nobody" in done.output
    assert not (tmp_path / "none").exists()
