"""How much the ablations have to compute, counted beforehand, and how fast this machine is."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from ..people.settings import SETTINGS
from ..world.perturbations import PERTURBATIONS
from .towers import mixed, plain_attention

if TYPE_CHECKING:
    from stablepref.models.clip import CLIPScorer

    from .cells import Cell
    from .world import World

BACKWARD: Final = 3
"""Forward and backward pass cost three times a forward pass (Kaplan et al. 2020, section 2.1)."""
_MEASURED_IMAGES: Final = 32
_REPEATS: Final = 3
_MINUTE: Final = 60


class Tower(NamedTuple):
    """Size of an image tower.

    Attributes:
        blocks: How many.
        tokens: Patches and the class token.
        width: Of each.
    """

    blocks: int
    tokens: int
    width: int

    def per_block(self) -> int:
        """Floating-point operations of a block's forward pass on one image.

        A block has 12 width² weights, of which each takes two operations for each token; the
        products of queries, keys and values take 4 tokens² width. The text tower, which runs once
        for each prompt, is left out: it is a tenth of that or less.
        """
        return 24 * self.tokens * self.width**2 + 4 * self.tokens**2 * self.width


def tower_of(scorer: CLIPScorer) -> Tower:
    """Size of a model's image tower."""
    positions = scorer.model.visual.positional_embedding
    return Tower(len(scorer.towers().image.blocks), positions.shape[0], positions.shape[1])


def step_views(world: World, cell: Cell) -> float:
    """Images and views that a step of a cell encodes, on average."""
    config = cell.config
    images = world.mean_images(cell.setting, config.batch_size, config.batching)
    return images * (1 + config.views)


def cell_work(world: World, cell: Cell) -> float:
    """Floating-point operations of a cell's training and measurements."""
    per_image = world.suite.image_blocks * tower_of(world.scorers[cell.model]).per_block()
    counts = {
        split: sum(len(group.images) for group in world.groups(cell.setting, split))
        for split in ("validation", "test")
    }
    both = sum(len(group.images) for name in SETTINGS for group in world.groups(name, "test"))
    measured = len(cell.watched) * counts["validation"]
    measured += len(cell.tested) * (both + counts["validation"])
    measured += len(cell.disturbed) * counts["test"] * (1 + len(PERTURBATIONS))
    trained = cell.last * step_views(world, cell)
    return per_image * (BACKWARD * trained + measured)


def measured_speed(scorer: CLIPScorer, precision: str) -> float:
    """Floating-point operations a second, of training one image block; takes a few seconds."""
    tower = tower_of(scorer)
    block = copy.deepcopy(scorer.towers().image.blocks[-1]).requires_grad_(True)
    tokens = torch.randn(_MEASURED_IMAGES, tower.tokens, tower.width, device=scorer.device)
    wanted = [tokens.requires_grad_(), *block.parameters()]
    seconds = []
    with plain_attention(scorer.device):
        for _ in range(1 + _REPEATS):  # the first is warm-up
            began = time.perf_counter()
            with mixed(scorer.device, precision):
                found = block(tokens)
            gradients = torch.autograd.grad(found.sum(), wanted)
            gradients[0].sum().item()  # waits for an accelerator
            seconds.append(time.perf_counter() - began)
    return BACKWARD * tower.per_block() * _MEASURED_IMAGES / min(seconds[1:])


def duration(seconds: float) -> str:
    """A duration as text: `5 h 10 min`, `3 min` or `20 s`."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / _MINUTE), _MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
