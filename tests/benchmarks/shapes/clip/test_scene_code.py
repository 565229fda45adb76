"""Codes say what scenes hold: worked by hand, and by their cosines."""

import random

import pytest
import torch
from torch.nn import functional

from stablepref.benchmarks.shapes.clip.scene_code import (
    PLACES,
    code_loss,
    describe_pictures,
    describe_scenes,
    scene_codes,
)
from stablepref.benchmarks.shapes.world.drawing import layout
from stablepref.benchmarks.shapes.world.errors import error_kinds, single_error
from stablepref.benchmarks.shapes.world.layout import Placed
from stablepref.benchmarks.shapes.world.objects import list_objects
from stablepref.benchmarks.shapes.world.scenes import COLOURS, SHAPES, Group, Scene, sample_scene

CIRCLE = Group(1, "red", "circle")
SQUARE = Group(1, "blue", "square")
STAR = Group(1, "red", "star")
ATTRIBUTES = (*COLOURS, *SHAPES)
WHOLE = torch.tensor([[0.0, 0.0, 1.0]])


def place(description: torch.Tensor, relation: str, name: str) -> float:
    """What a description says of one attribute's place along one axis."""
    axes = description[-PLACES:].view(2, len(ATTRIBUTES))
    return float(axes[("left of", "above").index(relation), ATTRIBUTES.index(name)])


def test_descriptions_of_hand_worked_scenes() -> None:
    scenes = [
        Scene((CIRCLE, SQUARE), "left of"),
        Scene((SQUARE, CIRCLE), "left of"),
        Scene((CIRCLE, SQUARE, STAR), "above"),
        Scene((Group(3, "green", "ring"),)),
    ]
    left, right, column, rings = describe_scenes(scenes)
    for name, first in (("red", -0.6), ("circle", -0.6), ("blue", 0.6), ("square", 0.6)):
        assert place(left, "left of", name) == pytest.approx(first)
        assert place(right, "left of", name) == pytest.approx(-first)
        assert place(left, "above", name) == 0
    assert place(left, "left of", "green") == 0
    assert torch.equal(left[:-PLACES], right[:-PLACES])
    # Two of the three groups are red, so red has no one place.
    found = [place(column, "above", name) for name in ("red", "circle", "square", "star")]
    assert found == pytest.approx([0, -0.6, 0, 0.6])
    # One kind, three of it as a colour and three of it as a shape; no size, background or place.
    assert sorted(rings[rings != 0].tolist()) == pytest.approx([0.6, 0.6, 1.0])
    assert rings[COLOURS.index("green") * len(SHAPES) + SHAPES.index("ring")] == 1


def test_counts_sizes_and_backgrounds_have_numbers_of_their_own() -> None:
    plain = Scene((CIRCLE,))
    others = [
        Scene((Group(2, "red", "circle"),)),
        Scene((Group(1, "red", "circle", "small"),)),
        Scene((CIRCLE,), background="pink"),
    ]
    first, *rows = describe_scenes([plain, *others])
    changed = [set((row != first).nonzero().flatten().tolist()) for row in rows]
    assert [len(numbers) for numbers in changed] == [
        4,
        2,
        1,
    ]  # a count leaves one place for another
    assert not changed[0] & changed[1] | changed[1] & changed[2]


def test_pictures_tell_the_place_of_all_they_show() -> None:
    """Worked by hand: the middle of both is (0.5, 0.625), a unit is a quarter of the side."""
    scene = Scene((CIRCLE, SQUARE), "left of")
    placed = (Placed(0, 0.25, 0.5, 0.2), Placed(1, 0.75, 0.75, 0.125))
    told = describe_scenes([scene])
    shown = describe_pictures(told, list_objects([scene], [placed], WHOLE))
    for name, across, down in (("red", -1, -0.5), ("square", 1, 0.5)):
        assert place(shown[0], "left of", name) == pytest.approx(0.6 * across)
        assert place(shown[0], "above", name) == pytest.approx(0.6 * down)
    assert place(shown[0], "left of", "green") == 0
    assert torch.equal(shown[:, :-PLACES], told[:, :-PLACES])


def test_cosines_tell_right_pictures_from_wrong_ones() -> None:
    rng, gaps, dim = random.Random(3), [], 192

    def picture(scene: Scene) -> torch.Tensor:
        objects = list_objects([scene], [layout(scene, rng.getrandbits(40))], WHOLE)
        return scene_codes(describe_pictures(describe_scenes([scene]), objects), dim)[0]

    for _ in range(100):
        scene = sample_scene(rng, "train")
        (told,) = scene_codes(describe_scenes([scene]), dim)
        for kind in error_kinds(scene):
            gaps.append(
                float(told @ picture(scene) - told @ picture(single_error(scene, kind, rng)))
            )
    assert sum(gap > 0 for gap in gaps) / len(gaps) > 0.995


def test_codes_are_unit_vectors_that_keep_the_cosines_and_depend_on_nothing_else() -> None:
    rng = random.Random(0)
    descriptions = describe_scenes([sample_scene(rng, "train") for _ in range(64)])
    whole = scene_codes(descriptions, 512)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(64))
    unit = functional.normalize(descriptions, dim=1)
    torch.testing.assert_close(whole @ whole.T, unit @ unit.T, rtol=0, atol=1e-5)
    cut = scene_codes(descriptions, 192)
    assert (cut @ cut.T - unit @ unit.T).abs().max() < 0.1
    torch.manual_seed(7)
    assert torch.equal(cut, scene_codes(descriptions, 192))
    assert (scene_codes(torch.zeros_like(descriptions), 192) == 0).all()


def test_code_loss_is_one_less_the_cosine_and_ignores_codes_of_nothing() -> None:
    features = torch.tensor([[3.0, 0.0], [0.0, -2.0], [1.0, 1.0]], requires_grad=True)
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    loss = code_loss(features, codes)
    assert loss.item() == pytest.approx((0 + 2) / 2)
    loss.backward()
    assert features.grad is not None
    assert (features.grad[2] == 0).all()
    assert code_loss(features, torch.zeros(3, 2)).item() == 0
