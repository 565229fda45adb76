"""Several scorers as one: its arithmetic, and the contract of a scorer that it keeps."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.brightness import Brightness
from helpers.tiny import tiny_clip
from helpers.tiny_scorers import BUILDERS
from PIL import Image
from torch import Tensor

from stablepref.integrations.ensemble import Ensemble, reference_statistics
from stablepref.integrations.reward import DifferentiableReward
from stablepref.scorer import Scorer

PROMPTS = ["a red circle", "a photo of a cat", "a red circle", "two dogs in the snow"]
WEIGHTS = [0.5, -1.0, 2.0, 0.25, 1.5]
PAIRS = [(1.0, 2.0), (0.0, 0.5), (-3.0, 1.5), (0.1, 0.2), (4.0, 3.0)]


@pytest.fixture(scope="module")
def members() -> list[Scorer]:
    torch.manual_seed(0)
    names = ("clip", "hps", "imagereward", "blip", "aesthetic-mlp")
    return [BUILDERS[name]().eval() for name in names]


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.rand(4, 3, 80, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(2)
    shapes = [(80, 96), (64, 64), (100, 40), (30, 90)]
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in shapes]


def weighted(scores: list[Tensor]) -> Tensor:
    rows = zip(scores, WEIGHTS, PAIRS, strict=True)
    return torch.stack([w * (s - mean) / std for s, w, (mean, std) in rows]).sum(0)


@pytest.fixture(scope="module")
def ensemble(members: list[Scorer]) -> Ensemble:
    return Ensemble(members, weights=WEIGHTS, normalise=PAIRS)


def test_a_case_by_hand() -> None:
    """Half grey scores 0.5 and 5.0; (0.5 - 0.25) / 0.5 = 0.5 and (5 - 1) / 2 = 2."""
    members = [Brightness(), Brightness(10.0, unit="decibrights", name="ten")]
    grey = torch.full((1, 3, 8, 8), 0.5)
    ensemble = Ensemble(members, weights=[2.0, 3.0], normalise=[(0.25, 0.5), (1.0, 2.0)])
    assert ensemble.score(grey, "any").item() == pytest.approx(2 * 0.5 + 3 * 2.0)
    average = Ensemble(members, normalise=[(0.25, 0.5), (1.0, 2.0)])
    assert average.score(grey, "any").item() == pytest.approx((0.5 + 2.0) / 2)
    assert (average.name, average.protocol) == ("bright+ten", "clip")
    raw = Ensemble(members, weights=[1.0, 0.1])
    assert raw.score(grey, "any").item() == pytest.approx(1.0)


def test_scores_of_tensors_and_pictures_are_the_weighted_sums(
    ensemble: Ensemble, members: list[Scorer], pixels: Tensor, pictures: list[Image.Image]
) -> None:
    for images in (pixels, pictures):
        expected = weighted([scorer.score(images, PROMPTS) for scorer in members])
        found = ensemble.score(images, PROMPTS, batch_size=3)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        expected = weighted([scorer(pixels, PROMPTS) for scorer in members])
        torch.testing.assert_close(ensemble(pixels, PROMPTS), expected, rtol=1e-4, atol=1e-4)


def test_views_matrix_and_rank(
    ensemble: Ensemble, members: list[Scorer], pictures: list[Image.Image]
) -> None:
    viewed = [scorer.score(pictures, PROMPTS, views=2) for scorer in members]
    found = ensemble.score(pictures, PROMPTS, views=2)
    torch.testing.assert_close(found, weighted(viewed), rtol=1e-4, atol=1e-4)
    columns = PROMPTS[:2]
    matrix = ensemble.score_matrix(pictures, columns)
    expected = weighted([scorer.score_matrix(pictures, columns) for scorer in members])
    torch.testing.assert_close(matrix, expected, rtol=1e-4, atol=1e-4)
    order = [item.index for item in ensemble.rank(pictures, PROMPTS[0])]
    assert order == ensemble.score(pictures, PROMPTS[0]).argsort(descending=True).tolist()


def test_gradient_is_the_weighted_sum(members: list[Scorer], pixels: Tensor) -> None:
    doubles = [copy.deepcopy(scorer).double() for scorer in members]
    ensemble = Ensemble(doubles, weights=WEIGHTS, normalise=PAIRS)
    start = pixels[:2].double() * 0.8 + 0.1
    total = torch.zeros_like(start)
    for scorer, weight, (_, std) in zip(doubles, WEIGHTS, PAIRS, strict=True):
        leaf = start.clone().requires_grad_()
        total += weight / std * torch.autograd.grad(scorer(leaf, PROMPTS[:2]).sum(), leaf)[0]
    leaf = start.clone().requires_grad_()
    rewards = DifferentiableReward(ensemble)(leaf, PROMPTS[:2])
    (found,) = torch.autograd.grad(rewards.sum(), leaf)
    torch.testing.assert_close(found, total, rtol=1e-6, atol=1e-10)


def test_half_precision_members_keep_their_types(members: list[Scorer], pixels: Tensor) -> None:
    """Features cross the ensemble in float32 and come back as what the member made."""
    low = [copy.deepcopy(scorer).to(torch.bfloat16) for scorer in members]
    expected = weighted([scorer.score(pixels, PROMPTS) for scorer in low])
    found = Ensemble(low, weights=WEIGHTS, normalise=PAIRS).score(pixels, PROMPTS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_log_odds(pixels: Tensor) -> None:
    """A difference is the mean of the members' log-odds, and compare gives its probability."""
    first = tiny_clip(preference_scale=2.0)
    second = tiny_clip(protocol="hps", preference_scale=0.5)
    ensemble = Ensemble([first, second], normalise="log-odds")
    assert (ensemble.unit, ensemble.preference_scale) == ("log-odds of preference", 1.0)
    a, b = pixels[:1], pixels[1:2]
    margins = [scorer.score([a, b], "a cat") for scorer in (first, second)]
    log_odds = sum(
        scale * (scores[0] - scores[1]).item() / 2
        for scale, scores in zip((2.0, 0.5), margins, strict=True)
    )
    choice = ensemble.compare(a, b, "a cat")
    assert choice.margin == pytest.approx(log_odds, abs=1e-4)
    assert choice.probability == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-4)


def test_reference_statistics_by_hand() -> None:
    """Greys 0, 2, 4 tenths under one prompt and 8 tenths under another.

    The mean is 0.35; within prompts the squares are 0.04 + 0 + 0.04 on 4 - 2 degrees of freedom.
    """
    greys = [Image.new("RGB", (8, 8), (51 * i, 51 * i, 51 * i)) for i in (0, 1, 2, 4)]
    scorers = [Brightness(), Brightness(10.0)]
    prompts = ["a", "a", "a", "b"]
    (mean, std), (mean10, std10) = reference_statistics(scorers, greys, prompts)
    assert mean == pytest.approx(0.35, abs=1e-6)
    assert std == pytest.approx(0.2, abs=1e-6)
    assert (mean10, std10) == pytest.approx((3.5, 2.0), abs=1e-5)
    with pytest.raises(ValueError, match="each of the 4 prompts has one image"):
        reference_statistics(scorers, greys, ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="bright gives all images of a prompt one score"):
        reference_statistics(scorers, greys[:1] * 3, ["a"] * 3)
    with pytest.raises(TypeError, match="pass a list"):
        reference_statistics(scorers, iter(greys), prompts)  # type: ignore[arg-type] # the point


def test_copies_score_alike(ensemble: Ensemble, pictures: list[Image.Image]) -> None:
    expected = ensemble.score(pictures, PROMPTS)
    torch.testing.assert_close(copy.deepcopy(ensemble).score(pictures, PROMPTS), expected)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda a, b: Ensemble([]), ValueError, "at least one"),
        (lambda a, b: Ensemble([a, "hps"]), TypeError, "got str"),
        (lambda a, b: Ensemble([Ensemble([a])]), TypeError, "single scorers, got Ensemble"),
        (lambda a, b: Ensemble([a, b]), ValueError, "units differ.*pass normalise"),
        (lambda a, b: Ensemble([a, b], weights=[1.0]), ValueError, "2 finite numbers"),
        (lambda a, b: Ensemble([a], weights=[math.nan]), ValueError, "1 finite numbers"),
        (lambda a, b: Ensemble([a, b], normalise="log-odds"), ValueError, "bright: not trained"),
        (lambda a, b: Ensemble([a], normalise="batch"), ValueError, "got 'batch'"),
        (lambda a, b: Ensemble([a, b], normalise=[(0, 1)]), ValueError, "2 pairs"),
        (lambda a, b: Ensemble([a], normalise=[(0, 0)]), ValueError, "std above 0"),
    ],
)
def test_wrong_arguments(
    make: Callable[[Scorer, Scorer], object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        make(tiny_clip(), Brightness())


def test_an_ensemble_is_not_saved(ensemble: Ensemble, tmp_path: object) -> None:
    with pytest.raises(TypeError, match="save its scorers"):
        ensemble.save_pretrained(f"{tmp_path}/model")
