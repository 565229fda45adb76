"""Results files on the command line: killed, interrupted, resumed, refused."""

import csv
import io
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commandline import run, write_manifest
from helpers.forked import Command, command
from helpers.tiny import tiny_clip

from stablepref.images.decoding import decode
from stablepref.images.sources import Source
from stablepref.scoring import batching as pipeline

READ_AHEAD = 40  # rows that a run reads, in batches of 4, before it has results for them; plenty


@contextmanager
def endless(manifest: Path, lines: list[bytes]) -> Iterator[None]:
    """A pipe in the manifest's place, that holds these lines and does not end after them.

    A command that reads it is never done, however slow this process is to look what it does.
    """
    manifest.unlink(missing_ok=True)
    os.mkfifo(manifest)
    pipe = os.open(manifest, os.O_RDWR)  # does not wait for a reader
    try:
        assert os.write(pipe, b"".join(lines)) == sum(map(len, lines))
        yield
    finally:
        os.close(pipe)
        manifest.unlink()


def wait_for_lines(path: Path, count: int, process: Command) -> None:
    """Return once a file has so many lines, or the process that writes it has ended."""
    while process.poll() is None and _content(path).count(b"\n") < count:
        time.sleep(0.002)


def test_a_killed_run_resumes_without_scoring_twice(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    rows = write_manifest(tmp_path, pictures, 60)
    lines = rows.read_bytes().splitlines(keepends=True)
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    arguments = ["score", rows, "-s", model, "--batch-size", 4, "--out"]
    assert run(*arguments, whole).returncode == 1
    partial = out.with_name("out.jsonl.partial")
    rng = np.random.default_rng()  # another moment in every test run
    kept = b""
    for fed in (100, 200, 300):
        target = int(rng.integers(kept.count(b"\n") + 1, fed - READ_AHEAD))
        with endless(rows, lines[:fed]), command(*arguments, out) as process:
            wait_for_lines(partial, target, process)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not out.exists()
        after = _content(partial)
        whole_lines = kept[: kept.rfind(b"\n") + 1]
        assert after.startswith(whole_lines)  # nothing that was done is done again or lost
        assert len(after) > len(kept)
        kept = after
    with partial.open("a") as file:
        file.write('{"index": 9999, "ima')  # killed in the middle of a line
    rows.write_bytes(b"".join(lines))
    done = kept.count(b"\n") - 1
    last = run(*arguments, out)
    assert last.returncode == 1
    assert f"has {done} results already" in last.stderr
    assert not partial.exists()
    found, expected = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (out, whole)
    )
    assert [row["index"] for row in found] == list(range(360))
    # Other batches round otherwise in the last digits.
    scores = [row.pop("score") for row in expected]
    assert [row.pop("score") for row in found] == pytest.approx(scores, abs=1e-4)
    assert found == expected


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are decoded from now on."""
    names: list[str] = []

    def counted(source: Source) -> object:
        names.append(source.name)
        return decode(source)

    monkeypatch.setattr(pipeline, "decode", counted)
    return names


def test_a_resumed_run_decodes_only_the_rest(
    model: Path, pictures: list[Path], tmp_path: Path, decoded: list[str]
) -> None:
    out, partial = tmp_path / "out.csv", tmp_path / "out.csv.partial"
    arguments = ["score", *pictures, "-p", "a cat", "-s", model, "--dtype", "float32"]
    arguments += ["--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", _stop)
        assert run(*arguments).returncode == 130
    header, *_ = partial.read_text().splitlines()
    partial.unlink()
    decoded.clear()
    assert run(*arguments).returncode == 0
    assert decoded == [str(path) for path in pictures]
    whole = list(csv.DictReader(io.StringIO(out.read_text())))
    rows = [
        {**row, "index": int(row["index"]), "score": float(row["score"]), "error": None}
        for row in whole[:4]
    ]
    out.unlink()
    decoded.clear()
    partial.write_text("\n".join([header, *map(json.dumps, rows)]) + "\n")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert decoded == [str(path) for path in pictures[4:]]
    resumed = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["image"] for row in resumed] == [row["image"] for row in whole]
    assert resumed[:4] == whole[:4]


def test_all_done_but_the_renaming(
    model: Path, pictures: list[Path], tmp_path: Path, decoded: list[str]
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["score", *pictures, "nope.png", "-p", "a cat", "-s", model, "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", _stop)
        assert run(*arguments).returncode == 130
    assert not out.exists()
    decoded.clear()
    assert run(*arguments).returncode == 1
    assert decoded == []
    assert len(out.read_text().splitlines()) == 7


def _stop(*_: object) -> Path:
    raise KeyboardInterrupt


@pytest.mark.parametrize("changed", ["model", "views", "prompt", "images", "fewer"])
def test_a_partial_file_of_other_work_is_refused(
    model: Path, pictures: list[Path], tmp_path: Path, changed: str
) -> None:
    out = tmp_path / "out.csv"
    given = {"-p": "a cat", "-s": str(model), "--views": "0"}
    names = pictures

    def arguments() -> Iterator[object]:
        yield from ("score", *names, "--out", out)
        for option, value in given.items():
            yield from (option, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", _stop)
        assert run(*arguments()).returncode == 130
    before = out.with_name("out.csv.partial").read_bytes()
    if changed == "model":
        tiny_clip(name="other").save_pretrained(tmp_path / "other")
        given["-s"] = str(tmp_path / "other")
    elif changed == "views":
        given["--views"] = "1"
    elif changed == "prompt":
        given["-p"] = "a dog"
    else:
        names = pictures[::-1] if changed == "images" else pictures[:3]
    done = run(*arguments())
    assert done.returncode == 2
    assert "out.csv.partial" in done.stderr
    assert "delete it or choose another output" in done.stderr
    assert out.with_name("out.csv.partial").read_bytes() == before


@pytest.mark.parametrize("how", ["environment", "same folder", "same folder, other path"])
def test_results_of_two_models_of_one_name_are_not_mixed(
    model: Path, pictures: list[Path], tmp_path: Path, how: str
) -> None:
    """Models are known by their weights, not by what they or their folders are called."""
    out = tmp_path / "out.csv"
    folder = shutil.copytree(model, tmp_path / "model")
    arguments = ["score", *pictures, "-p", "a cat", "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", _stop)
        assert run(*arguments, STABLEPREF_MODEL=str(folder)).returncode == 130
    other = tiny_clip()
    with torch.no_grad():
        other.model.logit_scale.add_(1)
    changed = folder if how == "same folder" else tmp_path / "changed"
    if how == "same folder, other path":
        folder.rename(changed)
    else:
        other.save_pretrained(changed)
    done = run(*arguments, STABLEPREF_MODEL=str(changed))
    if how == "same folder, other path":
        assert done.returncode == 0
        assert "has 6 results already" in done.stderr
    else:
        assert done.returncode == 2
        assert "delete it or choose another output" in done.stderr


def test_a_finished_file_given_again_leaves_nothing_to_do(
    model: Path, pictures: list[Path], tmp_path: Path, decoded: list[str]
) -> None:
    out = tmp_path / "out.csv"
    arguments = ["score", *pictures, "-p", "a cat", "-s", model, "--out", out]
    assert run(*arguments).returncode == 0
    before = out.read_bytes()
    decoded.clear()
    done = run(*arguments)
    assert done.returncode == 0
    assert done.stderr == f"{out} is complete: nothing to do\n"
    assert decoded == []
    assert out.read_bytes() == before


def test_a_finished_file_with_images_that_failed_says_so_again(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    arguments = ["score", *pictures, "none.png", "-p", "a cat", "-s", model, "--out", out]
    assert run(*arguments).returncode == 1
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr == f"{out} is complete: nothing to do\n1 of 7 could not be scored\n"


@pytest.mark.parametrize("changed", ["images", "prompt", "views", "model", "content", "record"])
def test_a_finished_file_of_other_work_stays(
    changed: str, model: Path, pictures: list[Path], tmp_path: Path, decoded: list[str]
) -> None:
    out = tmp_path / "out.csv"
    assert run("score", *pictures, "-p", "a cat", "-s", model, "--out", out).returncode == 0
    if changed == "content":
        with out.open("a") as file:
            file.write("own notes\n")
    elif changed == "record":
        out.with_name(".out.csv.made").unlink()
    elif changed == "model":
        other = tiny_clip(name="other")
        other.save_pretrained(tmp_path / "other")
    before = out.read_bytes()
    decoded.clear()
    done = run(
        "score",
        *(pictures[1:] if changed == "images" else pictures),
        *("-p", "a dog" if changed == "prompt" else "a cat"),
        *("-s", tmp_path / "other" if changed == "model" else model),
        *("--views", 2 if changed == "views" else 0),
        *("--out", out),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --out {out} exists already and is complete, ")
    assert "delete it to score again, or choose another --out" in done.stderr
    assert decoded == []
    assert out.read_bytes() == before


def test_two_at_once_lose_nothing(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    """The second says at once that the first is writing; the first ends with every row."""
    rows = write_manifest(tmp_path, pictures, 40)
    lines = rows.read_bytes().splitlines(keepends=True)
    out = tmp_path / "out.jsonl"
    partial = out.with_name("out.jsonl.partial")
    arguments = ["score", rows, "-s", model, "--batch-size", 4, "--out", out]
    with endless(rows, lines), command(*arguments) as first:
        wait_for_lines(partial, 20, first)
        with command(*arguments) as second:
            second.wait(timeout=120)
            assert second.returncode == 2
            stderr = second.stderr()
        assert stderr.startswith(f"error: {out} is being written by another process: wait")
        assert first.poll() is None
        wait_for_lines(partial, 60, first)
        first.send_signal(signal.SIGKILL)
    kept = partial.read_bytes().count(b"\n") - 1
    rows.write_bytes(b"".join(lines))
    last = run(*arguments)
    assert f"has {kept} results already" in last.stderr
    assert len(out.read_text().splitlines()) == len(lines)


def test_interrupting_keeps_what_is_done(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    rows = write_manifest(tmp_path, pictures, 40)
    lines = rows.read_bytes().splitlines(keepends=True)
    out = tmp_path / "out.jsonl"
    partial = out.with_name("out.jsonl.partial")
    arguments = ["score", rows, "-s", model, "--batch-size", 4, "--out", out]
    with endless(rows, lines), command(*arguments) as process:
        wait_for_lines(partial, 20, process)
        process.send_signal(signal.SIGINT)
        process.wait()
        stderr = process.stderr()
    assert process.returncode == 130, stderr
    kept = _content(partial).count(b"\n") - 1
    assert f"{kept} results are kept in {partial}" in stderr
    assert "Traceback" not in stderr
    assert not out.exists()
