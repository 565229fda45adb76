"""Small ranked groups of random pictures, and how a child process trains on them."""

import numpy as np

from stablepref.data.groups import RankedGroup
from stablepref.recipes import TrainConfig

SMALL = TrainConfig(
    name="small",
    steps=6,
    order_steps=2,
    warmup_steps=1,
    batch_size=5,
    learning_rate=1e-3,
    image_blocks=1,
    text_blocks=1,
    views=2,
    checkpoint_every=2,
    log_every=1,
    workers=1,
    mixed_precision="no",  # exact, whatever the CPU multiplies
)


def ranked_groups(count: int = 4, *, seed: int = 0) -> list[RankedGroup]:
    """Groups of two to four pictures of different sizes; some ranks are tied."""
    rng = np.random.default_rng(seed)
    groups = []
    for number in range(count):
        images = [
            rng.integers(0, 256, (int(rng.integers(40, 90)), 64, 3), dtype=np.uint8)
            for _ in range(2 + number % 3)
        ]
        ranks = [1, 2, 2, 4][: len(images)]
        groups.append(RankedGroup(f"picture number {number}", tuple(images), tuple(ranks)))
    return groups
