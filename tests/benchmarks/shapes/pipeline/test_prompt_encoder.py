"""The prompt encoder's first training: its prompts, the loss of places by hand, and resuming."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_lab_pipeline import TINY

from stablepref.benchmarks.shapes.clip.scene_code import PLACES, describe_scenes
from stablepref.benchmarks.shapes.pipeline.prompt_encoder import (
    PromptEncoderConfig,
    RelatedPrompts,
    places_loss,
    places_right,
    train_prompt_encoder,
)
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import COLOURS, SHAPES, split_of

NAMES = (*COLOURS, *SHAPES)
SCENES = [
    parse("a red circle left of a blue square"),
    parse("a red star above a red ring"),  # red is of both: no place
    parse("a red circle and a blue square"),  # no relation
]
# The known places of these: +1 of the last group, -1 of the first; across before downwards.
KNOWN = {
    (0, "red"): -1, (0, "circle"): -1, (0, "blue"): 1, (0, "square"): 1,
    (1, "star"): -1, (1, "ring"): 1,
}  # fmt: skip


def where(row: int, name: str) -> int:
    """The logit of an attribute in the axis of that scene's relation."""
    return NAMES.index(name) + (len(NAMES) if SCENES[row].relation == "above" else 0)


def test_the_loss_of_places_by_hand() -> None:
    read = torch.randn(3, PLACES, generator=torch.Generator().manual_seed(0))
    descriptions = describe_scenes(SCENES)
    logits = {key: float(read[key[0], where(*key)]) for key in KNOWN}
    wanted = sum(math.log1p(math.exp(-logits[key] * KNOWN[key])) for key in KNOWN) / len(KNOWN)
    assert float(places_loss(read, descriptions)) == pytest.approx(wanted, rel=1e-5)
    right = sum(logits[key] * KNOWN[key] > 0 for key in KNOWN) / len(KNOWN)
    assert places_right(read, descriptions) == pytest.approx(right)
    assert 0 < right < 1


def test_what_is_not_known_does_not_count() -> None:
    read = torch.zeros(3, PLACES, requires_grad=True)
    places_loss(read, describe_scenes(SCENES)).backward()
    assert read.grad is not None
    expected = {(row, where(row, name)) for row, name in KNOWN}
    assert {tuple(place) for place in read.grad.nonzero().tolist()} == expected
    assert float(places_loss(torch.ones(1, PLACES), describe_scenes(SCENES[2:]))) == 0


def test_prompts_are_of_related_training_scenes_and_depend_on_the_step_alone() -> None:
    prompts = RelatedPrompts(batch_size=40, steps=3, seed=0)
    tokens, descriptions = prompts[2]
    assert tokens.shape == (40, 32)
    again = RelatedPrompts(batch_size=40, steps=3, seed=0)[2]
    assert torch.equal(again[0], tokens)
    assert torch.equal(again[1], descriptions)
    assert not torch.equal(prompts[1][0], tokens)
    texts = prompts.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    scenes = [parse(text.replace(" ,", ",").replace(" :", ":")) for text in texts]
    assert all(scene.relation for scene in scenes)
    assert {split_of(scene) for scene in scenes} == {"train"}
    torch.testing.assert_close(describe_scenes(scenes), descriptions)


def test_a_training_that_is_broken_ends_with_the_same_weights(tmp_path: Path) -> None:
    config = PromptEncoderConfig(sizes=TINY, steps=6, warmup=2, batch_size=4)
    whole = train_prompt_encoder(config, tmp_path / "whole", checkpoint_every=2)
    broken = tmp_path / "broken"
    assert train_prompt_encoder(config, broken, checkpoint_every=2, stop_after=4) is None
    resumed = train_prompt_encoder(config, broken, checkpoint_every=2)
    again = train_prompt_encoder(config, broken, checkpoint_every=2)
    assert whole is not None
    for other in (resumed, again):
        assert other is not None
        for part, same in zip(whole, other, strict=True):
            for name, value in part.state_dict().items():
                assert torch.equal(value, same.state_dict()[name])
    with pytest.raises(ValueError, match=r"seed was 0 and is 1\. Choose another folder"):
        train_prompt_encoder(replace(config, seed=1), broken)


@pytest.mark.slow  # two minutes and a half
def test_it_learns_the_order_of_objects(tmp_path: Path) -> None:
    config = PromptEncoderConfig()
    trained = train_prompt_encoder(config, tmp_path)
    assert trained is not None
    tokens, descriptions = RelatedPrompts(batch_size=300, steps=1, seed=99)[0]
    with torch.no_grad():
        read = trained.reader(trained.text.eval()(tokens).pooler_output)
    assert places_right(read, descriptions) > 0.95
