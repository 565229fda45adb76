"""Each fault does to the picture what its description says, measured on pixels and places."""

import random
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from stablepref.benchmarks.shapes.people.fidelity import (
    FAULT_COSTS,
    composed,
    fault_kinds,
    render_with_faults,
)
from stablepref.benchmarks.shapes.world.drawing import layout, render
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import Scene, sample_scene

PLAIN = parse("a red circle left of a blue square on a grey background")
EDGES = ("left", "right", "top", "bottom")


def related_scenes(number: int) -> list[Scene]:
    rng = random.Random(0)
    scenes = (sample_scene(rng) for _ in range(100 * number))
    return [scene for scene in scenes if scene.relation is not None][:number]


def difference(faults: dict[str, float], seed: int) -> NDArray[np.float64]:
    """What faults change in the picture of `PLAIN`."""
    faulty = render_with_faults(PLAIN, faults, seed=seed).astype(float)
    return faulty - render(PLAIN, seed=seed).astype(float)


def test_a_picture_without_faults_is_the_plain_one() -> None:
    for seed in range(5):
        assert (render_with_faults(PLAIN, {}, seed=seed) == render(PLAIN, seed=seed)).all()
        zeros = dict.fromkeys(FAULT_COSTS, 0.0)
        assert (render_with_faults(PLAIN, zeros, seed=seed) == render(PLAIN, seed=seed)).all()


def test_equal_seeds_draw_equal_pictures_and_every_fault_changes_them() -> None:
    for kind in FAULT_COSTS:
        one, other = (render_with_faults(PLAIN, {kind: 0.5}, seed=1) for _ in range(2))
        assert one.dtype == np.uint8
        assert one.shape == (64, 64, 3)
        assert (one == other).all()
        assert (one != render(PLAIN, seed=1)).any()
        assert (one != render_with_faults(PLAIN, {kind: 0.6}, seed=1)).any()
        assert render_with_faults(PLAIN, {kind: 0.5}, seed=1, size=96).shape == (96, 96, 3)


@pytest.mark.parametrize("severity", [0.3, 1.0])
def test_blur_is_gaussian(severity: float) -> None:
    picture = render(PLAIN, seed=2).astype(float)
    expected = ndimage.gaussian_filter(picture, (3 * severity, 3 * severity, 0), mode="nearest")
    found = render_with_faults(PLAIN, {"blur": severity}, seed=2).astype(float)
    assert np.abs(found - expected).mean() < 1
    assert np.abs(found - expected).max() < 12  # Pillow's blur is a sum of boxes
    assert np.abs(found - picture).mean() > 2


@pytest.mark.parametrize("severity", [0.25, 0.5])
def test_noise_has_its_standard_deviation(severity: float) -> None:
    changes = difference({"noise": severity}, seed=3)
    grey = np.abs(render(PLAIN, seed=3).astype(int) - 140).max(axis=-1) < 30
    assert changes[grey].std() == pytest.approx(48 * severity, rel=0.05)
    assert abs(changes[grey].mean()) < 1
    assert abs(np.corrcoef(changes[grey].T)[0, 1]) < 0.05  # channels are independent


@pytest.mark.parametrize("severity", [0.25, 1.0])
def test_contrast_shrinks_differences(severity: float) -> None:
    picture = render(PLAIN, seed=4).astype(float)
    found = render_with_faults(PLAIN, {"contrast": severity}, seed=4).astype(float)
    assert found.std() == pytest.approx((1 - 0.8 * severity) * picture.std(), rel=0.03)


def test_clutter_is_as_many_strokes_as_it_says() -> None:
    shares = []
    for severity in (0.01, 0.25, 0.5, 1.0):
        counts = []
        for seed in range(20):
            changed = np.abs(difference({"clutter": severity}, seed)).max(axis=-1) > 10
            counts.append(ndimage.label(changed, structure=np.ones((3, 3)))[1])
            assert changed.mean() < 0.25
        # Strokes can touch, or look like what is behind them.
        assert max(counts) <= np.ceil(24 * severity)
        shares.append(np.mean(counts))
    assert shares == sorted(shares)
    assert shares[2] > 6


@pytest.mark.parametrize("severity", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("edge", EDGES)
def test_cut_objects_stick_out_by_their_share(edge: str, severity: float) -> None:
    for seed, scene in enumerate(related_scenes(20)):
        places = layout(scene, seed)
        moved = composed(places, {"cut": severity}, edge)
        depths = []
        for one in moved:
            distance = {"left": one.x, "right": 1 - one.x, "top": one.y, "bottom": 1 - one.y}[edge]
            depths.append(1 - distance / one.radius)
            assert 0 <= one.x <= 1
            assert 0 <= one.y <= 1
        assert max(depths) == pytest.approx(severity)
        steps = {
            (round(b.x - a.x, 9), round(b.y - a.y, 9)) for a, b in zip(places, moved, strict=True)
        }
        assert len(steps) == 1


def test_a_cut_object_reaches_the_edge_of_the_picture() -> None:
    scene = parse("a large black square on a pink background")
    dark = render_with_faults(scene, {"cut": 0.8}, seed=0).max(axis=-1) < 90
    assert any(line.any() for line in (dark[0], dark[-1], dark[:, 0], dark[:, -1]))
    whole = render(scene, seed=0).max(axis=-1) < 90
    assert dark.sum() < 0.8 * whole.sum()
    assert not any(line.any() for line in (whole[0], whole[-1], whole[:, 0], whole[:, -1]))


@pytest.mark.parametrize("severity", [0.1, 0.7, 1.0])
def test_overlapping_objects_reach_into_each_other_by_their_share(severity: float) -> None:
    for seed, scene in enumerate(related_scenes(20)):
        moved = composed(layout(scene, seed), {"overlap": severity}, "left")
        depths = [
            (a.radius + b.radius - np.hypot(a.x - b.x, a.y - b.y)) / min(a.radius, b.radius)
            for a, b in combinations(moved, 2)
        ]
        assert max(depths) == pytest.approx(severity)


def test_moved_objects_keep_their_order() -> None:
    for seed, scene in enumerate(related_scenes(40)):
        axis = "x" if scene.relation == "left of" else "y"
        for edge in EDGES:
            moved = composed(layout(scene, seed), {"cut": 0.9, "overlap": 0.9}, edge)
            centres = [
                np.mean([getattr(one, axis) for one in moved if one.group == index])
                for index in range(len(scene.groups))
            ]
            assert centres == sorted(centres)


def test_one_object_overlaps_with_nothing() -> None:
    one = parse("a red circle")
    assert fault_kinds(one) == tuple(kind for kind in FAULT_COSTS if kind != "overlap")
    assert fault_kinds(parse("two red circles")) == tuple(FAULT_COSTS)
    with pytest.raises(ValueError, match="'overlap' is not one of blur, noise"):
        render_with_faults(one, {"overlap": 0.5}, seed=0)


@pytest.mark.parametrize("severity", [-0.1, 1.1, float("nan")])
def test_severities_out_of_range_are_refused(severity: float) -> None:
    with pytest.raises(ValueError, match=r"the severity of blur is .*; expected 0 to 1"):
        render_with_faults(PLAIN, {"blur": severity}, seed=0)
    with pytest.raises(ValueError, match="'glow' is not one of"):
        render_with_faults(PLAIN, {"glow": 0.5}, seed=0)
