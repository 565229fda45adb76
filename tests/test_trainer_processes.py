"""A training in two processes, as torchrun starts them on CPUs, is one training."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.forked import launch
from helpers.metrics import rows
from helpers.ranked import SMALL, ranked_groups
from helpers.tiny import tiny_clip

from stablepref.data.groups import RankedGroup
from stablepref.scorer import Scorer
from stablepref.trainer import train

CONFIG = replace(SMALL, keep_checkpoints=10)


def data() -> list[RankedGroup]:
    """One image cannot be read."""
    groups = ranked_groups()
    groups[1] = replace(groups[1], images=("gone.png", *groups[1].images[1:]))
    return groups


def run(out: Path, *, resume: bool = False) -> Scorer:
    return train(
        data(),
        CONFIG,
        out=out,
        validation=ranked_groups(3, seed=1),
        scorer=tiny_clip(text_width=16),
        resume=resume,
        progress=False,
    )


def child(out: Path, streams: Path) -> None:
    """One of the processes, with a file for its standard error."""
    with (streams / f"stderr-{os.environ['RANK']}").open("w") as file:
        os.dup2(file.fileno(), 2)
        run(out)


def assert_near(one: Scorer, other: Scorer) -> None:
    others = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, others[name], rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_train_one_model_that_one_process_goes_on_with(tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    launch(child, both, tmp_path, processes=2)
    stderr = "".join((tmp_path / f"stderr-{rank}").read_text() for rank in range(2))
    assert stderr.count("gone.png: there is no such file") == 1
    assert stderr.count("1 distinct images could not be used") == 1
    expected = run(alone)
    for name in ("loss", "validation_accuracy"):
        found, wanted = (
            [(row["step"], row[name]) for row in rows(folder) if name in row]
            for folder in (both, alone)
        )
        assert [step for step, _ in found] == [step for step, _ in wanted]
        assert [x for _, x in found] == pytest.approx([x for _, x in wanted], rel=1e-3)
    for step in (4, 6):
        checkpoint = both / "checkpoints" / f"step-{step:08d}"
        assert len(list(checkpoint.glob("random_states_*"))) == 2
        for path in (*checkpoint.iterdir(),):
            path.unlink()
        checkpoint.rmdir()
    assert_near(run(both, resume=True), expected)
