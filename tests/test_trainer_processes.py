"""A training started by torchrun on CPUs, with nothing told to accelerate, is one training."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.children import child_environment
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
        data(), CONFIG, out=out, validation=ranked_groups(3, seed=1), scorer=tiny_clip(),
        resume=resume, progress=False,
    )  # fmt: skip


def assert_near(one: Scorer, other: Scorer) -> None:
    others = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, others[name], rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_train_one_model_that_one_process_goes_on_with(tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         __file__, str(both)],
        env=child_environment(),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("gone.png: there is no such file") == 1
    assert done.stderr.count("1 distinct images could not be used") == 1
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


if __name__ == "__main__":
    run(Path(sys.argv[1]))
