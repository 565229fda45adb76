"""Preferences collected in the laboratory: the same for the same seed, disjoint between splits."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from stablepref.benchmarks.shapes.people.collect import Collected, collect
from stablepref.benchmarks.shapes.people.generators import GENERATORS
from stablepref.benchmarks.shapes.people.settings import HPDV2, IMAGEREWARD, SETTINGS, Setting
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import SPLITS, Split, split_of


def first(
    number: int,
    setting: Setting = HPDV2,
    split: Split = "test",
    seed: int = 0,
    size: int | None = None,
    annotators: int | None = None,
) -> list[Collected]:
    collected = collect(setting, split=split, seed=seed, size=size, annotators=annotators)
    return list(islice(collected, number))


def same(one: Collected, other: Collected) -> bool:
    plain = (one.name, one.prompt, one.pictures, one.people)
    return plain == (other.name, other.prompt, other.pictures, other.people) and np.array_equal(
        one.annotations, other.annotations
    )


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
def test_groups_depend_on_setting_split_seed_and_position_alone(setting: Setting) -> None:
    groups = first(6, setting)
    assert all(same(a, b) for a, b in zip(groups, first(6, setting), strict=True))
    assert all(same(a, b) for a, b in zip(groups, first(4, setting), strict=False))
    assert not any(same(a, b) for a, b in zip(groups, first(6, setting, seed=1), strict=True))


def test_prompts_describe_what_was_wanted_and_splits_share_nothing() -> None:
    scenes = {}
    for split in SPLITS:
        groups = first(60, split=split)
        scenes[split] = [parse(group.prompt) for group in groups]
        for group, scene in zip(groups, scenes[split], strict=True):
            assert split_of(scene) == split
            assert all(picture.wanted == scene for picture in group.pictures)
        assert len(set(scenes[split])) == 60
    assert len(set().union(*scenes.values())) == 180


def test_nine_generators_answer_each_prompt_of_hpdv2() -> None:
    orders = set()
    for group in first(20):
        names = [picture.generator for picture in group.pictures]
        assert sorted(names) == sorted(GENERATORS)
        orders.add(tuple(names))
    assert len(orders) == 20  # a place says nothing about skill


def test_groups_of_imagereward_have_its_sizes() -> None:
    groups = first(400, IMAGEREWARD)
    sizes = Counter(len(group.pictures) for group in groups)
    assert set(sizes) <= {4, 5, 6, 7, 8, 9}
    # 194 and 159 of 466 prompts of the test split; the standard deviation is 10.
    assert abs(sizes[4] - 400 * 194 / 466) < 40
    assert abs(sizes[7] - 400 * 159 / 466) < 40
    names = {picture.generator for group in groups for picture in group.pictures}
    assert names == set(IMAGEREWARD.generators)
    assert {len(group.pictures) for group in first(5, IMAGEREWARD, size=9)} == {9}


def test_as_many_people_rank_as_the_setting_says() -> None:
    assert {len(group.annotations) for group in first(5, split="train")} == {1}
    assert {len(group.annotations) for group in first(5, split="test")} == {10}
    groups = first(200, annotators=4)
    for group in groups:
        assert group.annotations.shape == (4, 9)
        assert len(set(group.people)) == 4
        assert sorted(group.annotations[0].tolist()) == list(range(1, 10))
    assert {person for group in groups for person in group.people} == set(range(HPDV2.people))
    for number in (0, HPDV2.people + 1):
        with pytest.raises(ValueError, match=f"annotators is {number}; expected 1 to 50"):
            first(1, annotators=number)


def test_a_person_has_one_taste_in_all_groups_and_splits() -> None:
    # Nearly without noise people who want the same agree on everything, and people who do not
    # agree with themselves alone.
    sharp = replace(HPDV2, people=2, noise=1e-6, lapse=0.0)
    for split in ("validation", "test"):
        equal = first(10, replace(sharp, spread=0.0), split, annotators=2)
        assert all((group.annotations[0] == group.annotations[1]).all() for group in equal)
    one, other = (
        {group.name: group for group in first(20, replace(sharp, noise=noise), annotators=2)}
        for noise in (1e-6, 1e-7)
    )
    assert all(np.array_equal(one[name].annotations, other[name].annotations) for name in one)
    assert any((group.annotations[0] != group.annotations[1]).any() for group in one.values())
