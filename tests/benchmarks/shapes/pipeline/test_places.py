"""The probe for the order of two objects, on text encoders of which it is known what they tell."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.typed import refused
from torch import Tensor

from stablepref.benchmarks.shapes.pipeline.places import PLACES, main, order_read, related_scenes
from stablepref.benchmarks.shapes.pipeline.words import build_tokenizer
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import COLOURS

LAST, FIRST, LATER = PLACES


def telling(place: str | None) -> Any:  # noqa: ANN401 (stands in for a pipeline)
    """A pipeline whose texts tell the order at one place, and are noise elsewhere."""
    tokenizer = build_tokenizer()
    generator = torch.Generator().manual_seed(0)
    words = {colour: tokenizer(colour, add_special_tokens=False).input_ids[0] for colour in COLOURS}

    def encode(tokens: Tensor) -> tuple[Tensor]:
        states = torch.randn(*tokens.shape, len(COLOURS) + 1, generator=generator)
        for row, text in enumerate(tokenizer.batch_decode(tokens, skip_special_tokens=True)):
            prompt = text.replace(" ,", ",").replace(" :", ":")
            colours = [group.colour for group in parse(prompt).groups]
            at = [tokens[row].tolist().index(words[colour]) for colour in colours]
            if place == LAST:
                states[row, -1, COLOURS.index(colours[0])] += 20
            elif place is not None:
                where = max(at) if place == LATER else min(at)
                states[row, where, -1] = 1.0 if at[1] < at[0] else -1.0
        return (states,)

    return SimpleNamespace(tokenizer=tokenizer, text_encoder=encode)


@pytest.mark.parametrize("place", [None, *PLACES])
@pytest.mark.parametrize("relation", ["left of", "above"])
def test_the_order_is_read_where_it_is_told(place: str | None, relation: str) -> None:
    scenes = related_scenes(relation, 1200, seed=1)
    found = order_read(telling(place), scenes, train=900)
    for one in PLACES:
        if one == place:
            assert found[one] == 1
        else:
            assert 0.4 < found[one] < 0.6


def test_scenes_are_of_two_colours_in_the_relation() -> None:
    scenes = related_scenes("above", 20, seed=3)
    assert {scene.relation for scene in scenes} == {"above"}
    assert all(scene.groups[0].colour != scene.groups[1].colour for scene in scenes)
    assert scenes == related_scenes("above", 20, seed=3) != related_scenes("above", 20, seed=4)


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(prompts=200, seed=0, threads=None)
    shown = " ".join(capsys.readouterr().out.split())
    assert "of 40 prompts each" in shown
    assert all(word in shown for word in ("left of", "above", "last state"))
    assert "'--pipeline'" in refused(main, "--pipeline", "nowhere")
