"""Which weights are trained: the paper's lists at full depth, and no graph below them."""

from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from helpers.tiny import tiny_clip
from torch import Tensor, nn

from stablepref.models.clip import CLIPScorer
from stablepref.models.sizes import VIT_H_14, VIT_L_14
from stablepref.preprocess.preprocess import Preprocess
from stablepref.recipes import recipe
from stablepref.training.freezing import freeze, summary
from stablepref.training.step import ViewScores

# One block of open_clip 3's transformers.
BLOCK = (
    *("ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias"),
    *("attn.out_proj.weight", "attn.out_proj.bias", "ln_2.weight", "ln_2.bias"),
    *("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
)


@pytest.mark.parametrize(
    ("name", "backbone", "image_blocks", "text_blocks"),
    [
        ("sp-clip-h", VIT_H_14, range(14, 32), range(16, 24)),
        ("sp-clip-l", VIT_L_14, range(6, 24), range(4, 12)),
    ],
)
def test_the_papers_recipes_train_18_and_8_blocks_and_what_follows(
    name: str, backbone: dict[str, Any], image_blocks: range, text_blocks: range
) -> None:
    config = recipe(name)
    with init_empty_weights(include_buffers=False):
        scorer = CLIPScorer(
            backbone, preprocess=Preprocess("clip"), name=name, preference_scale=None
        )
    assert next(scorer.parameters()).is_meta
    trained = freeze(scorer, image_blocks=config.image_blocks, text_blocks=config.text_blocks)
    visual, text = "model.visual.", "model."
    expected = {
        *(f"{visual}transformer.resblocks.{n}.{part}" for n in image_blocks for part in BLOCK),
        *(f"{visual}{part}" for part in ("ln_post.weight", "ln_post.bias", "proj")),
        *(f"{text}transformer.resblocks.{n}.{part}" for n in text_blocks for part in BLOCK),
        *(f"{text}{part}" for part in ("ln_final.weight", "ln_final.bias", "text_projection")),
        "model.logit_scale",
    }
    assert set(trained) == expected
    assert len(trained) == len(expected) == 18 * 12 + 3 + 8 * 12 + 3 + 1
    assert trained == [n for n, weight in scorer.named_parameters() if weight.requires_grad]
    first, last = image_blocks[0], image_blocks[-1]
    assert f"model.visual.transformer.resblocks.{first}-{last}" in summary(trained)
    first, last = text_blocks[0], text_blocks[-1]
    assert f"model.transformer.resblocks.{first}-{last}" in summary(trained)


def test_the_logit_scale_can_stay() -> None:
    assert "model.logit_scale" not in freeze(
        tiny_clip(), image_blocks=1, text_blocks=1, train_logit_scale=False
    )


def test_none_trains_everything_and_0_what_follows_the_blocks() -> None:
    scorer = tiny_clip()
    assert freeze(scorer, image_blocks=None, text_blocks=None) == [
        name for name, _ in scorer.named_parameters()
    ]
    assert set(freeze(scorer, image_blocks=0, text_blocks=0)) == {
        "model.logit_scale",
        *("model.visual.ln_post.weight", "model.visual.ln_post.bias", "model.visual.proj"),
        *("model.ln_final.weight", "model.ln_final.bias", "model.text_projection"),
    }


def test_more_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="text_blocks is 3, but the text tower of tiny has 2"):
        freeze(tiny_clip(), image_blocks=1, text_blocks=3)


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_frozen_blocks_build_no_graph(trained: int) -> None:
    scorer = tiny_clip()
    freeze(scorer, image_blocks=trained, text_blocks=trained)
    model: Any = scorer.model
    graphs: dict[str, list[bool]] = {"image": [], "text": []}

    def watch(block: nn.Module, tower: str) -> None:
        def note(_: nn.Module, __: object, output: Tensor) -> None:
            graphs[tower].append(output.grad_fn is not None)

        block.register_forward_hook(note)

    for block in model.visual.transformer.resblocks:
        watch(block, "image")
    for block in model.transformer.resblocks:
        watch(block, "text")
    pixels = [torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)]
    boxes = torch.tensor([[[0.0, 0, 1, 1]]])
    scores = ViewScores(scorer)(pixels, ["a fox"], boxes, torch.zeros(1, 1, dtype=torch.bool))
    expected = [number >= 2 - trained for number in range(2)]
    assert graphs == {"image": expected, "text": expected}
    assert scores.requires_grad
