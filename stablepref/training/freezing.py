"""Which weights a training moves: the last blocks of each tower and what follows them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from stablepref.models.blip import BLIPScorer, ImageRewardScorer
from stablepref.models.clip import CLIPScorer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stablepref.scorer import Scorer


class Tower(NamedTuple):
    """An encoder in the order of its computation.

    Attributes:
        first: What comes before the blocks.
        blocks: Its blocks, first to last.
        last: What follows them.
    """

    first: Sequence[nn.Module | nn.Parameter | None]
    blocks: Sequence[nn.Module]
    last: Sequence[nn.Module | nn.Parameter | None]


def towers(scorer: Scorer) -> tuple[Tower, Tower]:
    """The image and the text tower of a scorer that can be trained.

    Raises:
        ValueError: It has no two towers.
    """
    if isinstance(scorer, CLIPScorer):
        model = scorer.model
        visual = model.visual
        return (
            Tower(
                (visual.conv1, visual.class_embedding, visual.positional_embedding, visual.ln_pre),
                list(visual.transformer.resblocks),
                (visual.ln_post, visual.proj),
            ),
            Tower(
                (model.token_embedding, model.positional_embedding),
                list(model.transformer.resblocks),
                (model.ln_final, model.text_projection),
            ),
        )
    if isinstance(scorer, BLIPScorer | ImageRewardScorer):
        vision, text = scorer.vision, scorer.text
        embeddings = (text.word_embeddings, text.position_embeddings, text.norm)
        if isinstance(scorer, BLIPScorer):
            after: tuple[nn.Module, nn.Module] = scorer.vision_projection, scorer.text_projection
        else:
            after = nn.Identity(), scorer.head
        return (
            Tower(
                (vision.patch_embed, vision.cls_token, vision.pos_embed),
                list(vision.blocks),
                (vision.norm, after[0]),
            ),
            Tower(embeddings, list(text.layers), after[1:]),
        )
    raise ValueError(
        f"{scorer.name} is a {type(scorer).__name__}, which has no two towers to train; expected a "
        "CLIP, BLIP or ImageReward model"
    )


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
        train_logit_scale: Whether a CLIP model's logit scale is trained.

    Returns:
        The names of the trained parameters, in the model's order.

    Raises:
        ValueError: A tower has fewer blocks, or the scorer has no two towers.
    """
    pairs = zip(("image", "text"), towers(scorer), (image_blocks, text_blocks), strict=True)
    scorer.requires_grad_(False)
    for name, tower, count in pairs:
        if count is not None and not 0 <= count <= len(tower.blocks):
            raise ValueError(
                f"{name}_blocks is {count}, but the {name} tower of {scorer.name} has "
                f"{len(tower.blocks)} blocks; expected 0 to {len(tower.blocks)}, or none for the "
                "whole tower"
            )
        trained = tower.blocks[len(tower.blocks) - count :] if count is not None else tower.blocks
        for part in chain(() if count is not None else tower.first, trained, tower.last):
            if part is not None:
                part.requires_grad_(True)
    if isinstance(scorer, CLIPScorer):
        scorer.model.logit_scale.requires_grad_(train_logit_scale)
    return [name for name, weight in scorer.named_parameters() if weight.requires_grad]


def checkpoint_activations(scorer: Scorer) -> None:
    """Let the image tower, and CLIP's text tower, keep only each block's input for the backward.

    Raises:
        ValueError: The scorer has no two towers.
    """
    if isinstance(scorer, CLIPScorer):
        scorer.model.set_grad_checkpointing()
    elif isinstance(scorer, BLIPScorer | ImageRewardScorer):
        scorer.vision.set_grad_checkpointing()
    else:
        towers(scorer)


def summary(names: Iterable[str]) -> list[str]:
    """Parameter names with the blocks' numbers gathered: ``model.visual...resblocks.14-31``."""
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
