"""What is drawn is what the scene says, judged from the pixels alone."""

import colorsys
import random
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from stablepref.benchmarks.shapes.world.backgrounds import BACKGROUND_VALUES
from stablepref.benchmarks.shapes.world.drawing import COLOUR_VALUES, layout, render
from stablepref.benchmarks.shapes.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    Group,
    Scene,
    sample_scene,
)

# Hues in degrees that an English speaker calls by these names.
HUES = {
    "orange": (18, 42),
    "yellow": (44, 65),
    "green": (90, 160),
    "blue": (205, 250),
    "purple": (260, 300),
}


def name_of(pixel: NDArray[np.uint8]) -> str:
    """The colour's name by hue, saturation and brightness, independent of the renderer's table."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel.tolist()))
    if value < 0.2:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.85 else "?"
    degrees = hue * 360
    if degrees < 12 or degrees > 345:
        return "red"
    return next((name for name, (low, high) in HUES.items() if low < degrees < high), "?")


def seen_objects(picture: NDArray[np.uint8]) -> list[tuple[str, float, float]]:
    """Colour name and centre (x, y) of each separate object on a grey background."""
    far = np.abs(picture.astype(int) - BACKGROUND_VALUES["grey"]).max(axis=-1) > 60
    labels, number = ndimage.label(far, structure=np.ones((3, 3)))
    objects = []
    for index in range(1, number + 1):
        rows, columns = np.nonzero(labels == index)
        names = Counter(name_of(picture[y, x]) for y, x in zip(rows, columns, strict=True))
        size = len(picture)
        objects.append((names.most_common(1)[0][0], columns.mean() / size, rows.mean() / size))
    return objects


def scenes_on_grey(number: int) -> list[Scene]:
    rng = random.Random(5)
    return [replace(sample_scene(rng), background="grey") for _ in range(number)]


def test_equal_seeds_draw_equal_pictures_and_others_differ() -> None:
    rng = random.Random(0)
    for seed in range(20):
        scene = sample_scene(rng)
        picture = render(scene, seed=seed)
        assert picture.dtype == np.uint8
        assert picture.shape == (64, 64, 3)
        np.testing.assert_array_equal(picture, render(scene, seed=seed))
        assert (picture != render(scene, seed=seed + 1)).any()
        assert render(scene, seed=seed, size=100).shape == (100, 100, 3)


def test_other_sizes_show_the_same_picture() -> None:
    scene = Scene((Group(1, "red", "heart"), Group(2, "white", "star")), "above", "teal")
    for seed in range(5):
        small = render(scene, seed=seed, size=64).astype(float)
        large = render(scene, seed=seed, size=256).astype(float)
        means = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
        assert np.abs(means - small).mean() < 8


def test_colours_and_counts_can_be_read_from_the_pixels() -> None:
    for seed, scene in enumerate(scenes_on_grey(150)):
        expected: Counter[str] = Counter()
        for group in scene.groups:
            expected[group.colour] += group.count
        seen = Counter(name for name, _, _ in seen_objects(render(scene, seed=seed, size=128)))
        assert seen == expected, scene


def test_the_colour_stands_where_the_layout_says() -> None:
    size = 128
    for seed, scene in enumerate(scenes_on_grey(100)):
        picture = render(scene, seed=seed, size=size)
        for placed in layout(scene, seed):
            group = scene.groups[placed.group]
            # The middle of a ring is empty: look at its band instead.
            x = placed.x + (0.7 * placed.radius if group.shape == "ring" else 0)
            pixel = picture[int(placed.y * size), int(x * size)]
            assert name_of(pixel) == group.colour


def test_colours_lie_in_their_ranges() -> None:
    rng = random.Random(0)
    checked = 0
    for seed in range(300):
        scene = sample_scene(rng)
        picture = render(scene, seed=seed, size=128)
        for placed in layout(scene, seed):
            group = scene.groups[placed.group]
            # Shapes that are solid around their centre.
            if group.shape not in ("circle", "square", "diamond", "heart"):
                continue
            x, y = int(placed.x * 128), int(placed.y * 128)
            found = picture[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(axis=0)
            assert np.abs(found - COLOUR_VALUES[group.colour]).max() < 30
            checked += 1
    assert checked > 200


def test_relations_hold_in_the_layout_whatever_the_colours() -> None:
    rng = random.Random(0)
    checked = 0
    for seed in range(400):
        scene = sample_scene(rng)
        if scene.relation is None:
            continue
        along: dict[int, list[float]] = {index: [] for index in range(len(scene.groups))}
        for placed in layout(scene, seed):
            along[placed.group].append(placed.x if scene.relation == "left of" else placed.y)
        for before, after in pairwise(along.values()):
            assert max(before) < min(after)
            checked += 1
    assert checked > 100


def test_relations_hold_in_the_pixels() -> None:
    checked = 0
    for seed, scene in enumerate(scenes_on_grey(500)):
        colours = [group.colour for group in scene.groups]
        if scene.relation is None or len(set(colours)) < len(colours):
            continue
        checked += 1
        objects = seen_objects(render(scene, seed=seed, size=128))
        along, across = (1, 2) if scene.relation == "left of" else (2, 1)
        for first, second in pairwise(colours):
            before = [seen for seen in objects if seen[0] == first]
            after = [seen for seen in objects if seen[0] == second]
            assert max(seen[along] for seen in before) < min(seen[along] for seen in after)
            steps = [
                np.mean([seen[axis] for seen in after]) - np.mean([seen[axis] for seen in before])
                for axis in (along, across)
            ]
            # A triangle's and a heart's pixels are not centred on their circle, hence not 1.8.
            assert steps[0] > 1.3 * abs(steps[1])
    assert checked > 100


def test_objects_stand_apart_and_inside() -> None:
    for seed, scene in enumerate(scenes_on_grey(200)):
        placed = layout(scene, seed)
        assert Counter(one.group for one in placed) == {
            index: group.count for index, group in enumerate(scene.groups)
        }
        for one in placed:
            assert min(one.x, one.y, 1 - one.x, 1 - one.y) >= one.radius + 0.039
        for one, other in combinations(placed, 2):
            apart = np.hypot(one.x - other.x, one.y - other.y)
            assert apart > one.radius + other.radius


def test_sizes_can_be_told_apart() -> None:
    areas = {
        size: [
            layout(Scene((Group(1, "red", "star", size),)), seed)[0].radius for seed in range(50)
        ]
        for size in ("small", "", "large")
    }
    assert max(areas["small"]) * 1.15 < min(areas[""])
    assert max(areas[""]) * 1.15 < min(areas["large"])


# Areas within the unit circle by school geometry: the ring's radii are 0.46 and 0.94, the
# triangle's inscribed circle has radius 0.55, the heart is a unit square with two half discs of
# radius 0.5, and the star is ten triangles with sides 1 and 0.45 at 36 degrees.
AREAS = {
    "circle": np.pi * 0.9**2,
    "square": 1.56**2,
    "triangle": 3 * np.sqrt(3) * 0.55**2,
    "diamond": 2 * 0.66,
    "star": 10 * 0.5 * 0.45 * np.sin(np.pi / 5),
    "cross": 2 * 0.6 * 1.84 - 0.6**2,
    "ring": np.pi * (0.94**2 - 0.46**2),
    "heart": 1 + np.pi * 0.5**2,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_the_area_of_their_geometry(shape: str) -> None:
    scene = Scene((Group(1, "black", shape, "large"),), None, "pink")
    size = 256
    for seed in range(4):
        (placed,) = layout(scene, seed)
        picture = render(scene, seed=seed, size=size)
        covered = (picture.max(axis=-1) < 130).sum()
        assert covered / (placed.radius * size) ** 2 == pytest.approx(AREAS[shape], rel=0.03)


def test_edges_are_antialiased() -> None:
    picture = render(Scene((Group(1, "black", "circle", "large"),), None, "pink"), seed=0)
    darkness = picture.max(axis=-1)
    between = (darkness > 70) & (darkness < 190)
    assert between.sum() > 20


def test_named_backgrounds_look_like_their_name() -> None:
    for name in BACKGROUNDS:
        for seed in range(10):
            picture = render(Scene((Group(1, "red", "ring"),), None, name), seed=seed)
            values = picture.reshape(-1, 3).astype(float)
            distance = np.abs(np.median(values, axis=0) - BACKGROUND_VALUES[name]).max()
            assert distance < 20


def test_unnamed_backgrounds_vary() -> None:
    scene = Scene((Group(1, "red", "circle", "small"),))
    corners = np.array([render(scene, seed=seed)[0, 0] for seed in range(60)], dtype=float)
    assert corners.std(axis=0).min() > 25


def test_no_object_colour_comes_near_another_or_a_background() -> None:
    table = {**COLOUR_VALUES, **BACKGROUND_VALUES}
    for one, other in combinations(table, 2):
        if one in COLOURS or other in COLOURS:
            apart = np.abs(np.subtract(table[one], table[other])).max()
            # More than the jitter of both together, so that ranges never meet.
            assert apart > 28, (one, other)
