"""Fine-tuning from end to end: rewards rise, plain diffusers draws the same, folders say it all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDIMScheduler, DiffusionPipeline
from helpers.brightness import Brightness
from helpers.tiny import tiny_clip
from helpers.tiny_finetune import PROMPTS, SIDE, bright, noisy_pipeline, pipeline, quick
from PIL import Image

from stablepref.integrations.ensemble import Ensemble
from stablepref.integrations.finetune.batches import sample_pictures
from stablepref.integrations.finetune.loop import Finetuned
from stablepref.integrations.finetune.run import finetune
from stablepref.integrations.reward import DifferentiableReward


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def samples(pipe: DiffusionPipeline) -> np.ndarray:
    """The pictures that `quick` watches, by the pipeline's own call, 8-bit."""
    watched = sample_pictures(PROMPTS, each=2, seed=0)
    made = pipe(
        [picture.prompt for picture in watched],
        generator=[picture.generator() for picture in watched],
        num_inference_steps=2,
        guidance_scale=2.0,
        height=SIDE,
        width=SIDE,
    ).images
    return np.stack([np.asarray(image) for image in made])


LEARNING: dict[str, dict[str, Any]] = {
    "draft": {"steps": 5, "last_steps": 2},
    "refl": {"steps": 15, "last_steps": 2, "learning_rate": 0.03},
    "ddpo": {"steps": 20, "batch_size": 32, "pictures_per_prompt": 8, "clip_range": 0.1},
    "nft": {
        "steps": 6,
        "batch_size": 16,
        "rank": 0,
        "learning_rate": 0.01,
        "nft_kl": 0.0,
        "nft_old": "copy",
        "ema": 0.0,
    },
}


@pytest.mark.parametrize(
    ("method", "sign"),
    [
        ("draft", 1.0),
        ("draft", -1.0),
        ("refl", 1.0),
        ("ddpo", 1.0),
        ("nft", 1.0),
        # Of "draft" both; of the others naive losses say by default which way weights move.
        *(pytest.param(method, -1.0, marks=pytest.mark.slow) for method in ("refl", "ddpo", "nft")),
    ],
)
def test_the_reward_of_the_samples_rises(method: str, sign: float, tmp_path: Path) -> None:
    """Whether bright or dark pictures are rewarded, so that it is no drift."""
    pipe = noisy_pipeline()
    if method == "refl":  # its prediction of the last step is the picture then
        config = pipe.scheduler.config
        pipe.scheduler = DDIMScheduler.from_config(config, set_alpha_to_one=True)
    settings = {
        "method": method,
        "guidance": 1.0,
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "gradient_checkpointing": False,
        "sample_every": 100,
        "checkpoint_every": 100,
        **LEARNING[method],
    }
    config = quick(**settings)
    reward = DifferentiableReward(Brightness(sign), vae=pipe.vae)
    result = finetune(pipe, PROMPTS, reward, config, out=tmp_path, progress=False)
    assert result.last.reward > result.first.reward + 0.0005


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DiffusionPipeline, Finetuned]:
    """A short training with samples at every second step, and the pipeline after it."""
    folder = tmp_path_factory.mktemp("trained")
    pipe = pipeline()
    config = quick(steps=3, sample_every=2, learning_rate=0.3, checkpoint_every=2)
    held_out = tiny_clip(name="second")
    result = finetune(
        pipe, PROMPTS, bright(pipe, views=1), config, out=folder, held_out=held_out, progress=False
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder, pipe, result


def test_plain_diffusers_draws_the_trained_pipelines_pictures(
    trained: tuple[Path, DiffusionPipeline, Finetuned],
) -> None:
    folder, pipe, result = trained
    before, after = samples(pipeline()), samples(pipe)
    assert not np.array_equal(before, after)
    plain = pipeline()
    plain.load_lora_weights(result.lora)
    assert result.lora == folder / "lora"
    assert np.array_equal(samples(plain), after)
    # The weights of an earlier moment, and less of them.
    plain = pipeline()
    plain.load_lora_weights(folder / "loras" / "step-00000002", adapter_name="early")
    early = samples(plain)
    assert not np.array_equal(early, after)
    plain.set_adapters("early", adapter_weights=0.0)
    assert np.array_equal(samples(plain), before)


def test_the_report_is_of_the_pipelines_pictures(
    trained: tuple[Path, DiffusionPipeline, Finetuned],
) -> None:
    folder, pipe, result = trained
    texts = [picture.prompt for picture in sample_pictures(PROMPTS, each=2, seed=0)]
    for report, drawn in ((result.first, samples(pipeline())), (result.last, samples(pipe))):
        scores = Brightness().score(list(drawn), texts)
        assert report.reward == pytest.approx(scores.mean().item(), abs=1e-5)
        second = tiny_clip(name="second").score(list(drawn), texts)
        assert report.held_out == pytest.approx(second.mean().item(), abs=1e-3)
    told = json.loads((folder / "finetune.json").read_text())
    assert told["first"] == vars(result.first)
    assert told["last"] == vars(result.last)
    assert told["signs"] == list(result.signs)
    assert told["config"]["reward_views"] == 1


def test_the_folder_holds_what_there_is_to_see(
    trained: tuple[Path, DiffusionPipeline, Finetuned],
) -> None:
    folder, _, result = trained
    steps = ["step-00000000", "step-00000002", "step-00000003"]
    assert sorted(path.stem for path in (folder / "samples").iterdir()) == steps
    assert sorted(path.name for path in (folder / "loras").iterdir()) == steps[1:]
    with Image.open(folder / "samples" / "step-00000003.png") as sheet:
        assert sheet.width > sheet.height / 2 > 50
    found = rows(folder)
    assert [row["step"] for row in found if "reward" in row] == [1, 2, 3]
    watched = [row for row in found if "sample_reward" in row]
    assert [row["step"] for row in watched] == [0, 2, 3]
    assert watched[-1]["sample_reward"] == result.last.reward
    assert {"loss", "reward", "reward_std", "grad_norm", "learning_rate"} <= set(found[1])
    assert {"sample_gap", "sample_diversity", "sample_held_out"} <= set(watched[0])


def test_the_same_call_again_finishes_at_once_and_more_steps_go_on(
    trained: tuple[Path, DiffusionPipeline, Finetuned], tmp_path: Path
) -> None:
    folder, pipe, result = trained
    config = quick(steps=3, sample_every=2, learning_rate=0.3, checkpoint_every=2)
    again = pipeline()
    held_out = tiny_clip(name="second")
    arguments: dict[str, Any] = {"out": folder, "held_out": held_out, "progress": False}
    assert finetune(again, PROMPTS, bright(again, views=1), config, **arguments) == result
    assert np.array_equal(samples(again), samples(pipe))
    before = rows(folder)
    with pytest.raises(ValueError, match="adapters already: stablepref"):
        finetune(again, PROMPTS, bright(again, views=1), config, **arguments)
    for settings, prompts, told in (
        ({"learning_rate": 0.1}, PROMPTS, "learning_rate was 0.3, is 0.1"),
        ({"steps": 2}, PROMPTS, "holds a training of 3 steps, steps is 2"),
        ({}, ["a cat"], "prompts was '2 prompts, .*', is '1 prompts, "),
    ):
        other = pipeline()
        changed = quick(**{"steps": 3, "learning_rate": 0.3, **settings})
        with pytest.raises(ValueError, match=told):
            finetune(other, prompts, bright(other, views=1), changed, **arguments)
        assert not hasattr(other.unet, "peft_config")
    assert rows(folder) == before

    whole = pipeline()
    longer = quick(steps=4, sample_every=2, learning_rate=0.3, checkpoint_every=2)
    finetune(
        whole,
        PROMPTS,
        bright(whole, views=1),
        longer,
        out=tmp_path / "whole",
        held_out=held_out,
        progress=False,
    )
    more = pipeline()
    finetune(more, PROMPTS, bright(more, views=1), longer, **arguments)
    assert np.array_equal(samples(more), samples(whole))


def test_a_falling_learning_rate_resumes_and_is_not_made_longer(tmp_path: Path) -> None:
    falling: dict[str, Any] = {"learning_rate": 0.3, "lr_scheduler": "linear", "sample_every": 4}
    whole = pipeline()
    config = quick(steps=4, **falling)
    finetune(whole, PROMPTS, bright(whole), config, out=tmp_path / "whole", progress=False)
    rates = [row["learning_rate"] for row in rows(tmp_path / "whole") if "loss" in row]
    assert rates == pytest.approx([0.3, 0.225, 0.15, 0.075])
    longer = pipeline()
    with pytest.raises(ValueError, match="steps was 4, is 5"):
        finetune(
            longer, PROMPTS, bright(longer), quick(steps=5, **falling), out=tmp_path / "whole",
            progress=False,
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["sd3", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_other_pipelines_and_an_ensemble(kind: str, tmp_path: Path) -> None:
    pipe = pipeline(kind)
    both = Ensemble([Brightness(), tiny_clip()], weights=[1.0, 0.1], normalise=[(0, 1), (0, 1)])
    reward = DifferentiableReward(both, vae=pipe.vae, views=1, reduce="min")
    before = samples(pipe)
    config = quick(steps=1, learning_rate=0.3, batch_size=2)
    result = finetune(pipe, PROMPTS, reward, config, out=tmp_path, progress=False)
    assert not np.array_equal(samples(pipe), before)
    plain = pipeline(kind)
    plain.load_lora_weights(result.lora)
    assert np.array_equal(samples(plain), samples(pipe))


def test_a_pipeline_in_bfloat16(tmp_path: Path) -> None:
    pipe = pipeline().to(torch.bfloat16)
    for method in ("draft", "ddpo"):
        pipe.unload_lora_weights()
        config = quick(method=method, steps=1, learning_rate=0.3)
        finetune(pipe, PROMPTS, bright(pipe), config, out=tmp_path / method, progress=False)
        trained = [w for w in pipe.unet.parameters() if w.requires_grad]
        assert {w.dtype for w in trained} == {torch.float32}
        assert all(w.isfinite().all() for w in trained)
        assert any(bool(w.any()) for n, w in pipe.unet.named_parameters() if "lora_B" in n)
