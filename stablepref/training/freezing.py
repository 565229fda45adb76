"""Which weights a training moves: the last blocks of each tower and what follows them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stablepref.scorer import Scorer


def freeze(
    scorer: Scorer,
    *,
    image_blocks: int | None,
    text_blocks: int | None,
    train_logit_scale: bool = True,
) -> list[str]:
    """Let only the last blocks of each tower, and what follows them, receive gradients.

    The frozen part comes first in each tower, so that it runs without building a graph.

    Args:
        scorer: A model with two towers; the change stays with it.
        image_blocks: Blocks to train, counted from the last, beside the last norm and the
            projection; 0 trains these alone, None the whole tower. (open_clip's own `lock` counts
            the projection as a block: its `lock(n)` trains n - 1.)
        text_blocks: Likewise for the text tower.
        train_logit_scale: Whether the logit scale is trained, where the model has one.

    Returns:
        The names of the trained parameters, in the model's order.

    Raises:
        ValueError: A tower has fewer blocks, or the scorer has no towers.
    """
    pairs = zip(("image", "text"), scorer.towers(), (image_blocks, text_blocks), strict=True)
    scorer.requires_grad_(False)
    for name, tower, count in pairs:
        if count is not None and not 0 <= count <= len(tower.blocks):
            raise ValueError(
                f"{name}_blocks is {count}, but the {name} tower of {scorer.name} has "
                f"{len(tower.blocks)} blocks; expected 0 to {len(tower.blocks)}, or None for the "
                "whole tower"
            )
        trained = tower.blocks[len(tower.blocks) - count :] if count is not None else tower.blocks
        for part in chain(() if count is not None else tower.first, trained, tower.last):
            if part is not None:
                part.requires_grad_(True)
    if scorer.log_scale is not None:
        scorer.log_scale.requires_grad_(train_logit_scale)
    return [name for name, weight in scorer.named_parameters() if weight.requires_grad]


def summary(names: Iterable[str]) -> list[str]:
    """Parameter names with the numbers of blocks gathered: ``model.visual...resblocks.14-31``."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for name in names:
        before, number, after = _split(name)
        numbers.setdefault((before, "" if number is not None else after), [])
        if number is not None:
            numbers[before, ""].append(number)
    return [
        f"{before}{min(found)}-{max(found)}" if found else f"{before}{after}"
        for (before, after), found in numbers.items()
    ]


def _split(name: str) -> tuple[str, int | None, str]:
    """A parameter's name around its block's number, if it is in a block."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.isdigit() and parts[index - 1] in ("resblocks", "blocks", "layers"):
            before = ".".join(parts[:index]) + "."
            return before, int(part), ".".join(parts[index + 1 :])
    return "", None, name
