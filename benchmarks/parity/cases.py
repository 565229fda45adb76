"""Each model's official files with seeded weights, as both sides of the comparison read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, final

import torch
from safetensors.torch import save_file

from . import layouts
from .inputs import made_up_vocabulary
from .weights import seeded_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

TWO_BLOCKS = (2, 2)
CLIP_FILE = "open_clip_model.safetensors"
VOCABULARY_FILE = "vocab.txt"


@final
@dataclass(frozen=True)
class Case:
    """One model's official format.

    Attributes:
        layout: Names and shapes of the weights file, by numbers of vision and text blocks.
        blocks: The numbers of blocks that the published model has.
        filename: Name of the weights file.
        wrapper: Key under which a PyTorch file holds the state dict; None if it is flat.
        half: Whether it is published in half precision.
        beside: What else is read: "clip" for OpenAI's CLIP, "vocabulary" for BERT's; None for
            nothing.
    """

    layout: Callable[..., layouts.Shapes]
    blocks: tuple[int, int]
    filename: str
    wrapper: str | None = None
    half: bool = False
    beside: str | None = None


def _head(shapes: Callable[[], layouts.Shapes]) -> Callable[..., layouts.Shapes]:
    def layout(*, vision_blocks: int, text_blocks: int) -> layouts.Shapes:
        del vision_blocks, text_blocks
        return shapes()

    return layout


CLIP_L = partial(layouts.clip, **layouts.VIT_L)
CLIP_H = partial(layouts.clip, **layouts.VIT_H)
L_BLOCKS, H_BLOCKS = layouts.FULL_DEPTH["clip-l"], layouts.FULL_DEPTH["clip-h"]
BLIP_BLOCKS = layouts.FULL_DEPTH["blip"]
HPS = partial(Case, CLIP_H, H_BLOCKS, wrapper="state_dict", half=True)
CASES = {
    "clip-vit-l-14": Case(CLIP_L, L_BLOCKS, CLIP_FILE),
    "clip-vit-h-14": Case(CLIP_H, H_BLOCKS, CLIP_FILE),
    "hps-v1": Case(CLIP_L, L_BLOCKS, "hpc.pt", wrapper="state_dict"),
    "hps-v2": HPS("HPS_v2_compressed.pt"),
    "hps-v2.1": HPS("HPS_v2.1_compressed.pt"),
    "pickscore-v1": Case(
        partial(layouts.transformers_clip, **layouts.VIT_H), H_BLOCKS, "model.safetensors"
    ),
    "imagereward-v1": Case(layouts.imagereward, BLIP_BLOCKS, "ImageReward.pt", beside="vocabulary"),
    "blip-large": Case(
        partial(layouts.blip, prefix=""),
        BLIP_BLOCKS,
        "model_large.pth",
        wrapper="model",
        beside="vocabulary",
    ),
    "laion-aesthetic-v1": Case(
        _head(layouts.aesthetic_v1), L_BLOCKS, "sa_0_4_vit_l_14_linear.pth", beside="clip"
    ),
    "laion-aesthetic-v2": Case(
        _head(layouts.aesthetic_v2), L_BLOCKS, "sac+logos+ava1-l14-linearMSE.pth", beside="clip"
    ),
}


@lru_cache(maxsize=1)  # they are gigabytes at full depth, and asked for again at once
def official_state(name: str, blocks: tuple[int, int]) -> Mapping[str, Tensor]:
    """Weights of a model's official file, in its published precision."""
    case = CASES[name]
    state = seeded_state(case.layout(vision_blocks=blocks[0], text_blocks=blocks[1]), seed=name)
    return {key: value.half() for key, value in state.items()} if case.half else state


def companion_clip(blocks: tuple[int, int]) -> Mapping[str, Tensor]:
    """Weights of OpenAI's CLIP ViT-L/14, on whose features the aesthetic heads work."""
    return official_state("clip-vit-l-14", blocks)


def write_official_files(name: str, blocks: tuple[int, int], folder: Path) -> list[Path]:
    """Write a model's official files; the weights come first.

    Args:
        name: A name of the model zoo.
        blocks: Numbers of vision and text blocks.
        folder: An existing folder to write to.

    Returns:
        The files, in the order of the zoo entry's files.
    """
    case = CASES[name]
    weights = folder / case.filename
    state = dict(official_state(name, blocks))
    if weights.suffix == ".safetensors":
        save_file(state, weights, metadata={"format": "pt"})
    else:
        state = state | _unused(name)
        torch.save({case.wrapper: state} if case.wrapper else state, weights)
    if case.beside == "clip":
        save_file(dict(companion_clip(blocks)), folder / CLIP_FILE, metadata={"format": "pt"})
        return [weights, folder / CLIP_FILE]
    if case.beside == "vocabulary":
        vocabulary = "\n".join(made_up_vocabulary()) + "\n"
        (folder / VOCABULARY_FILE).write_text(vocabulary, encoding="utf-8")
        return [weights, folder / VOCABULARY_FILE]
    return [weights]


def _unused(name: str) -> dict[str, Tensor]:
    """Some of what the published BLIP files hold besides the model that scores."""
    positions = torch.arange(512)[None]
    if name == "imagereward-v1":
        return {"blip.text_encoder.embeddings.position_ids": positions}
    if name == "blip-large":
        return {
            "text_encoder.embeddings.position_ids": positions,
            "text_encoder_m.embeddings.position_ids": positions,
            "itm_head.weight": torch.zeros(2, 768),
            "itm_head.bias": torch.zeros(2),
            "queue_ptr": torch.zeros(1, dtype=torch.long),
            "temp": torch.tensor(0.07),
        }
    return {}
