"""A fine-tuning in two processes is one fine-tuning."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.children import child_environment
from helpers.tiny_finetune import PROMPTS, SIDE, bright, noisy_pipeline, pipeline, quick
from safetensors.torch import load_file

from stablepref.data.groups import RankedGroup
from stablepref.integrations.finetune.run import finetune

CASES: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in ("draft", "refl", "ddpo", "nft", "grpo", "dpo")},
    "grpo of flow matching": {"method": "grpo", "sampling_steps": 3},
    # Whose normaliser is over the pairs of both.
    "dpo by margin": {"method": "dpo", "dpo_weights": "margin", "dpo_beta": 30.0},
    "all weights, averaged": {"method": "nft", "rank": 0, "ema": 0.5, "learning_rate": 1e-3},
}


def run(out: Path, case: str) -> None:
    pipe = pipeline("sd3") if "flow" in case else noisy_pipeline()
    given = {"steps": 2, "pictures_per_prompt": 2, "learning_rate": 0.01, "ema": 0.0}
    config = quick(**{**given, **CASES[case]})
    groups = None
    if config.method == "dpo":
        noise = np.random.default_rng(0)
        pictures = [noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(4)]
        groups = [RankedGroup(PROMPTS[0], tuple(pictures), (1, 2, 2, 4))]
    finetune(pipe, PROMPTS, bright(pipe), config, out=out, groups=groups, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_same_weights(case: str, tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         __file__, str(both), case],
        env=child_environment(),
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run(alone, case)
    found, wanted = (
        [json.loads(line) for line in (folder / "metrics.jsonl").open()] for folder in (both, alone)
    )
    for one, other in zip(found, wanted, strict=True):
        for name in ("reward", "reward_std", "sample_reward", "margin", "accuracy"):
            assert one.get(name) == pytest.approx(other.get(name), abs=1e-4)
    rate = CASES[case].get("learning_rate", 0.01)
    name = "denoiser/diffusion_pytorch_model" if "all" in case else "lora/pytorch_lora_weights"
    ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (both, alone))
    before = noisy_pipeline().unet.state_dict() if "all" in case else {}
    moved = [
        v - before.get(name, 0)
        for name, v in theirs.items()
        if before or "lora_B" in name or "lora.up" in name
    ]
    assert max(float(value.abs().max()) for value in moved) > rate / 2
    far = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in theirs])
    # Adam moves by the learning rate wherever the sign of a gradient is rounding.
    assert (far > rate / 10).float().mean() < 0.02


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
