"""What a demonstration says of a choice under perturbations."""

import math

import numpy as np
import pytest
from helpers.brightness import Brightness
from helpers.tiny import tiny_clip
from PIL import Image
from scipy.stats import spearmanr

from stablepref.augment.perturbations import MIRRORING, PERTURBATIONS
from stablepref.benchmarks.demo.stability import (
    WEAK_VIEWS,
    Perturbed,
    in_words,
    kept_perturbations,
    stability,
)

PROMPT = "a red circle"


def framed(inside: int, outside: int) -> Image.Image:
    """A grey square of 80 pixels in a frame of 10."""
    values = np.full((100, 100, 3), outside, dtype=np.uint8)
    values[10:90, 10:90] = inside
    return Image.fromarray(values)


# Bright by its frame, evenly bright, and dark: a crop takes the first one's lead.
PICTURES = {4: framed(100, 180), 0: framed(120, 120), 7: framed(60, 60)}


@pytest.fixture(scope="module")
def rows() -> dict[str, Perturbed]:
    found = stability(Brightness(), PROMPT, list(PICTURES), PICTURES.__getitem__)
    return {one.name: one for one in found}


def test_a_choice_that_a_crop_turns_round(rows: dict[str, Perturbed]) -> None:
    """Of the 90 middle pixels of each side 80 are inside: 100 x 0.79 + 180 x 0.21 = 116.8."""
    cut = rows["crop-0.9"]
    assert (cut.place, cut.rival, cut.stays) == (2, 0, False)
    assert cut.margin == pytest.approx((100 * 0.7901 + 180 * 0.2099 - 120) / 255, abs=0.01)
    mirrored = rows["hflip"]
    assert (mirrored.place, mirrored.rival, mirrored.stays) == (1, 0, True)
    # Unperturbed it is 100 x 0.64 + 180 x 0.36 = 128.8.
    assert mirrored.margin == pytest.approx((128.8 - 120) / 255, abs=0.01)
    assert mirrored.correlation == pytest.approx(1)
    assert cut.correlation == pytest.approx(0.5)  # two neighbours of three changed places


def test_every_perturbation_has_a_row_and_words(rows: dict[str, Perturbed]) -> None:
    assert list(rows) == [WEAK_VIEWS, *PERTURBATIONS]
    assert all(map(in_words, rows))
    assert len(set(map(in_words, rows))) == len(rows)


def test_pictures_of_prompts_that_name_a_side_are_not_mirrored() -> None:
    names = kept_perturbations("a red circle left of a blue star")
    assert names == [name for name in PERTURBATIONS if name not in MIRRORING]
    assert kept_perturbations(PROMPT) == list(PERTURBATIONS)


def test_numbers_are_those_of_the_scorer() -> None:
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(5)
    ]
    scorer = tiny_clip()
    own = scorer.score(pictures, PROMPT).numpy()
    order = np.argsort(-own).tolist()
    for one in stability(scorer, PROMPT, order, pictures.__getitem__):
        if one.name == WEAK_VIEWS:
            scores = scorer.score(pictures, PROMPT, views=8).numpy()
        else:
            changed = [PERTURBATIONS[one.name](picture) for picture in pictures]
            scores = scorer.score(changed, PROMPT).numpy()
        others = [index for index in range(5) if index != order[0]]
        rival = max(others, key=scores.__getitem__)
        assert one.rival == rival
        assert one.margin == pytest.approx(scores[order[0]] - scores[rival], abs=1e-4)
        assert one.place == 1 + sum(scores[index] > scores[order[0]] for index in others)
        spread = scorer.compare(pictures[order[0]], pictures[rival], PROMPT).spread
        assert one.spread == pytest.approx(spread, abs=1e-4)
        assert one.tie == (abs(one.margin) <= one.spread)
        assert one.correlation == pytest.approx(spearmanr(own, scores).statistic)


def test_scores_that_are_all_equal_have_no_correlation() -> None:
    same = {0: framed(9, 9), 1: framed(9, 9)}
    for one in stability(Brightness(), PROMPT, [0, 1], same.__getitem__):
        assert math.isnan(one.correlation)
        assert one.stays
        assert one.tie


def test_a_score_that_is_not_finite_is_told() -> None:
    with pytest.raises(ValueError, match=r"candidate 4 under weak-views: the model's score is nan"):
        stability(Brightness(math.nan), PROMPT, list(PICTURES), PICTURES.__getitem__)
