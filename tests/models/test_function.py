"""A function as a scorer: what it is called with, and how its faults are reported."""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_clip
from helpers.tiny_pipelines import build
from PIL import Image

import stablepref
from stablepref.augment.perturbations import PERTURBATIONS
from stablepref.augment.views import weak_view_boxes
from stablepref.benchmarks.bench.judges import ModelJudge
from stablepref.data.groups import RankedGroup
from stablepref.images.sources import ImageError
from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.ensemble import Ensemble
from stablepref.integrations.monitor import RewardMonitor
from stablepref.integrations.reward import DifferentiableReward
from stablepref.integrations.sampled_rewards import ddpo_pytorch
from stablepref.models.function import FunctionScorer
from stablepref.scoring.batching import VIEW_SEED
from stablepref.training.freezing import freeze
from stablepref.weights.fingerprint import weights_digest

SIZES = [(80, 96), (64, 64), (100, 40), (30, 90), (71, 70)]


def redness(image: Image.Image, prompt: str) -> float:
    """Mean red, 0 to 255, and ten more for each letter of the prompt."""
    return float(np.asarray(image)[..., 0].mean()) + 10 * len(prompt)


def red(images: list[Image.Image], prompts: list[str]) -> list[float]:
    return [redness(image, prompt) for image, prompt in zip(images, prompts, strict=True)]


def scorer_of(fn: Callable[[list[Image.Image], list[str]], object] = red) -> FunctionScorer:
    return FunctionScorer(fn, name="red", unit="levels")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(2)
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in SIZES]


def test_scores_are_the_functions_numbers(pictures: list[Image.Image]) -> None:
    prompts = ["a", "ab", "abc", "abcd", "abcde"]
    expected = [redness(image, prompt) for image, prompt in zip(pictures, prompts, strict=True)]
    scorer = scorer_of()
    for batch_size in (None, 1, 2):
        scores = scorer.score(pictures, prompts, batch_size=batch_size)
        assert scores.tolist() == pytest.approx(expected)
        assert scores.dtype == torch.float32
    assert [item.score for item in scorer.stream(iter(pictures), prompts)] == pytest.approx(
        expected
    )
    ranked = scorer.rank(pictures, "a")
    own = [redness(image, "a") for image in pictures]
    assert [item.index for item in ranked] == np.argsort(own)[::-1].tolist()
    assert (scorer.name, scorer.unit, scorer.protocol) == ("red", "levels", "as they are")
    assert stablepref.FunctionScorer is FunctionScorer


def test_pictures_reach_the_function_in_their_own_size(pictures: list[Image.Image]) -> None:
    seen: list[tuple[str, tuple[int, int]]] = []

    def watched(images: list[Image.Image], prompts: list[str]) -> list[float]:
        seen.extend((image.mode, image.size) for image in images)
        return [0.0] * len(images)

    scorer_of(watched).score([*pictures, np.zeros((9, 5), np.uint8)], "a")
    sizes = [(width, height) for height, width in [*SIZES, (9, 5)]]
    assert seen == [("RGB", size) for size in sizes]


def test_the_matrix_holds_every_pair(pictures: list[Image.Image]) -> None:
    matrix = scorer_of().score_matrix(pictures, ["a", "abc"], batch_size=2)
    expected = [[redness(image, prompt) for prompt in ("a", "abc")] for image in pictures]
    np.testing.assert_allclose(matrix.numpy(), expected, rtol=1e-6)


def test_float_pixels_are_rounded_to_eight_bits() -> None:
    pixels = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    expected = [(255 * one[0]).round().mean().item() + 10 for one in pixels]
    scorer = scorer_of()
    assert scorer.score(pixels, "a").tolist() == pytest.approx(expected)
    assert scorer(pixels, ["a", "a"]).tolist() == pytest.approx(expected)


def test_weak_views_are_cut_out_at_whole_pixels(pictures: list[Image.Image]) -> None:
    boxes, flips = weak_view_boxes([0], 8, seed=VIEW_SEED, hflip=True)
    assert flips.any()

    def leftmost(images: list[Image.Image], prompts: list[str]) -> list[float]:
        return [float(np.asarray(image)[:, 0, 0].mean()) for image in images]

    for item, picture in zip(
        scorer_of(leftmost).stream(pictures, "a cat", views=8), pictures, strict=True
    ):
        values = np.asarray(picture)
        expected = [values[:, 0, 0].mean()]
        for box, flip in zip(boxes[0].tolist(), flips[0].tolist(), strict=True):
            left, right = (round(x * picture.width) for x in (box[0], box[2]))
            top, bottom = (round(y * picture.height) for y in (box[1], box[3]))
            crop = values[top:bottom, left:right, 0]
            expected.append(crop[:, -1 if flip else 0].mean())
        assert item.view_scores == pytest.approx(expected, rel=1e-5)


def test_compare_is_a_tie_within_the_spread_over_views() -> None:
    dark, light = (Image.new("RGB", (40, 40), (level, 0, 0)) for level in (50, 200))
    choice = scorer_of().compare(dark, light, "a")
    assert (choice.preferred, choice.margin, choice.spread) == ("b", -150, 0)
    assert choice.probability is None
    scaled = FunctionScorer(red, name="red", unit="levels", preference_scale=0.01)
    assert scaled.compare(dark, light, "a").probability == pytest.approx(1 / (1 + math.exp(1.5)))
    assert scorer_of().compare(dark, dark, "a").preferred == "tie"


@pytest.mark.parametrize(
    ("returned", "error", "says"),
    [
        ([1.0], ValueError, r"shape \(1,\) for 5 images; expected one number for each image"),
        ([[1.0]] * 5, ValueError, r"shape \(5, 1\) for 5 images"),
        (1.0, ValueError, r"shape \(\)"),
        (["good"] * 5, TypeError, "returned a list that does not hold numbers"),
        (None, TypeError, "returned a NoneType that does not hold numbers, None"),
        (["0.5"] * 5, TypeError, "returned a list that does not hold numbers"),
        ([[1.0], [1.0, 2.0]], TypeError, "returned a list that does not hold numbers"),
        ({"a": 1}, TypeError, "returned a dict that does not hold numbers"),
    ],
)
def test_wrong_returns_name_the_function(
    pictures: list[Image.Image], returned: object, error: type[Exception], says: str
) -> None:
    def wrong(images: list[Image.Image], prompts: list[str]) -> object:
        return returned

    with pytest.raises(error, match=says) as caught:
        scorer_of(wrong).score(pictures, "a")
    assert "test_function.test_wrong_returns_name_the_function" in str(caught.value)
    assert "of the scorer 'red'" in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_an_error_of_its_image(
    pictures: list[Image.Image], value: float
) -> None:
    def odd(images: list[Image.Image], prompts: list[str]) -> list[float]:
        return [value if image is pictures[2] else 1.0 for image in images]

    scorer = scorer_of(odd)
    with pytest.raises(ImageError, match=r"image 2 .*: the model's score is") as caught:
        scorer.score(pictures, "a")
    assert caught.value.scores is not None
    assert caught.value.scores.tolist() == [1.0, 1.0]
    rows = list(scorer.stream(iter(pictures), "a"))
    assert [row.error is None for row in rows] == [True, True, False, True, True]
    assert math.isnan(rows[2].score)
    rewarding = scorer_of(lambda images, prompts: [value])
    with pytest.raises(ValueError, match=r"of the scorer 'red' returned .* for the prompt 'a'"):
        rewarding(torch.zeros(1, 3, 8, 8), ["a"])


def test_an_error_of_the_function_names_it(pictures: list[Image.Image]) -> None:
    def broken(images: list[Image.Image], prompts: list[str]) -> list[float]:
        raise KeyError("no such label")

    with pytest.raises(RuntimeError, match=r"broken of the scorer 'red' .*KeyError.*label"):
        scorer_of(broken).score(pictures, "a")


def test_memory_that_runs_out_in_the_function_halves_the_batch(
    pictures: list[Image.Image],
) -> None:
    sizes: list[int] = []

    def hungry(images: list[Image.Image], prompts: list[str]) -> list[float]:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return red(images, prompts)

    scores = scorer_of(hungry).score(pictures, "a", batch_size=4)
    assert scores.tolist() == pytest.approx(red(pictures, ["a"] * 5))
    assert sizes == [4, 2, 2, 1]


def test_a_bad_image_is_that_images_error(pictures: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"x")
    items = list(scorer_of().stream(iter([pictures[0], tmp_path / "bad.png", pictures[1]]), "a"))
    assert [item.error is None for item in items] == [True, False, True]
    assert "bad.png" in str(items[1].error)
    assert items[2].score == pytest.approx(redness(pictures[1], "a"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"fn": "red"}, "fn is a str; expected a function"),
        ({"name": ""}, "name is ''"),
        ({"unit": None}, "unit is None"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], says: str) -> None:
    given: dict[str, object] = {"fn": red, "name": "red", "unit": "levels", **arguments}
    with pytest.raises(TypeError, match=says):
        FunctionScorer(**given)  # type: ignore[arg-type] # the point of the test


def test_there_is_no_gradient_and_it_says_so() -> None:
    scorer, pixels = scorer_of(), torch.rand(1, 3, 8, 8)
    reward = DifferentiableReward(scorer, views=2)
    assert reward(pixels, ["a"]).shape == (1,)
    with pytest.raises(ValueError, match=r"red has no gradient.*policy gradients"):
        reward(pixels.clone().requires_grad_(), ["a"])
    with pytest.raises(TypeError, match="cannot give a gradient to the pixels"):
        scorer(pixels.clone().requires_grad_(), ["a"])
    for call in (lambda: scorer.encode_images(pixels), lambda: scorer.encode_prompts(["a"])):
        with pytest.raises(TypeError, match="without gradient and features"):
            call()
    with pytest.raises(ValueError, match="red is a FunctionScorer, which does not have an image"):
        freeze(scorer, image_blocks=None, text_blocks=None)


def test_it_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"stablepref\.register or an entry point"):
        scorer_of().save_pretrained(tmp_path / "model")


def test_another_function_has_another_fingerprint() -> None:
    def blue(images: list[Image.Image], prompts: list[str]) -> list[float]:
        return [0.0 for _ in images]

    assert weights_digest(scorer_of()) == weights_digest(scorer_of())
    assert weights_digest(scorer_of()) != weights_digest(scorer_of(blue))
    assert weights_digest(copy.deepcopy(scorer_of())) == weights_digest(scorer_of())


def test_an_ensemble_of_a_function_and_a_model(pictures: list[Image.Image]) -> None:
    members = [tiny_clip(), scorer_of()]
    ensemble = Ensemble(members, weights=[2.0, 0.5], normalise=[(1.0, 2.0), (100.0, 10.0)])
    own, function = (scorer.score(pictures, "a cat", views=2) for scorer in members)
    expected = 2.0 * (own - 1) / 2 + 0.5 * (function - 100) / 10
    found = ensemble.score(pictures, "a cat", views=2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    matrix = ensemble.score_matrix(pictures, ["a cat"])[:, 0]
    torch.testing.assert_close(matrix, ensemble.score(pictures, "a cat"), rtol=1e-4, atol=1e-4)
    pixels = torch.rand(2, 3, 20, 30)
    with torch.no_grad():
        forward = ensemble(pixels, ["a", "b"])
    torch.testing.assert_close(forward, ensemble.score(pixels, ["a", "b"]), rtol=1e-4, atol=1e-4)


def test_evaluation_and_perturbations_take_it() -> None:
    """Brightest first is the people's order too; an image under two prompts is scored for both."""
    greys = [Image.new("RGB", (40, 30 + level), (level, 0, 0)) for level in (10, 90, 200)]
    groups = [RankedGroup(prompt, greys, (2, 1, 0)) for prompt in ("one", "other prompt")]
    some = {name: PERTURBATIONS[name] for name in ("hflip+crop-0.9", "jpeg-50")}
    report = stablepref.evaluate(scorer_of(), groups, perturbations=some)
    assert report.accuracy == 1


def test_rewards_of_trainers_and_judges_take_it(pictures: list[Image.Image]) -> None:
    scorer = scorer_of()
    uint8 = np.stack([np.asarray(picture.resize((8, 8))) for picture in pictures])
    scores, _ = ddpo_pytorch(scorer)()(uint8, ["a"] * 5, {})
    assert scores.tolist() == pytest.approx([10 + image[..., 0].mean() for image in uint8])
    judge = ModelJudge(scorer, name="red")
    assert judge(pictures, ["a"] * 5, pictures) == pytest.approx(red(pictures, ["a"] * 5))
    assert judge.settings()["unit"] == "levels"
    report = RewardMonitor(scorer, held_out=tiny_clip(), views=2).report(pictures, ["a"] * 5)
    assert report.diversity is not None
    alone = RewardMonitor(scorer, views=2)
    assert alone.report(pictures, ["a"] * 5).diversity is None
    assert alone.signs(alone.report(pictures, ["a"] * 5)) == []


def test_best_of_n_takes_it() -> None:
    pipe, arguments = build("sd")
    selection = best_of_n(pipe, "a circle", scorer_of(), 3, keep=3, seed=5, **arguments)
    found = sorted(selection.scores, reverse=True)
    assert found == pytest.approx(red(list(selection.images), ["a circle"] * 3), abs=0.5)


def unequal(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    return [float(image.width) for image in images]


def test_it_may_be_an_object_that_is_called(pictures: list[Image.Image]) -> None:
    class Widths:
        def __call__(self, images: list[Image.Image], prompts: list[str]) -> np.ndarray:
            return np.array([image.width for image in images])

    scores = scorer_of(Widths()).score(pictures, "a")
    assert scores.tolist() == [width for _, width in SIZES]


def test_views_of_large_pictures_are_those_of_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large pictures are cut into views one by one, before they reach the batch."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    scorer = FunctionScorer(
        lambda images, prompts: [float(np.asarray(one).mean()) for one in images],
        name="mean",
        unit="levels",
    )
    whole = scorer.rank([picture], "a cat", views=4)[0].view_scores
    monkeypatch.setattr("stablepref.scoring.batching.LARGE", 0)
    assert scorer.rank([picture], "a cat", views=4)[0].view_scores == whole
    assert len(set(whole)) > 2


@pytest.mark.parametrize(
    "text", ["def other(:\n", "x = (\n" * 9, "    indented\n"], ids=["syntax", "open", "indented"]
)
def test_a_function_whose_file_holds_another_text_is_a_scorer(text: str, tmp_path: Path) -> None:
    """Typed code may bear the name of a file, and files change while a program runs."""
    file = tmp_path / "page.md"
    file.write_text(text)
    names: dict[str, Any] = {}
    code = "def level(images, prompts):\n    return [float(len(prompts)) for _ in images]\n"
    exec(compile(code, str(file), "exec"), names)
    scorer = FunctionScorer(names["level"], name="level", unit="prompts")
    assert scorer.score([Image.new("RGB", (8, 8))], "a cat").tolist() == [1]
