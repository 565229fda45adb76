"""`stablepref bench` on the command line: what it prints, writes and refuses."""

import csv
import io
import json
from pathlib import Path

import pytest
from helpers.bench_case import draw_finished
from helpers.commandline import Done, run
from helpers.isolated import BENCH_HELP, heavy_imports


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "words.csv"
    colours = ("red", "blue", "green", "white", "black")
    lines = [f"a {colour} circle,{'xy'[i % 2]}\n" for i, colour in enumerate(colours)]
    path.write_text("prompt,category\n" + "".join(lines))
    return path


def finished(folder: Path, name: str, *, broken: int | None = None) -> Path:
    return draw_finished(folder / name, broken=broken)


def bench(prompts: Path, *models: Path, out: Path, options: tuple[object, ...] = ()) -> Done:
    named = [part for model in models for part in ("--model", model)]
    return run("bench", prompts, *named, "--scorer", "shapes", "--out", out, *options)


def test_what_a_run_prints_and_writes(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    a, b = finished(tmp_path, "a"), finished(tmp_path, "b", broken=1)
    (b / "00003.png").unlink()
    done = bench(prompts, a, b, out=out)
    assert done.returncode == 1  # something could not be scored
    for heading in ("mean scores", "Mean scores by category", "Pairs", "Bradley-Terry"):
        assert heading in done.stdout
    assert "b 00001 image 0: " in done.stderr
    assert "has no image for the prompt 00003" in done.stderr
    assert "2 of 10 could not be scored" in done.stderr
    names = {path.name for path in out.iterdir()}
    tables = ("leaderboard", "categories", "pairs", "ranking", "scores", "failures")
    assert names == {f"{name}.csv" for name in tables} | {
        "leaderboard.md", "leaderboard.json", "run.json", "prompts.jsonl", "scores"
    }  # fmt: skip
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert len(rows) == 8
    failed = list(csv.DictReader((out / "failures.csv").open()))
    assert {row["prompt"] for row in failed if row["model"] == "b"} == {"00001", "00003"}
    summary = json.loads((out / "leaderboard.json").read_text())
    standing = {row["model"]: row for row in summary["standings"]}
    own = [float(row["shapes"]) for row in rows if row["model"] == "b"]
    assert standing["b"]["mean"] == pytest.approx(sum(own) / len(own))
    assert summary["pairs"][0]["prompts"] == 3


def test_formats(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    models = finished(tmp_path, "a", broken=None), finished(tmp_path, "b")
    printed = json.loads(bench(prompts, *models, out=out, options=("--json",)).stdout)
    assert printed == json.loads((out / "leaderboard.json").read_text())
    markdown = run("bench", "leaderboard", out, "--markdown").stdout
    assert markdown == (out / "leaderboard.md").read_text()
    table = run("bench", "leaderboard", out, "--csv", "--out", tmp_path / "again").stdout
    assert table == (out / "leaderboard.csv").read_text()
    assert (tmp_path / "again" / "pairs.csv").read_text() == (out / "pairs.csv").read_text()
    assert {row["model"] for row in csv.DictReader(io.StringIO(table))} == {"a", "b"}


def test_a_run_writes_its_report_if_asked(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    models = finished(tmp_path, "a"), finished(tmp_path, "b", broken=1)
    done = bench(prompts, *models, out=out, options=("--report", "--csv"))
    assert done.returncode == 1  # of the broken image, after the report
    assert "<title>Benchmark: words</title>" in (out / "report/index.html").read_text()
    assert str(out / "report/index.html") in done.stderr
    assert {row["model"] for row in csv.DictReader(io.StringIO(done.stdout))} == {"a", "b"}


def test_a_mended_image_is_scored_with_retry(prompts: Path, tmp_path: Path) -> None:
    out, a = tmp_path / "run", finished(tmp_path, "a", broken=2)
    assert bench(prompts, a, out=out).returncode == 1
    finished(tmp_path, "whole")
    (tmp_path / "whole" / "00002.png").replace(a / "00002.png")
    assert bench(prompts, a, out=out).returncode == 1
    assert bench(prompts, a, out=out, options=("--retry",)).returncode == 0
    assert bench(prompts, a, out=out).returncode == 0


def test_leaderboards_of_several_runs(prompts: Path, tmp_path: Path) -> None:
    for name in "ab":
        done = bench(prompts, finished(tmp_path, name), out=tmp_path / f"run-{name}")
        assert done.returncode == 0
    both = run("bench", "leaderboard", tmp_path / "run-a", tmp_path / "run-b", "--json")
    assert both.returncode == 0
    assert {(one["a"], one["b"]) for one in json.loads(both.stdout)["pairs"]} == {("a", "b")}
    (tmp_path / "run-a" / "leaderboard.json").unlink()
    early = run("bench", "leaderboard", tmp_path / "run-a")
    assert "run-a is not finished: these" in early.stderr
    twice = run("bench", "leaderboard", tmp_path / "run-a", tmp_path / "run-a")
    assert twice.returncode == 2
    assert "a is in two of the runs" in twice.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.csv"], "neither a file of prompts nor one of drawbench"),
        (["lab", "--json", "--csv"], "one of --json, --csv, not several"),
        (["words.csv", "--scorer", "shape"], "unknown model 'shape'"),
        (["geneval"], "name its file"),
    ],
)
def test_wrong_use(arguments: list[str], says: str, prompts: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    model = finished(tmp_path, "a")
    done = run("bench", *arguments, "--model", model, *out, cwd=prompts.parent)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "run").exists()


def test_wrong_models_and_runs(prompts: Path, tmp_path: Path) -> None:
    done = run("bench", prompts, "--model", "nowhere", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "there is no 'nowhere' here" in done.stderr
    done = run("bench", prompts, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "--model" in done.stderr
    done = run("bench", "leaderboard", tmp_path)
    assert done.returncode == 2
    assert "is not a run of a benchmark" in done.stderr


def test_options_may_come_before_the_prompts(prompts: Path, tmp_path: Path) -> None:
    model = finished(tmp_path, "a")
    options = ("--model", model, "--scorer", "shapes", "--out", tmp_path / "run")
    assert run("bench", *options, prompts).returncode == 0
    assert run("bench", "run", prompts, *options).returncode == 0


MISTAKES = (
    '"--help"',
    '"lab", "--model", "nowhere", "--out", "x"',
    '"lab", "--model", "user/x", "--scorer", "shape", "--out", "x"',
)


@pytest.mark.parametrize("arguments", MISTAKES)
def test_help_and_mistakes_need_no_torch(arguments: str, tmp_path: Path) -> None:
    assert heavy_imports(BENCH_HELP.format(arguments=arguments), tmp_path) == set()
