"""The demonstration's fine-tuning: the same noise before and after it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.brightness import Brightness
from helpers.tiny_finetune import noisy_pipeline, pipeline
from PIL import Image

from stablepref.benchmarks.demo import finetune as demo_finetune
from stablepref.benchmarks.demo.result import Demo
from stablepref.benchmarks.demo.run import demo
from stablepref.benchmarks.demo.words import about_finetuning

PROMPT = "a red circle"
CALL = {"num_inference_steps": 2, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_finetune, "STEPS", 4)
        patch.setattr(demo_finetune, "PAIRS", 3)
        pipe = noisy_pipeline()
        before = picture(pipe, 1)
        shown = demo(
            pipe, PROMPT, Brightness(), out=folder, n=4, steps=2, guidance=2.0, finetune=True
        )
        np.testing.assert_array_equal(picture(pipe, 1), before)
        yield shown
    AcceleratorState._reset_state(reset_partial_state=True)


def picture(pipe: object, seed: int) -> np.ndarray:
    """What the pipeline itself draws."""
    assert callable(pipe)
    made = pipe(PROMPT, generator=torch.Generator().manual_seed(seed), **CALL).images[0]
    return np.asarray(made).astype(int)


def test_pairs_are_of_the_same_noise(shown: Demo) -> None:
    assert shown.tuned is not None
    assert len(shown.tuned.pairs) == 3
    tuned = noisy_pipeline()
    tuned.load_lora_weights(shown.tuned.lora)
    for seed, (before, after) in enumerate(shown.tuned.pairs):
        assert (before.seed, after.seed) == (seed, seed)
        assert before == shown.selection.candidates[seed]
        with Image.open(shown.tuned.after.pictures[seed]) as image:
            assert np.abs(np.asarray(image) - picture(tuned, seed)).max() <= 1
        small = Image.fromarray(picture(tuned, seed).astype(np.uint8)).resize(
            (8, 8), Image.Resampling.BICUBIC
        )
        assert after.score == pytest.approx(np.asarray(small).mean() / 255, abs=0.005)


def test_what_changed_is_told(shown: Demo) -> None:
    tuned = shown.tuned
    assert tuned is not None
    before, after = tuned.rewards
    assert after != before
    assert before == pytest.approx(np.mean([first.score for first, _ in tuned.pairs]))
    assert after == pytest.approx(np.mean([last.score for _, last in tuned.pairs]))
    assert tuned.correct == (0, 0)  # a tiny pipeline draws no circles
    words = about_finetuning(tuned)
    assert f"from {before:.3f} to {after:.3f}" in words
    assert "0 of them were correct before and 0 after" in words
    page = shown.page.read_text()
    assert page.count('alt="Before: seed') == page.count('alt="After: seed') == 3
    assert words.replace("'", "&#39;") in page


def test_a_finished_one_is_told_again(shown: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown.tuned is not None
    AcceleratorState._reset_state(reset_partial_state=True)
    sheets = list((shown.page.parent / "finetune" / "samples").iterdir())
    pipe = noisy_pipeline()
    monkeypatch.setattr(pipe.vae, "decode", None)  # no picture is made
    again = demo(
        pipe, PROMPT, Brightness(), out=shown.page.parent, n=4, steps=2, guidance=2.0, finetune=True
    )
    assert again.tuned is not None
    assert again.tuned.rewards == shown.tuned.rewards
    assert list((shown.page.parent / "finetune" / "samples").iterdir()) == sheets


def test_a_pipeline_with_a_safety_checker_is_refused_at_once(tmp_path: Path) -> None:
    pipe = pipeline()
    pipe.register_modules(safety_checker=pipe.text_encoder)  # any network: none is called
    with pytest.raises(ValueError, match="safety checker"):
        demo(pipe, PROMPT, Brightness(), out=tmp_path / "out", n=3, steps=2, finetune=True)
    assert not (tmp_path / "out").exists()
