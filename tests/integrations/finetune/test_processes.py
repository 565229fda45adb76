"""A fine-tuning in two processes is one fine-tuning."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.children import child_environment
from helpers.tiny_finetune import PROMPTS, SIDE, bright, noisy_pipeline, quick
from safetensors.torch import load_file

from stablepref.data.groups import RankedGroup
from stablepref.integrations.finetune.run import finetune


def run(out: Path, method: str) -> None:
    pipe = noisy_pipeline()
    config = quick(method=method, steps=2, pictures_per_prompt=2, learning_rate=0.01, ema=0.0)
    groups = None
    if method == "dpo":
        noise = np.random.default_rng(0)
        pictures = [noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(4)]
        groups = [RankedGroup(PROMPTS[0], tuple(pictures), (1, 2, 2, 4))]
    finetune(pipe, PROMPTS, bright(pipe), config, out=out, groups=groups, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["draft", "ddpo", "nft", "grpo", "dpo"])
def test_two_processes_train_the_same_weights(method: str, tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         __file__, str(both), method],
        env=child_environment(),
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run(alone, method)
    found, wanted = (
        [json.loads(line) for line in (folder / "metrics.jsonl").open()] for folder in (both, alone)
    )
    for one, other in zip(found, wanted, strict=True):
        for name in ("reward", "reward_std", "sample_reward", "margin", "accuracy"):
            assert one.get(name) == pytest.approx(other.get(name), abs=1e-4)
    ours, theirs = (
        load_file(folder / "lora" / "pytorch_lora_weights.safetensors") for folder in (both, alone)
    )
    assert max(float(v.abs().max()) for name, v in theirs.items() if "up" in name) > 0.005
    far = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in theirs])
    # Adam moves by the learning rate wherever the sign of a gradient is rounding.
    assert (far > 1e-3).float().mean() < 0.02


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
