"""What the laboratory's trainings share."""

import pytest
import torch

from stablepref.benchmarks.shapes.clip.train import TrainConfig
from stablepref.benchmarks.shapes.clip.training_files import set_learning_rate


def test_all_optimisers_get_the_rate_of_the_step() -> None:
    one, two = (
        torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=9)
        for _ in range(2)
    )
    config = TrainConfig(steps=100, warmup=4, learning_rate=0.8)
    # A linear rise over the warm-up, then a cosine to zero: half of the peak in its middle.
    for step, rate in ((0, 0.2), (3, 0.8), (52, 0.4)):
        set_learning_rate([one, two], config, step)
        rates = [group["lr"] for optimizer in (one, two) for group in optimizer.param_groups]
        assert rates == pytest.approx([rate] * 4, rel=0.05)
