"""The shapes world: what is drawn is what is said."""

import random
from itertools import pairwise

import numpy as np
import pytest
from stablepref.benchmarks.shapes.drawing import COLOUR_VALUES, layout, render
from stablepref.benchmarks.shapes.errors import ERROR_KINDS, error_kinds, single_error
from stablepref.benchmarks.shapes.language import EXAMPLES, PromptError, describe, parse
from stablepref.benchmarks.shapes.render import draw_prompt
from stablepref.benchmarks.shapes.scenes import Group, Scene, sample_scene, split_of


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng) for _ in range(count)]


def test_pictures_repeat_by_seed_and_differ_between_seeds() -> None:
    scene = parse("a red circle left of a blue square")
    assert np.array_equal(render(scene, seed=3), render(scene, seed=3))
    assert not np.array_equal(render(scene, seed=3), render(scene, seed=4))
    assert render(scene, seed=3, size=100).shape == (100, 100, 3)
    assert render(scene, seed=3).dtype == np.uint8


def test_every_paraphrase_parses_back_to_its_scene() -> None:
    rng = random.Random(1)
    for scene in scenes(500):
        assert parse(describe(scene)) == scene
        assert parse(describe(scene, rng)) == scene
    for example in EXAMPLES:
        parse(example)


def test_equal_meanings_are_equal_scenes() -> None:
    first = parse("a red circle left of a blue square")
    assert parse("a blue square right of a red circle") == first
    assert parse("A  red circle left of a blue square.") == first
    assert parse("a blue square left of a red circle") != first


@pytest.mark.parametrize("prompt", ["", "a mauve circle", "nine red circles", "a red circle over"])
def test_prompts_outside_the_grammar_show_what_would_do(prompt: str) -> None:
    with pytest.raises(PromptError, match="a red circle left of a blue square"):
        parse(prompt)


def test_objects_have_their_colours() -> None:
    solid = ("circle", "square", "diamond", "heart")
    checked = 0
    for number, scene in enumerate(scenes(300)):
        picture = render(scene, seed=number, size=128)
        for placed in layout(scene, number):
            group = scene.groups[placed.group]
            if group.shape not in solid:
                continue
            x, y = int(placed.x * 128), int(placed.y * 128)
            found = picture[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(axis=0)
            assert np.abs(found - COLOUR_VALUES[group.colour]).max() < 30
            checked += 1
    assert checked > 200


def test_relations_hold_between_the_centres() -> None:
    checked = 0
    for number, scene in enumerate(scenes(400)):
        if scene.relation is None:
            continue
        centres: dict[int, list[float]] = {}
        for placed in layout(scene, number):
            along = placed.x if scene.relation == "left of" else placed.y
            centres.setdefault(placed.group, []).append(along)
        ordered = [centres[i] for i in range(len(scene.groups))]
        for before, after in pairwise(ordered):
            assert max(before) < min(after)
            checked += 1
    assert checked > 100


def test_every_object_is_drawn() -> None:
    for number, scene in enumerate(scenes(200)):
        placed = layout(scene, number)
        assert len(placed) == scene.objects
        for index, group in enumerate(scene.groups):
            assert sum(p.group == index for p in placed) == group.count


def test_a_single_error_changes_just_what_it_says() -> None:
    rng = random.Random(2)
    seen = set()
    for scene in scenes(400):
        for kind in error_kinds(scene):
            wrong = single_error(scene, kind, rng)
            seen.add(kind)
            assert wrong != scene
            changed = set(scene.groups) ^ set(wrong.groups)
            if kind in ("left-right", "above-below", "axis", "background"):
                assert not changed
            if kind == "left-right":
                assert wrong.groups == scene.groups[::-1]
                assert wrong.relation == scene.relation == "left of"
            if kind in ("colour", "shape", "size", "count"):
                (before,) = set(scene.groups) - set(wrong.groups)
                (after,) = set(wrong.groups) - set(scene.groups)
                different = [
                    name
                    for name in ("colour", "shape", "size", "count")
                    if getattr(before, name) != getattr(after, name)
                ]
                assert different == [kind]
            if kind == "missing":
                assert wrong.objects < scene.objects
            if kind == "extra":
                assert wrong.objects > scene.objects
            if kind == "binding":
                assert sorted(g.colour for g in wrong.groups) == sorted(
                    g.colour for g in scene.groups
                )
                assert sorted(g.shape for g in wrong.groups) == sorted(
                    g.shape for g in scene.groups
                )
    assert seen == set(ERROR_KINDS)


def test_splits_share_no_scene() -> None:
    rng = random.Random(3)
    found = {
        split: {sample_scene(rng, split) for _ in range(200)}
        for split in ("train", "validation", "test")
    }
    assert all(split_of(scene) == split for split, members in found.items() for scene in members)
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]


def test_scenes_outside_the_world_are_refused() -> None:
    circle = Group(1, "red", "circle")
    with pytest.raises(ValueError, match="same colour and shape"):
        Scene((circle, circle))
    with pytest.raises(ValueError, match="at least two groups"):
        Scene((circle,), relation="left of")


def test_the_first_picture_of_a_prompt_is_the_correct_one() -> None:
    prompt = "a red circle left of a blue square"
    drawn = list(draw_prompt(prompt, n=9))
    labels = [label for label, _ in drawn]
    assert labels[0] == "correct"
    assert all(label.startswith("wrong-") for label in labels[1:])
    assert len(set(labels[1:7])) == 6
    again = list(draw_prompt(prompt, n=9))
    assert all(a.tobytes() == b.tobytes() for (_, a), (_, b) in zip(drawn, again, strict=True))
    with pytest.raises(ValueError, match="1 or more"):
        next(draw_prompt(prompt, n=0))
