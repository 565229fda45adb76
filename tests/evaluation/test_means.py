"""The mean over groups and its bootstrap: known distributions, pairing, and degenerate data."""

import math

import numpy as np
import pytest
import scipy.stats

from stablepref.evaluation.means import GroupMean, bootstrap, prompt_places


def mean_of(sums: list[float], counts: list[float]) -> GroupMean:
    """A `GroupMean` of plain lists."""
    return GroupMean(np.array(sums), np.array(counts))


def test_values_by_hand() -> None:
    mean = mean_of([3, 0, 1], [4, 0, 1])
    assert (mean.value, mean.count, mean.groups) == (4 / 5, 5, 2)
    assert mean.by_group().value == pytest.approx((3 / 4 + 1) / 2)
    assert (mean.by_group().count, mean.by_group().groups) == (2, 2)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """200 data sets of 100 groups; counts and means of a group depend on each other."""
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        chances = generator.beta(4, 2, size=100)  # mean 2/3
        pairs = generator.integers(3, 30, size=100)
        mean = GroupMean(generator.binomial(pairs, chances).astype(float), pairs.astype(float))
        interval = mean.interval(confidence=0.9, resamples=400, seed=seed)
        covered += interval.low <= 2 / 3 <= interval.high
    # 0.9 of 200 is 180; four standard deviations of a binomial are 17.
    assert 163 <= covered <= 197


def test_groups_are_drawn_whole() -> None:
    """Ten groups of a thousand equal pairs have the uncertainty of ten, not of ten thousand."""
    wide = mean_of([1000, 0] * 5, [1000] * 10).interval()
    assert wide.high - wide.low > 0.4


def test_groups_of_a_prompt_are_drawn_together() -> None:
    """Against a naive loop over the same draws of prompts, with prompts of one to four groups."""
    generator = np.random.default_rng(7)
    prompts = generator.choice(list("abcdefghij"), size=25).tolist()
    counts = generator.integers(0, 9, size=25).astype(float)
    mean = GroupMean(generator.binomial(counts.astype(int), 0.6).astype(float), counts)
    different = list(dict.fromkeys(prompts))
    drawn = bootstrap(lambda places: places.T.astype(float), len(different), resamples=500).draws
    means = []
    for places in drawn.astype(int).T:
        right = total = 0.0
        for place in places:
            for group, prompt in enumerate(prompts):
                if prompt == different[place]:
                    right, total = right + mean.sums[group], total + mean.counts[group]
        means.append(right / total)
    joined = mean.by_prompt(prompts)
    assert (joined.value, joined.count) == (pytest.approx(mean.value), mean.count)
    assert joined.groups == len({p for p, n in zip(prompts, counts, strict=True) if n})
    low, high = np.quantile(means, [0.025, 0.975])
    assert joined.interval(resamples=500)[1:] == pytest.approx((low, high))


def test_prompts_that_all_differ_change_no_bit() -> None:
    generator = np.random.default_rng(8)
    mean = GroupMean(generator.random(40), np.ones(40))
    joined = mean.by_prompt([f"prompt {place}" for place in range(40)])
    assert joined.sums.tobytes() == mean.sums.tobytes()
    assert joined.interval() == mean.interval()
    assert prompt_places(["b", "a", "b"]).tolist() == [0, 1, 0]
    assert mean_of([], []).by_prompt([]).count == 0
    with pytest.raises(ValueError, match="2 prompts for 40 groups; expected one each"):
        mean.by_prompt(["a", "b"])


def test_the_interval_over_prompts_covers_the_truth_where_groups_of_a_prompt_agree() -> None:
    """30 prompts of 10 groups that say the same: drawn one by one they would cover far less."""
    generator = np.random.default_rng(9)
    prompts = [place for place in range(30) for _ in range(10)]
    covered = {"prompts": 0, "groups": 0}
    for seed in range(200):
        right = np.repeat(generator.random(30) < 0.6, 10).astype(float)
        mean = GroupMean(right, np.ones(300))
        for name, one in (("prompts", mean.by_prompt(prompts)), ("groups", mean)):
            interval = one.interval(confidence=0.9, resamples=300, seed=seed)
            covered[name] += interval.low <= 0.6 <= interval.high
    # 0.9 of 200 is 180; a bootstrap of 30 is a little narrow.
    assert 160 <= covered["prompts"] <= 197
    assert covered["groups"] < 120


def test_equal_seeds_draw_equal_groups_and_block_size_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(1)
    mean = GroupMean(generator.random(30), np.ones(30))
    whole = mean.interval(seed=3)
    assert whole == mean.interval(seed=3)
    assert whole != mean.interval(seed=4)
    monkeypatch.setattr("stablepref.evaluation.means._BLOCK", 70)
    assert whole == pytest.approx(mean.interval(seed=3))


def test_a_paired_difference_is_sharper_than_its_parts() -> None:
    generator = np.random.default_rng(2)
    difficulty = generator.random(50)
    first = GroupMean(difficulty + 0.10 + 0.01 * generator.random(50), np.ones(50))
    second = GroupMean(difficulty + 0.01 * generator.random(50), np.ones(50))
    change = first.difference(second)
    assert change.value == pytest.approx(first.value - second.value)
    assert 0.09 < change.low < change.value < change.high < 0.11
    assert first.interval().low < second.interval().high  # alone they cannot be told apart
    with pytest.raises(ValueError, match="50 and 1 groups"):
        first.difference(mean_of([1], [1]))


@pytest.mark.parametrize("groups", [0, 3])
def test_nothing_counted_is_not_a_number(groups: int) -> None:
    mean = GroupMean(np.zeros(groups), np.zeros(groups))
    assert all(math.isnan(x) for x in (mean.value, mean.by_group().value, *mean.interval()))


def test_one_group_has_no_spread() -> None:
    assert mean_of([3], [4]).interval() == (0.75, 0.75, 0.75)


def test_resamples_with_nothing_counted_are_left_out() -> None:
    """Of three groups only the first counts: every third resample or so has nothing."""
    found = bootstrap(lambda places: np.where((places == 0).any(-1), 0.25, np.nan), 3)
    assert np.isnan(found.draws).mean() == pytest.approx((2 / 3) ** 3, abs=0.05)
    assert found.bounds.tolist() == [0.25, 0.25]
    assert mean_of([1, 0, 0], [4, 0, 0]).interval() == (0.25, 0.25, 0.25)


def test_several_numbers_are_computed_on_the_same_draws() -> None:
    values = np.random.default_rng(4).random(20)

    def two(places: np.ndarray) -> np.ndarray:
        means = values[places].mean(axis=-1)
        return np.stack([means, -means])

    found = bootstrap(two, 20, resamples=300, seed=5)
    assert found.draws.shape == (2, 300)
    assert found.bounds[:, 0].tolist() == pytest.approx((-found.bounds[::-1, 1]).tolist())
    # scipy's own interval of the same draws, as its documentation describes it.
    theirs = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=300,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert found.bounds[:, 0].tolist() == pytest.approx([theirs.low, theirs.high])


def test_confidence_is_checked() -> None:
    with pytest.raises(ValueError, match="confidence is 95"):
        mean_of([1], [1]).interval(confidence=95)
