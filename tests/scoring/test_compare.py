"""Ranking, comparing and ties."""

import math
from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.images.sources import ImageError
from stablepref.preprocess.preprocess import Preprocess
from stablepref.scorer import Scorer
from stablepref.scoring.compare import compare, rank


class Brightness(Scorer):
    """Scores the mean red level times `gain`, plus `edge` times how dark the outermost frame is."""

    def __init__(self, preference_scale: float | None = 2.0, edge: float = 0.0) -> None:
        super().__init__(
            name="brightness",
            unit="level",
            preprocess=Preprocess("clip", 32, mean=(0, 0, 0), std=(1, 1, 1)),
            preference_scale=preference_scale,
        )
        self.gain = torch.nn.Parameter(torch.tensor(10.0))
        self.edge = edge

    def encode_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        frame = 1 - inputs[:, 0, 0, :].mean(dim=-1)
        return self.gain * inputs[:, 0].mean(dim=(1, 2)) + self.edge * frame

    def encode_prompts(self, prompts: object) -> torch.Tensor:
        return torch.zeros(len(list(prompts)), 0)  # type: ignore[call-overload]

    def match(self, image_features: torch.Tensor, prompt_features: torch.Tensor) -> torch.Tensor:
        return image_features

    def config(self) -> dict[str, object]:
        return {}

    @classmethod
    def from_config(cls, config: object, folder: object) -> "Brightness":
        return cls()

    def save_files(self, folder: object) -> None:
        pass


def grey(level: int, frame: int | None = None) -> Image.Image:
    picture = Image.new("RGB", (64, 64), (level,) * 3)
    if frame is not None:
        outer = Image.new("RGB", (64, 64), (frame,) * 3)
        outer.paste(picture.crop((2, 2, 62, 62)), (2, 2))
        return outer
    return picture


def test_rank_is_best_first_with_failures_last() -> None:
    images = [grey(50), grey(200), "/nowhere/none.png", grey(100), grey(200)]
    with pytest.warns(UserWarning, match=r"^1 of 5 images got NaN; the first: .*none\.png") as told:
        ranked = Brightness().rank(images, "x", on_error="nan")
    assert [Path(warning.filename).name for warning in told] == ["test_compare.py"]
    with pytest.raises(ImageError, match=r"none\.png") as caught:
        rank(Brightness(), images, "x")
    assert caught.value.scores is not None
    assert caught.value.scores.tolist() == pytest.approx([10 * 50 / 255, 10 * 200 / 255])
    assert [item.index for item in ranked] == [1, 4, 3, 0, 2]
    assert math.isnan(ranked[-1].score)
    assert ranked[0].score == pytest.approx(10 * 200 / 255, rel=1e-5)


def test_compare_gives_the_probability_of_the_training_objective() -> None:
    result = compare(Brightness(preference_scale=2.0), grey(160), grey(130), "x")
    margin = 10 * 30 / 255
    assert result.preferred == "a"
    assert result.margin == pytest.approx(margin, rel=1e-4)
    assert result.probability == pytest.approx(1 / (1 + math.exp(-2 * margin)), rel=1e-4)
    mirrored = compare(Brightness(preference_scale=2.0), grey(130), grey(160), "x")
    assert mirrored.preferred == "b"
    assert mirrored.probability == pytest.approx(1 - result.probability, abs=1e-6)


def test_a_margin_within_the_spread_of_views_is_a_tie() -> None:
    """The frame, which crops cut off, is worth 4; a margin of 0.39 is then no preference."""
    a, b = grey(160, frame=0), grey(150, frame=0)
    sensitive = compare(Brightness(edge=4.0), a, b, "x")
    assert sensitive.spread > 1
    assert 0 < sensitive.margin < sensitive.spread
    assert sensitive.preferred == "tie"
    steady = compare(Brightness(edge=0.0), grey(160), grey(150), "x")
    assert steady.spread == pytest.approx(0, abs=1e-3)
    assert steady.preferred == "a"


def test_an_image_against_itself_is_a_tie() -> None:
    result = compare(tiny_clip(), grey(90), grey(90), "x")
    assert result.preferred == "tie"
    assert result.probability is None or result.probability == pytest.approx(0.5)


def test_no_probability_without_training_on_preferences() -> None:
    result = compare(Brightness(preference_scale=None), grey(160), grey(130), "x")
    assert result.probability is None
    assert "not trained on preferences" in result.note
    assert result.preferred == "a"


def test_extreme_margins_do_not_overflow() -> None:
    scorer = Brightness(preference_scale=1e4)
    assert compare(scorer, grey(255), grey(0), "x").probability == pytest.approx(1)
    assert compare(scorer, grey(0), grey(255), "x").probability == pytest.approx(0)


def test_views_change_margin_and_spread_to_those_of_the_mean() -> None:
    a, b = grey(160, frame=0), grey(150)
    plain = compare(Brightness(edge=4.0), a, b, "x")
    averaged = compare(Brightness(edge=4.0), a, b, "x", views=8)
    assert averaged.margin < plain.margin - 0.5  # the crops take most of the frame's bonus away
    assert averaged == compare(Brightness(edge=4.0), a, b, "x", views=8)


@pytest.mark.parametrize("views", [0, 2])
@pytest.mark.parametrize("gain", [math.nan, math.inf])
def test_no_choice_between_scores_that_are_no_numbers(gain: float, views: int) -> None:
    scorer = Brightness()
    torch.nn.init.constant_(scorer.gain, gain)
    with pytest.raises(ValueError, match=r"image 0 .*: the model's score is (nan|inf)"):
        compare(scorer, grey(160), grey(130), "x", views=views)


class Glaring(Brightness):
    """Has no score for pictures whose outermost frame is not black."""

    def encode_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        scores = super().encode_inputs(inputs)
        return torch.where(inputs[:, 0, 0, 0] > 0.1, math.nan, scores)


def test_no_tie_from_views_without_a_score() -> None:
    """Both pictures have a score, but their crops have none, so the spread is unknown."""
    with pytest.raises(ValueError, match=r"image 0 .* score is nan for the weak view 1"):
        compare(Glaring(), grey(200, frame=0), grey(100, frame=0), "x")


@pytest.mark.parametrize("prompt", [["x", "y"], ["x"], ("x" for _ in range(2)), None])
def test_an_order_needs_one_prompt_for_all(prompt: object) -> None:
    """Scores under different prompts cannot be compared."""
    with pytest.raises(TypeError, match="one prompt, a string; got"):
        rank(Brightness(), [grey(1), grey(2)], prompt)  # type: ignore[arg-type] # the point
    with pytest.raises(TypeError, match="one prompt, a string; got"):
        compare(Brightness(), grey(1), grey(2), prompt)  # type: ignore[arg-type] # the point


def test_compare_takes_one_image_each() -> None:
    with pytest.raises(ValueError, match="3 images"):
        compare(Brightness(), [grey(1), grey(2)], grey(3), "x")
