"""A training that is killed, stopped or damaged goes on to the same weights."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from helpers.forked import start
from helpers.ranked import SMALL, ranked_groups
from helpers.tiny import tiny_clip

from stablepref.trainer import train
from stablepref.training import resume
from stablepref.training.resume import checkpoint_of

CONFIG = replace(SMALL, steps=24, checkpoint_every=1, validate_every=3, log_every=1)
KILLS = 10


def run(folder: Path) -> None:
    """Begin the training in a folder, or go on with it."""
    train(
        ranked_groups(),
        CONFIG,
        out=folder,
        validation=ranked_groups(2, seed=1),
        scorer=tiny_clip(text_width=16),
        resume=True,
        progress=False,
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_die_while_sealing(folder: Path) -> None:
    """Die with a checkpoint's files written and their hashes not."""
    resume._seal = lambda *_: die()  # type: ignore[assignment]
    run(folder)


def run_and_die_before_the_move(folder: Path) -> None:
    """Die with a complete checkpoint that has not been moved to its place."""
    seal = resume._seal

    def sealed(*given: object) -> None:
        seal(*given)  # type: ignore[arg-type] # passed through
        die()

    resume._seal = sealed  # type: ignore[assignment]
    run(folder)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training without a break."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(run, folder)
    process.join()
    assert process.exitcode == 0
    return folder


def assert_same(folder: Path, whole: Path) -> None:
    """Bitwise the same models, and the same rows but for the speed."""
    for name in ("last", "best"):
        one, other = (f / name / "model.safetensors" for f in (folder, whole))
        assert one.read_bytes() == other.read_bytes(), name
    one, other = ([_without_speed(line) for line in (f / "metrics.jsonl").open()]
                  for f in (folder, whole))  # fmt: skip
    assert one == other


def _without_speed(line: str) -> str:
    return line.partition('"images_per_second"')[0]


def rows_in(folder: Path) -> int:
    """Rows of metrics.jsonl, written steps and validations."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def newest_in(folder: Path) -> int:
    """The step of the newest checkpoint, 0 without any."""
    found = [int(path.name[-8:]) for path in (folder / "checkpoints").glob("step-*")]
    return max(found, default=0)


def kill_after(process: BaseProcess, folder: Path, rows: int, seconds: float) -> None:
    """Kill a training once metrics.jsonl has so many rows, and some seconds later."""
    while process.is_alive() and rows_in(folder) < rows:
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    process.join()


def test_killed_at_ten_random_moments(uninterrupted: Path, tmp_path: Path) -> None:
    """Rows written, not time, decide when to kill, so that slow machines kill as often."""
    rng = random.Random(0)
    reached = []
    for _ in range(KILLS):
        process = start(run, tmp_path)
        kill_after(process, tmp_path, rows_in(tmp_path) + rng.randint(1, 3), rng.uniform(0, 0.03))
        assert process.exitcode == -signal.SIGKILL
        reached.append(newest_in(tmp_path))
    assert reached == sorted(reached)
    inside = [step for step in reached if 0 < step < CONFIG.steps]
    assert len(inside) >= KILLS - 2
    assert len(set(inside)) >= KILLS // 2
    process = start(run, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert_same(tmp_path, uninterrupted)


@pytest.mark.parametrize("moment", [run_and_die_while_sealing, run_and_die_before_the_move])
def test_killed_during_a_checkpoint(
    uninterrupted: Path, tmp_path: Path, moment: Callable[[Path], None]
) -> None:
    """During the first one, and with checkpoints from before, the last of which is then used."""
    for _ in range(2):
        process = start(moment, tmp_path)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not list((tmp_path / "checkpoints").glob("step-*"))
    process = start(run, tmp_path)
    kill_after(process, tmp_path, 4, 0)
    before = newest_in(tmp_path)
    assert 0 < before < CONFIG.steps
    process = start(moment, tmp_path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert newest_in(tmp_path) == before
    assert len(list((tmp_path / "checkpoints").glob(".step-*.writing"))) == 1
    process = start(run, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert_same(tmp_path, uninterrupted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_asked_to_stop_it_saves_first(
    uninterrupted: Path, tmp_path: Path, number: int, code: int
) -> None:
    process = start(run, tmp_path)
    while not list(tmp_path.glob("checkpoints/step-*")):
        time.sleep(0.005)
    os.kill(process.pid or 0, number)
    process.join()
    assert process.exitcode == code
    assert (tmp_path / "last" / "config.json").exists()
    process = start(run, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert_same(tmp_path, uninterrupted)


def test_after_a_damaged_checkpoint_the_one_before_is_used(
    uninterrupted: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = start(run, tmp_path)
    while not list(tmp_path.glob("checkpoints/step-0000000[3-9]")):
        time.sleep(0.005)
    process.terminate()
    process.join()
    newest = max(tmp_path.glob("checkpoints/step-*"))
    with (newest / "optimizer.bin").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff")
    found, _ = resume.newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == int(newest.name[-8:]) - 1
    checkpoint_of(tmp_path, found.state["described"], resume=True)
    assert f"{newest} is damaged: optimizer.bin changed" in caplog.text
    assert "going back to the one before" in caplog.text
    process = start(run, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert_same(tmp_path, uninterrupted)


def test_with_no_whole_checkpoint_nothing_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    with pytest.raises(ValueError, match="no checkpoint in"):
        run(tmp_path)
