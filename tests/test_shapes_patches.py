"""What stands where in pictures, and what their patches show."""

import math

import pytest
import torch
from stablepref.benchmarks.shapes.layout import Placed
from stablepref.benchmarks.shapes.objects import Objects, list_objects
from stablepref.benchmarks.shapes.patches import patch_loss, patch_targets
from stablepref.benchmarks.shapes.scenes import COLOURS, SHAPES, Group, Scene

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
    grid = patch_targets(two_objects(), 4)[0].view(4, 4, 2)
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
    grid = patch_targets(wider, 4)[0].view(4, 4, 2)
    assert grid[2:, 2:].reshape(4, 2).tolist() == [blue_square] * 4


def test_patch_loss_equals_a_naive_loop() -> None:
    targets = patch_targets(two_objects(), 4)
    colours, shapes = len(COLOURS) + 1, len(SHAPES) + 1
    logits = torch.randn(1, 16, colours + shapes, generator=torch.Generator().manual_seed(0))
    errors: dict[bool, list[float]] = {True: [], False: []}
    for row, (colour, shape) in zip(logits[0].tolist(), targets[0].tolist(), strict=True):
        error = 0.0
        for part, own in ((row[:colours], colour), (row[colours:], shape)):
            error += math.log(sum(map(math.exp, part))) - part[own]
        errors[colour > 0].append(error)
    expected = sum(sum(part) / len(part) for part in errors.values())
    assert patch_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)
    nothing = torch.zeros_like(targets)  # pictures without objects have no mean over objects
    assert patch_loss(logits, nothing).isfinite()
