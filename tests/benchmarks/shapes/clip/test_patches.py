"""What stands where in pictures, and what their patches show."""

import math

import pytest
import torch

from stablepref.benchmarks.shapes.clip.patches import (
    PatchHead,
    kind_loss,
    patch_kinds,
    patch_places,
    place_loss,
)
from stablepref.benchmarks.shapes.world.layout import Placed
from stablepref.benchmarks.shapes.world.objects import Objects, list_objects
from stablepref.benchmarks.shapes.world.scenes import COLOURS, SHAPES, Group, Scene

CIRCLE = Group(1, "red", "circle")
SQUARE = Group(1, "blue", "square")


def two_objects() -> Objects:
    """A red circle at the left and a blue square at the lower right, in a whole picture."""
    placed = (Placed(0, 0.25, 0.5, 0.2), Placed(1, 0.75, 0.75, 0.125))
    whole = torch.tensor([[0.0, 0.0, 1.0]])
    return list_objects([Scene((CIRCLE, SQUARE), "left of")], [placed], whole)


def test_objects_are_where_the_crop_shows_them() -> None:
    placed = (Placed(0, 0.25, 0.5, 0.2), Placed(1, 0.75, 0.75, 0.125))
    crop = torch.tensor([[0.25, 0.5, 0.5]])  # the lower half of the middle
    found = list_objects([Scene((CIRCLE, SQUARE), "left of")], [placed], crop)
    torch.testing.assert_close(found.places[0, 0], torch.tensor([0.0, 0.0, 0.4]))
    torch.testing.assert_close(found.places[0, 1], torch.tensor([1.0, 0.5, 0.25]))
    assert found.places[0, 2:].isnan().all()
    kinds = list(zip(found.colours[0].tolist(), found.shapes[0].tolist(), strict=True))
    names = [("red", "circle"), ("blue", "square")]
    assert kinds[:2] == [(COLOURS.index(c), SHAPES.index(s)) for c, s in names]
    assert set(kinds[2:]) == {(-1, -1)}


def test_patches_show_the_object_at_their_centre() -> None:
    """On a grid of four by four the centres are at 1/8, 3/8, 5/8 and 7/8."""
    grid = patch_kinds(two_objects(), 4)[0].view(4, 4, 2)
    red_circle = [COLOURS.index("red") + 1, SHAPES.index("circle") + 1]
    blue_square = [COLOURS.index("blue") + 1, SHAPES.index("square") + 1]
    # (1/8, 3/8), (3/8, 3/8), ... lie sqrt(2)/8 = 0.18 from the circle's centre; its radius is 0.2.
    circle = {(1, 0), (1, 1), (2, 0), (2, 1)}
    # No centre lies within 0.125 of (0.75, 0.75): the nearest are sqrt(2)/8 away.
    for row in range(4):
        for column in range(4):
            expected = red_circle if (row, column) in circle else [0, 0]
            assert grid[row, column].tolist() == expected
    wider = two_objects()
    wider.places[0, 1, 2] = 0.18
    grid = patch_kinds(wider, 4)[0].view(4, 4, 2)
    assert grid[2:, 2:].reshape(4, 2).tolist() == [blue_square] * 4


def test_kind_loss_equals_a_naive_loop() -> None:
    targets = patch_kinds(two_objects(), 4)
    colours, shapes = len(COLOURS) + 1, len(SHAPES) + 1
    logits = torch.randn(1, 16, colours + shapes, generator=torch.Generator().manual_seed(0))
    errors: dict[bool, list[float]] = {True: [], False: []}
    for row, (colour, shape) in zip(logits[0].tolist(), targets[0].tolist(), strict=True):
        error = 0.0
        for part, own in ((row[:colours], colour), (row[colours:], shape)):
            error += math.log(sum(map(math.exp, part))) - part[own]
        errors[colour > 0].append(error)
    expected = sum(sum(part) / len(part) for part in errors.values())
    assert kind_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)
    nothing = torch.zeros_like(targets)  # pictures without objects have no mean over objects
    assert kind_loss(logits, nothing).isfinite()


def test_patches_tell_centres_and_places() -> None:
    """The circle's centre is on the edge between two rows of patches and belongs to the lower."""
    attributes = len(COLOURS) + len(SHAPES)
    objects = two_objects()
    found = patch_places(objects, patch_kinds(objects, 4))[0].view(4, 4, 3, attributes)
    red, circle = COLOURS.index("red"), len(COLOURS) + SHAPES.index("circle")
    # The centre of the circle, (0.25, 0.5), is a corner of four patches: the second column's, and
    # the third row's, begin there.
    assert found[:, :, 0, red].nonzero().tolist() == [[2, 1]]
    assert torch.equal(found[..., red], found[..., circle])
    for row in (1, 2):
        for column in (0, 1):
            across, down = found[row, column, 1:, red].tolist()
            assert across == 2 * (column + 0.5) / 4 - 1
            assert down == 2 * (row + 0.5) / 4 - 1
    # The square covers no patch's centre here, and nothing else is anywhere.
    others = [i for i in range(attributes) if i not in (red, circle)]
    assert not found[..., others].any()
    assert not found[0].any()
    assert not found[3].any()


def test_objects_outside_the_crop_have_no_centre() -> None:
    crop = torch.tensor([[0.3, 0.0, 0.7]])
    placed = (Placed(0, 0.28, 0.5, 0.2),)
    objects = list_objects([Scene((CIRCLE,))], [placed], crop)
    attributes = len(COLOURS) + len(SHAPES)
    found = patch_places(objects, patch_kinds(objects, 8))[0].view(64, 3, attributes)
    assert not found[:, 0].any()
    assert found[:, 1].any()


def test_place_loss_equals_a_naive_loop_and_begins_with_the_places_own_square() -> None:
    objects = two_objects()
    kinds = patch_kinds(objects, 4)
    places = patch_places(objects, kinds)
    predicted = torch.randn(places.shape, generator=torch.Generator().manual_seed(0))
    errors: dict[bool, list[float]] = {True: [], False: []}
    for row, wanted, kind in zip(predicted[0], places[0], kinds[0], strict=True):
        squares = [(a - b) ** 2 for a, b in zip(row.tolist(), wanted.tolist(), strict=True)]
        errors[bool(kind[0] > 0)].append(sum(squares))
    expected = sum(sum(part) / len(part) for part in errors.values())
    assert place_loss(predicted, places, kinds).item() == pytest.approx(expected, rel=1e-5)
    _, said = PatchHead(8)(torch.randn(1, 16, 8))
    own = places.square().sum() / (kinds[..., 0] > 0).sum()
    assert place_loss(said, places, kinds).item() == pytest.approx(own.item(), rel=1e-5)
