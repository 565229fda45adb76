"""Maps of objects against the pictures, and the reader's loss against a naive one."""

import math

import pytest
import torch
from torch import nn

from stablepref.benchmarks.shapes.pipeline.latents import training_picture
from stablepref.benchmarks.shapes.pipeline.object_maps import (
    NOTHING,
    build_reader,
    object_maps,
    output_of,
    reading_loss,
)
from stablepref.benchmarks.shapes.world.drawing import COLOUR_VALUES, layout, render
from stablepref.benchmarks.shapes.world.scenes import COLOURS, SHAPES

PICTURES = [training_picture(0, index) for index in range(12)]


def test_maps_name_what_is_drawn() -> None:
    # One place a pixel: where a map says nothing the picture is as it is without the object, and
    # many places of an object have its colour.
    for picture, (shapes, colours) in zip(PICTURES, object_maps(PICTURES, 64), strict=True):
        drawn = torch.from_numpy(render(picture.drawn, seed=picture.seed)).float()
        background = drawn[shapes == NOTHING].mean(dim=0)
        other = (drawn[shapes == NOTHING] - background).abs().amax(dim=1) > 60
        assert other.float().mean() < 0.01
        assert torch.equal(shapes == NOTHING, colours == -1)
        for group in picture.drawn.groups:
            kind = (shapes == SHAPES.index(group.shape)) & (colours == COLOURS.index(group.colour))
            assert kind.any()
            value = torch.tensor(COLOUR_VALUES[group.colour])
            share = ((drawn[kind] - value).abs().amax(dim=1) < 20).float().mean()
            assert share > (0.4 if group.shape in ("circle", "square") else 0.2)


def test_a_coarse_map_is_that_of_the_centres() -> None:
    for picture, maps in zip(PICTURES, object_maps(PICTURES, 16), strict=True):
        for row in range(16):
            for column in range(16):
                x, y = (column + 0.5) / 16, (row + 0.5) / 16
                here = [
                    placed.group
                    for placed in layout(picture.drawn, picture.seed)
                    if math.hypot(x - placed.x, y - placed.y) < placed.radius + 1 / 64
                ]
                wanted = (NOTHING, -1)
                if here:
                    group = picture.drawn.groups[here[-1]]
                    wanted = (SHAPES.index(group.shape), COLOURS.index(group.colour))
                assert tuple(maps[:, row, column].tolist()) == wanted


def test_the_loss_is_that_of_a_naive_loop() -> None:
    torch.manual_seed(0)
    maps = object_maps(PICTURES[:3], 4)
    read = torch.randn(3, NOTHING + 1 + len(COLOURS), 4, 4)
    shape, colour = [], []
    for picture in range(3):
        for row in range(4):
            for column in range(4):
                logits = read[picture, :, row, column].double()
                kind, shade = maps[picture, :, row, column].tolist()
                shape.append(-logits[: NOTHING + 1].log_softmax(0)[kind])
                if shade >= 0:
                    colour.append(-logits[NOTHING + 1 :].log_softmax(0)[shade])
    wanted = sum(shape) / len(shape) + 0.5 * sum(colour) / len(colour)
    assert float(reading_loss(read, maps)) == pytest.approx(float(wanted), rel=1e-5)


def test_pictures_without_objects_have_a_loss() -> None:
    maps = torch.full((1, 2, 4, 4), NOTHING)
    maps[:, 1] = -1
    read = torch.zeros(1, NOTHING + 1 + len(COLOURS), 4, 4)
    assert float(reading_loss(read, maps)) == pytest.approx(math.log(NOTHING + 1))


def test_a_reader_learns_from_features_that_tell() -> None:
    maps = object_maps(PICTURES, 16)
    features = nn.functional.one_hot(maps[:, 0], NOTHING + 1).float()
    colours = nn.functional.one_hot(maps[:, 1] + 1, len(COLOURS) + 1).float()
    features = torch.cat([features, colours], dim=-1).movedim(-1, 1)
    reader = build_reader(features.shape[1], seed=0)
    optimizer = torch.optim.Adam(reader.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        loss = reading_loss(reader(features), maps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 < losses[0]
    assert torch.equal(build_reader(7, seed=1).weight, build_reader(7, seed=1).weight)


def test_outputs_are_seen_within_and_no_longer_after() -> None:
    layer = nn.Linear(2, 2)
    with output_of(layer) as seen:
        made = layer(torch.ones(1, 2))
    layer(torch.ones(1, 2))
    assert len(seen) == 1
    assert seen[0] is made
    with pytest.raises(ZeroDivisionError), output_of(layer) as broken:
        raise ZeroDivisionError
    layer(torch.ones(1, 2))
    assert broken == []
