"""A fine-tuning that is killed or stopped goes on to the same weights."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.forked import start
from helpers.tiny_finetune import PROMPTS, bright, pipeline, quick

from stablepref.data.groups import RankedGroup
from stablepref.integrations.finetune.methods import METHODS
from stablepref.integrations.finetune.run import finetune

KILLS = 3
STEPS = 6


def run(folder: Path, method: str, kind: str = "sd") -> None:
    """Begin the training in a folder, or go on with it."""
    pipe = pipeline(kind)
    groups = None if method != "dpo" else [RankedGroup("a dog", (shade(0), shade(255)), (1, 2))]
    config = quick(
        method=method,
        rank=0 if method == "nft" else 4,
        steps=STEPS,
        batch_size=2,
        pictures_per_prompt=2,
        guidance=1.0,
        learning_rate=0.1,
        checkpoint_every=1,
        sample_every=3,
        pictures_per_sample=1,
    )
    finetune(
        pipe, PROMPTS, bright(pipe, views=1), config, out=folder, groups=groups, progress=False
    )


def shade(level: int) -> torch.Tensor:
    """A picture of one grey."""
    return torch.full((3, 16, 16), level, dtype=torch.uint8)


def lines(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl but for the speed; half a row is none."""
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in found]


def assert_same(folder: Path, whole: Path) -> None:
    """Bitwise the same weights, at each look at the samples too, and the same metrics."""
    every = [
        path for path in sorted(whole.rglob("*.safetensors")) if "checkpoints" not in path.parts
    ]
    assert every
    for found in every:
        other = folder / found.relative_to(whole)
        assert other.read_bytes() == found.read_bytes(), other
    assert lines(folder) == lines(whole)
    assert (folder / "finetune.json").read_text() == (whole / "finetune.json").read_text()


SLOW = [
    *((method, "sd") for method in METHODS if method != "draft"),
    *((method, "sd3") for method in ("nft", "grpo", "dpo")),
]


@pytest.mark.parametrize(
    ("method", "kind"),
    [("draft", "sd"), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_killed_at_random_moments(method: str, kind: str, tmp_path: Path) -> None:
    """Rows written, not time, decide when to kill, so that slow machines kill as often."""
    whole, folder = tmp_path / "whole", tmp_path / "broken"
    process = start(run, whole, method, kind)
    process.join()
    assert process.exitcode == 0
    rng = random.Random(method)
    for _ in range(KILLS):
        process = start(run, folder, method, kind)
        wanted = len(lines(folder)) + rng.randint(1, 2)
        while process.is_alive() and len(lines(folder)) < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert list(folder.glob("checkpoints/step-*"))
    process = start(run, folder, method, kind)
    process.join()
    assert process.exitcode == 0
    assert not list(folder.rglob(".*"))
    assert_same(folder, whole)


def test_asked_to_stop_it_saves_first(tmp_path: Path) -> None:
    process = start(run, tmp_path, "draft")
    while not list(tmp_path.glob("checkpoints/step-*")):
        time.sleep(0.005)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143
    assert not (tmp_path / "lora").exists()
    steps = [row["step"] for row in lines(tmp_path)]
    assert (tmp_path / "checkpoints" / f"step-{steps[-1]:08d}").is_dir()
    process = start(run, tmp_path, "draft")
    process.join()
    assert process.exitcode == 0
    assert [row["step"] for row in lines(tmp_path) if "reward" in row] == [*range(1, STEPS + 1)]


def test_compiled_and_plain_pipelines_take_up_each_others_work(tmp_path: Path) -> None:
    config = {"batch_size": 2, "checkpoint_every": 1, "sample_every": 5, "pictures_per_sample": 1}
    with torch.compiler.set_stance("force_eager"):
        for steps, wrap in ((1, True), (2, False), (3, True)):
            pipe = pipeline()
            if wrap:
                pipe.unet = torch.compile(pipe.unet, backend="eager")
                pipe.vae = torch.compile(pipe.vae, backend="eager")
            finetune(
                pipe, PROMPTS, bright(pipe), quick(steps=steps, **config), out=tmp_path,
                progress=False,
            )  # fmt: skip
            AcceleratorState._reset_state(reset_partial_state=True)
    assert [row["step"] for row in lines(tmp_path) if "reward" in row] == [1, 2, 3]
