"""Scenes, their splits, and variants with exactly one mistake."""

import random
from collections import Counter
from dataclasses import astuple, replace

import pytest

from stablepref.benchmarks.shapes.world.errors import (
    ERROR_KINDS,
    GENERATOR_ERRORS,
    error_kinds,
    single_error,
)
from stablepref.benchmarks.shapes.world.scenes import SPLITS, Group, Scene, sample_scene, split_of

CIRCLE = Group(1, "red", "circle")
SQUARE = Group(1, "blue", "square")
STAR = Group(1, "green", "star")


def many_scenes(number: int = 400) -> list[Scene]:
    rng = random.Random(0)
    return [sample_scene(rng) for _ in range(number)]


def test_scenes_of_one_meaning_are_equal() -> None:
    assert Scene((CIRCLE, SQUARE)) == Scene((SQUARE, CIRCLE))
    assert hash(Scene((CIRCLE, SQUARE))) == hash(Scene((SQUARE, CIRCLE)))
    assert Scene((CIRCLE, SQUARE), "left of") != Scene((SQUARE, CIRCLE), "left of")


@pytest.mark.parametrize(
    ("groups", "relation", "background", "reason"),
    [
        ((), None, None, "1 to 3 groups"),
        ((CIRCLE, SQUARE, STAR, Group(1, "white", "ring")), None, None, "1 to 3 groups"),
        ((CIRCLE, replace(CIRCLE, count=2)), None, None, "same colour and shape"),
        ((replace(CIRCLE, count=4), replace(SQUARE, count=3)), None, None, "at most 6 objects"),
        ((replace(CIRCLE, size="large", count=3),), None, None, "sizes need"),
        ((CIRCLE,), "above", None, "at least two groups"),
        ((CIRCLE, SQUARE), "inside", None, "'inside' is not one of"),
        ((replace(CIRCLE, count=2), SQUARE, STAR), "above", None, "one object in each"),
        ((CIRCLE,), None, "mauve", "'mauve' is not one of"),
    ],
)
def test_scenes_outside_the_world_are_refused(
    groups: tuple[Group, ...], relation: str | None, background: str | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Scene(groups, relation, background)


@pytest.mark.parametrize(
    ("count", "colour", "shape", "size"),
    [(0, "red", "ring", ""), (5, "red", "ring", ""), (1, "mauve", "ring", ""),
     (1, "red", "cube", ""), (1, "red", "ring", "huge")],
)  # fmt: skip
def test_groups_outside_the_world_are_refused(
    count: int, colour: str, shape: str, size: str
) -> None:
    with pytest.raises(ValueError, match="not"):
        Group(count, colour, shape, size)


def test_sampling_is_a_function_of_the_seed_and_varied() -> None:
    scenes = many_scenes()
    assert scenes == many_scenes()
    assert {len(scene.groups) for scene in scenes} == {1, 2, 3}
    assert {scene.relation for scene in scenes} == {None, "left of", "above"}
    assert {group.count for scene in scenes for group in scene.groups} == {1, 2, 3, 4}
    assert len(set(scenes)) > 380


def test_splits_share_no_scene_and_have_their_shares() -> None:
    scenes = set(many_scenes(4000))
    counts = Counter(map(split_of, scenes))
    assert counts["train"] == pytest.approx(0.9 * len(scenes), rel=0.03)
    assert counts["test"] == pytest.approx(0.05 * len(scenes), rel=0.3)
    assert counts["validation"] == pytest.approx(0.05 * len(scenes), rel=0.3)
    rng = random.Random(1)
    drawn = {split: {sample_scene(rng, split) for _ in range(60)} for split in SPLITS}
    for split, members in drawn.items():
        assert {split_of(scene) for scene in members} == {split}
        assert not any(members & drawn[other] for other in SPLITS if other != split)


def test_the_split_of_a_scene_does_not_change_between_runs() -> None:
    # The first eight hexadecimal digits of `printf '%s' "..." | sha256sum`, modulo 100, are 46, 8
    # and 0: test below 5, validation below 10, train from there on.
    scenes = {
        split: Scene((Group(1, colour, shape),))
        for split, colour, shape in (
            ("train", "red", "circle"),
            ("validation", "orange", "heart"),
            ("test", "blue", "square"),
        )
    }
    assert repr(scenes["train"]) == (
        "Scene(groups=(Group(count=1, colour='red', shape='circle', size=''),), "
        "relation=None, background=None)"
    )
    assert {split: split_of(scene) for split, scene in scenes.items()} == {
        split: split for split in SPLITS
    }


def differing(one: Group, other: Group) -> set[str]:
    names = ("count", "colour", "shape", "size")
    pairs = zip(names, astuple(one), astuple(other), strict=True)
    return {name for name, before, after in pairs if before != after}


def swap_is_one_mistake(scene: Scene, wrong: Scene, kind: str) -> None:
    reverses = {"left-right": "left of", "above-below": "above"}
    if kind in reverses:
        assert scene.relation == reverses[kind]
        assert wrong == replace(scene, groups=scene.groups[::-1])
    elif kind == "axis":
        assert {scene.relation, wrong.relation} == {"left of", "above"}
        assert wrong == replace(scene, relation=wrong.relation)
    elif kind == "background":
        assert scene.background is not None
        assert wrong.background not in (None, scene.background)
        assert wrong == replace(scene, background=wrong.background)
    else:
        assert kind == "binding"
        assert wrong.relation == scene.relation
        assert Counter(g.colour for g in wrong.groups) == Counter(g.colour for g in scene.groups)
        plain = [Counter(replace(g, colour="red") for g in s.groups) for s in (scene, wrong)]
        assert plain[0] == plain[1]
        assert len(set(scene.groups) - set(wrong.groups)) == 2


def group_is_one_mistake(scene: Scene, wrong: Scene, kind: str) -> None:
    before = list((Counter(scene.groups) - Counter(wrong.groups)).elements())
    after = list((Counter(wrong.groups) - Counter(scene.groups)).elements())
    assert wrong.background == scene.background
    if kind == "missing":
        assert (len(before), len(after)) == (1, 0)
        kept = [group for group in scene.groups if group != before[0]]
        assert list(wrong.groups) == kept
    elif kind == "extra":
        assert (len(before), len(after)) == (0, 1)
        assert after[0].count == 1
        assert all(after[0].colour != g.colour and after[0].shape != g.shape for g in scene.groups)
        assert wrong.relation == scene.relation
    else:
        assert (len(before), len(after)) == (1, 1)
        assert differing(before[0], after[0]) == {"count" if kind == "repeated" else kind}
        assert wrong.relation == scene.relation
        if scene.relation is not None:
            assert scene.groups.index(before[0]) == wrong.groups.index(after[0])
        if kind == "count":
            assert abs(before[0].count - after[0].count) == 1
            assert before[0].count > 1
        if kind == "repeated":
            assert (before[0].count, after[0].count) == (1, 2)


def test_each_error_changes_exactly_what_its_name_says() -> None:
    rng = random.Random(2)
    seen: Counter[str] = Counter()
    for scene in many_scenes():
        kinds = error_kinds(scene, GENERATOR_ERRORS)
        assert {"colour", "shape"} <= set(kinds)
        for kind in kinds:
            wrong = single_error(scene, kind, rng)
            assert wrong != scene
            seen[kind] += 1
            swaps = ("left-right", "above-below", "axis", "background", "binding")
            check = swap_is_one_mistake if kind in swaps else group_is_one_mistake
            check(scene, wrong, kind)
    assert set(seen) == set(GENERATOR_ERRORS)
    assert min(seen.values()) >= 20


def test_kinds_follow_from_the_scene() -> None:
    assert error_kinds(Scene((CIRCLE,))) == ("colour", "shape", "extra")
    related = error_kinds(Scene((CIRCLE, SQUARE), "left of", "grey"))
    assert {"left-right", "axis", "binding", "background", "missing"} <= set(related)
    assert "above-below" not in related
    # Exchanging the colours of two circles gives the same picture.
    assert "binding" not in error_kinds(Scene((CIRCLE, Group(1, "blue", "circle"))))


def test_what_generators_repeat_was_asked_for_once_and_has_room() -> None:
    def repeatable(*groups: Group, relation: str | None = None) -> bool:
        return "repeated" in error_kinds(Scene(groups, relation), GENERATOR_ERRORS)

    assert set(GENERATOR_ERRORS) - set(ERROR_KINDS) == {"repeated"}
    assert "repeated" not in error_kinds(Scene((CIRCLE,)))
    assert repeatable(CIRCLE)
    assert repeatable(CIRCLE, SQUARE, relation="above")
    assert not repeatable(Group(2, "red", "circle"))
    heart = Group(1, "white", "heart")
    assert repeatable(CIRCLE, SQUARE, heart)
    assert not repeatable(CIRCLE, SQUARE, heart, relation="above")
    large = Group(1, "red", "circle", "large")
    assert repeatable(large)
    assert not repeatable(large, SQUARE)
    assert not repeatable(Group(4, "red", "star"), heart, SQUARE)


def test_errors_that_cannot_be_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(ValueError, match="does not apply"):
        single_error(Scene((CIRCLE,)), "left-right", rng)
    with pytest.raises(ValueError, match="'tone' is not one of the errors"):
        single_error(Scene((CIRCLE,)), "tone", rng)
