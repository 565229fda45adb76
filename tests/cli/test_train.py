"""`stablepref train` as a user meets it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.commandline import run
from helpers.forked import command, launch
from helpers.splits import make_split

import stablepref
from stablepref.cli.main import main
from stablepref.recipes import RECIPES, TrainConfig

QUICK = (
    *("--steps=4", "--order-steps=2", "--warmup-steps=0", "--batch-size=3"),
    *("--image-blocks=1", "--text-blocks=1", "--views=1"),
    *("--checkpoint-every=2", "--log-every=1"),
    "--mixed-precision=no",  # exact, whatever the CPU multiplies
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_split(tmp_path / "train", [[1, 2, 3], [4, 5, 6]], [(1, 2, 2), (2, 1, 3)])


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_model_is_trained_resumed_evaluated_and_loaded(
    data: Path, model: Path, tmp_path: Path
) -> None:
    held_out = make_split(tmp_path / "held out", [[7, 8], [9, 10]], [(1, 2), (2, 1)])
    out = tmp_path / "run"
    arguments = ["train", "--data", data, "--validation", held_out, "--model", model, "--name",
                 "mine", "--out", out, *QUICK]  # fmt: skip
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"trained: {out}/last, {out}/best" in done.stderr
    assert [row["step"] for row in metrics(out) if "loss" in row] == [1, 2, 3, 4]
    last = stablepref.load(out / "last")
    assert last.name == "mine"
    weight = "model.visual.proj"
    assert not torch.equal(last.state_dict()[weight], stablepref.load(model).state_dict()[weight])

    AcceleratorState._reset_state(reset_partial_state=True)
    again = run(*arguments)
    assert again.returncode == 2
    assert "holds a training already; resume it" in again.stderr
    assert run(*arguments, "--resume").returncode == 0

    evaluated = run("eval", held_out, "--scorer", out / "best", "--json")
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--recipe", "sp"], "there is no recipe 'sp'; expected one of sp-clip-l, "),
        (["--steps", "0"], "steps is 0; expected more than 0"),
        (["--steps", "many"], "steps is 'many'; expected a whole number"),
        (
            ["--loss", "mse"],
            "loss is 'mse'; expected 'stable-preference', 'cross-entropy' or 'uncertainty'",
        ),
        (["--batch-size", "500"], "pairs of images of different rank"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--mixed-precision", "fp16"], "fp16 needs a GPU"),
        (["--learning-rate", "1e30", "--order-steps", "0"], "the loss of step 2 is"),
    ],
)
def test_what_cannot_work_is_one_line(
    data: Path, model: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    done = run("train", "--data", data, "--model", model, "--out", tmp_path / "run", *QUICK,
               *arguments)  # fmt: skip
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert told in last
    assert not (tmp_path / "run" / "last").exists()


def test_broken_images_are_counted_and_the_others_trained_on(
    data: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = data.read_text().splitlines()
    row = json.loads(lines[0])
    row["images"][1] = "nowhere.png"
    data.write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
    done = run("train", "--data", data, "--model", model, "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "nowhere.png" in caplog.text
    assert all(row["pairs"] >= 1 for row in metrics(tmp_path / "run"))


def test_sigterm_saves_and_the_exit_code_says_so(data: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [
        "train",
        "--data",
        data,
        "--model",
        model,
        "--out",
        out,
        *QUICK,
        "--steps",
        100_000,
    ]
    with command(*arguments) as process:
        while not list(out.glob("checkpoints/step-*")):
            assert process.poll() is None, process.stderr()
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait()
        stderr = process.stderr()
    assert process.returncode == 143
    assert (found := re.search(r"stopped after step (\d+); resume to continue from there", stderr))
    steps = {int(path.name[-8:]) for path in out.glob("checkpoints/step-*")}
    assert max(steps) == int(found[1]) == metrics(out)[-1]["step"]


def child(folder: Path, words: list[str]) -> None:
    """The command line in one of the processes, with a file for its standard error."""
    with (folder / f"stderr-{os.environ['RANK']}").open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = ["stablepref", *words]
    main()


def launched(folder: Path, words: list[str]) -> str:
    """Standard error of two processes that are told what torchrun tells its own."""
    launch(child, folder, words, processes=2)
    return "".join((folder / f"stderr-{rank}").read_text() for rank in range(2))


def by_torchrun(folder: Path, words: list[str]) -> str:
    """Standard error of torchrun and its two processes, which import all anew."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, "-m", "stablepref", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("start", [launched, pytest.param(by_torchrun, marks=pytest.mark.slow)])
def test_two_processes_write_one_training(
    start: Callable[[Path, list[str]], str], data: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["train", "--data", data, "--model", model, "--out", out, *QUICK]
    stderr = start(tmp_path, [str(one) for one in arguments])
    assert stderr.count("trained: ") == 1
    both = metrics(out)
    assert [row["step"] for row in both] == [1, 2, 3, 4]
    alone = tmp_path / "alone"
    assert run("train", "--data", data, "--model", model, "--out", alone, *QUICK).returncode == 0
    losses = [row["loss"] for row in metrics(alone)]
    assert [row["loss"] for row in both] == pytest.approx(losses, rel=1e-4)


def test_every_setting_is_an_option() -> None:
    listed = run("train", "--help", COLUMNS="200").stdout
    for field in fields(TrainConfig):
        assert f"--{field.name.replace('_', '-')} " in listed
    for name in RECIPES:
        assert name in listed
