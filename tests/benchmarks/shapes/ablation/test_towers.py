"""Towers cut in two give what they give whole, value and gradient."""

import pytest
import torch
from helpers.tiny import tiny_clip

import stablepref
from stablepref.benchmarks.shapes.ablation.towers import (
    check_towers,
    frozen_images,
    frozen_texts,
    image_features,
    prompt_features,
)
from stablepref.models.clip import CLIPScorer
from stablepref.training.freezing import freeze

PROMPTS = ["a red circle", "a blue square left of a small green star on a grey background", "a"]


def lab_model() -> CLIPScorer:
    """The bundled architecture, which averages patches; any weights of it will do."""
    model = stablepref.load("shapes-clip", dtype="float32")
    assert isinstance(model, CLIPScorer)
    return model


@pytest.mark.parametrize(("make", "image", "text"), [
    (tiny_clip, 0, 0), (tiny_clip, 1, 2), (tiny_clip, 2, 1), (lab_model, 2, 2), (lab_model, 0, 4),
])  # fmt: skip
def test_both_parts_together_are_the_whole(make: type[CLIPScorer], image: int, text: int) -> None:
    scorer = make()
    freeze(scorer, image_blocks=image, text_blocks=text)
    inputs = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    weights = [p for p in scorer.parameters() if p.requires_grad]
    with torch.no_grad():
        tokens = frozen_images(scorer, inputs, trained=image)
        texts = frozen_texts(scorer, PROMPTS, trained=text)
    cut = scorer.match(
        image_features(scorer, tokens, trained=image), prompt_features(scorer, texts, trained=text)
    )
    whole = scorer.match(scorer.encode_inputs(inputs), scorer.encode_prompts(PROMPTS))
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-4)
    found, expected = (torch.autograd.grad(scores.sum(), weights) for scores in (cut, whole))
    assert len(weights) > 4
    for one, other in zip(found, expected, strict=True):
        size = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * size + 1e-9)


def test_more_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="3 trained image blocks, but the image tower of tiny has"):
        frozen_images(tiny_clip(), torch.zeros(1, 3, 64, 64), trained=3)
    with pytest.raises(ValueError, match="3 trained text blocks"):
        frozen_texts(tiny_clip(), PROMPTS, trained=3)


def test_towers_of_other_kinds_are_refused() -> None:
    check_towers(tiny_clip())
    scorer = tiny_clip()
    scorer.model.visual.pool_type = "none"
    with pytest.raises(ValueError, match="pools by 'none'"):
        check_towers(scorer)
    scorer = tiny_clip()
    scorer.model.text_pool_type = "last"
    with pytest.raises(ValueError, match="reads 'last'"):
        check_towers(scorer)
