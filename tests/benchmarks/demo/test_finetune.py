"""The demonstration's fine-tuning: the same prompts and noise before and after it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline
from helpers.brightness import Brightness
from helpers.tiny_finetune import noisy_pipeline
from helpers.tiny_lab_pipeline import tiny_pipeline

from stablepref.benchmarks.demo import finetune as demo_finetune
from stablepref.benchmarks.demo.result import Demo
from stablepref.benchmarks.demo.run import demo
from stablepref.benchmarks.demo.words import about_finetuning
from stablepref.benchmarks.shapes.pipeline.sampling import sample_prompts
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.prompts import lab_prompts
from stablepref.benchmarks.shapes.world.scenes import split_of
from stablepref.models.function import FunctionScorer

PROMPT = "a red circle"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"STEPS": 2, "TRAIN_PER_CATEGORY": 2, "PER_CATEGORY": 2}.items():
            patch.setattr(demo_finetune, name, value)
        pipe = tiny_pipeline()
        before = drawn(pipe)
        shown = demo(pipe, PROMPT, Brightness(), out=folder, n=2, steps=2, finetune=True)
        np.testing.assert_array_equal(drawn(pipe), before)
        yield shown
    AcceleratorState._reset_state(reset_partial_state=True)


def drawn(pipe: StableDiffusionPipeline) -> np.ndarray:
    """What the pipeline draws of the test prompts in three steps without guidance."""
    tests = lab_prompts("test", per_category=2)
    made = sample_prompts(pipe, tests, pictures=2, steps=3, guidance=1.0, quiet=True)
    return np.stack([sample.picture for sample in made])


def test_before_and_after_are_of_the_same_prompts_and_noise(shown: Demo) -> None:
    tuned, pipe = shown.tuned, tiny_pipeline()
    assert tuned is not None
    assert len(tuned.before) == len(tuned.after) == 2 * 20
    before, after = (
        np.stack([sample.picture for sample in one]) for one in (tuned.before, tuned.after)
    )
    np.testing.assert_array_equal(before, drawn(pipe))
    pipe.unet = type(pipe.unet).from_pretrained(tuned.weights)
    np.testing.assert_array_equal(after, drawn(pipe))
    assert not np.array_equal(before, after)
    assert all(split_of(parse(sample.prompt.prompt)) == "test" for sample in tuned.after)


def test_what_changed_is_told(shown: Demo) -> None:
    tuned = shown.tuned
    assert tuned is not None
    for samples, score, correct in zip(
        (tuned.before, tuned.after), tuned.scores, tuned.correct, strict=True
    ):
        pictures = torch.tensor(np.stack([sample.picture for sample in samples]))
        small = torch.nn.functional.interpolate(
            pictures.permute(0, 3, 1, 2).float(), size=(8, 8), mode="bicubic", antialias=True
        )
        assert score == pytest.approx(float(small.mean()) / 255, abs=0.01)
        right = [sample.grade.correct for sample in samples]
        assert correct.value == pytest.approx(np.mean(right))
        assert (correct.prompts, correct.trials) == (20, 40)
    assert tuned.gain.value == pytest.approx(tuned.correct[1].value - tuned.correct[0].value)
    row = json.loads((shown.page.parent / "demo.json").read_text())["finetuning"]
    assert row["pictures"] == 2 * 32
    assert row["after"] == [sample.grade.correct for sample in tuned.after]
    words = about_finetuning(tuned, "brightness")
    assert f"from {tuned.scores[0]:.3f} to {tuned.scores[1]:.3f}" in words
    assert "Of 40 such pictures of 20 prompts" in words
    page = shown.page.read_text()
    assert page.count('alt="Before: ') == page.count('alt="After: ') == len(tuned.shown) == 4


@pytest.mark.parametrize(
    ("share", "interval", "score", "says"),
    [
        (0.75, (0.1, 0.4), 2.0, "75.0 % after: a difference of +25.0 points"),
        (0.55, (-0.1, 0.2), 2.0, "which is no evidence of any"),
        (0.25, (-0.4, -0.1), 2.0, "it was fooled"),
    ],
)
def test_words_say_what_the_interval_says(
    shown: Demo, share: float, interval: tuple[float, float], score: float, says: str
) -> None:
    tuned = shown.tuned
    assert tuned is not None
    low, high = interval
    before = demo_finetune.Accuracy(0.5, 0.4, 0.6, 20, 40)
    after = demo_finetune.Accuracy(share, 0.0, 1.0, 20, 40)
    gain = demo_finetune.Accuracy(share - 0.5, low, high, 20, 40)
    made = demo_finetune.Tuned(
        **{
            **vars(tuned),
            "correct": (before, after),
            "gain": gain,
            "scores": (1.0, score),
        }
    )
    words = about_finetuning(made, "brightness")
    assert says in words
    assert ("no evidence" in words) == (low <= 0 <= high)
    assert ("fooled" in words) == (high < 0)


def test_a_finished_one_is_told_again(shown: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown.tuned is not None
    AcceleratorState._reset_state(reset_partial_state=True)
    sheets = list((shown.page.parent / "finetune" / "samples").iterdir())
    again = demo(
        tiny_pipeline(), PROMPT, Brightness(), out=shown.page.parent, n=2, steps=2, finetune=True
    )
    assert again.tuned is not None
    assert again.tuned.row() == shown.tuned.row()
    assert list((shown.page.parent / "finetune" / "samples").iterdir()) == sheets


def test_other_pipelines_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    pipe.register_modules(safety_checker=pipe.text_encoder)  # any network: none is called
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="safety checker"):
        demo(pipe, PROMPT, Brightness(), out=out, n=3, steps=2, finetune=True)
    with pytest.raises(ValueError, match=r"draws \d+ x \d+: fine-tune it with `stablepref"):
        demo(noisy_pipeline(), PROMPT, Brightness(), out=out, n=3, steps=2, finetune=True)
    judge = FunctionScorer(lambda images, _: [1.0 for _ in images], name="ones", unit="ones")
    with pytest.raises(ValueError, match="ones has no gradient, which the demonstration's"):
        demo(tiny_pipeline(), PROMPT, judge, out=out, n=3, steps=2, finetune=True)
    assert not out.exists()
