"""SigLIP 2 in training: stopped or killed, it goes on to the same weights."""

import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.forked import start
from helpers.ranked import SMALL, ranked_groups
from helpers.tiny_openclip import write_model

import stablepref
from stablepref.trainer import train
from stablepref.training.log import batch_metrics
from stablepref.training.step import StepResult

CONFIG = replace(
    SMALL, steps=5, order_steps=2, warmup_steps=0, image_blocks=1, text_blocks=1, checkpoint_every=1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SigLIP 2 in open_clip's layout."""
    return write_model("siglip2", tmp_path_factory.mktemp("siglip2") / "model")


def run(model: Path, out: Path) -> None:
    """Begin the training, or go on with it."""
    scorer = stablepref.load(model, device="cpu", dtype="float32")
    train(ranked_groups(), CONFIG, out=out, scorer=scorer, resume=True, progress=False)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The last weights of a training without a break."""
    out = tmp_path_factory.mktemp("whole")
    run(folder, out)
    return (out / "last" / "model.safetensors").read_bytes()


def test_stopped_and_resumed_to_the_same_weights(
    folder: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[StepResult] = []

    def stopped(result: StepResult) -> dict[str, float]:
        done.append(result)
        if len(done) == 3:
            signal.raise_signal(signal.SIGTERM)
        return batch_metrics(result)

    monkeypatch.setattr("stablepref.trainer.batch_metrics", stopped)
    with pytest.raises(SystemExit):
        run(folder, tmp_path)
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "step-00000003"
    monkeypatch.undo()
    run(folder, tmp_path)
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == whole


def test_killed_and_resumed_to_the_same_weights(folder: Path, whole: bytes, tmp_path: Path) -> None:
    process = start(run, folder, tmp_path)
    while process.is_alive() and not list(tmp_path.glob("checkpoints/step-0000000[2-4]")):
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run(folder, tmp_path)
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == whole
