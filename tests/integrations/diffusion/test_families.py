"""The table of pipelines: a row from outside is all that a new pipeline needs."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from helpers.brightness import Brightness
from helpers.plugin import install_plugin
from helpers.tiny_pipelines import build

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.families import (
    FAMILIES,
    Family,
    family_of,
    find_family,
)
from stablepref.integrations.guidance import RewardGuidance

PROMPT = "a red circle"

# A pipeline of nobody's: other names for everything, no guidance, and its own loop.
CODE = """
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from stablepref.integrations.diffusion.families import Family


class DoodlePipeline(DiffusionPipeline):
    _callback_tensor_inputs = ["latents", "words"]

    def __init__(self, network, vae, text_encoder, tokenizer, scheduler):
        super().__init__()
        self.register_modules(network=network, vae=vae, text_encoder=text_encoder,
                              tokenizer=tokenizer, scheduler=scheduler)
        self.image_processor = VaeImageProcessor(vae_scale_factor=2)
        self.guidance_scale, self.do_classifier_free_guidance = 1.0, False

    def prepare_latents(self, count, height, width, generator):
        return randn_tensor((count, 4, height // 2, width // 2), generator=generator)

    @torch.no_grad()
    def __call__(self, prompt, generator=None, num_inference_steps=6, height=32, width=32,
                 callback_on_step_end=None, callback_on_step_end_tensor_inputs=("latents",)):
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        ids = self.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
        words = self.text_encoder(ids.input_ids)[0]
        latents = self.prepare_latents(len(texts), height, width, generator)
        self.scheduler.set_timesteps(num_inference_steps)
        self.num_timesteps = num_inference_steps
        for i, t in enumerate(self.scheduler.timesteps):
            output = self.network(latents, t, encoder_hidden_states=words).sample
            latents = self.scheduler.step(output, t, latents)[0]
            if callback_on_step_end is not None:
                have = {"latents": latents, "words": words}
                asked = {name: have[name] for name in callback_on_step_end_tensor_inputs}
                changed = callback_on_step_end(self, i, t, asked)
                latents, words = changed.pop("latents", latents), changed.pop("words", words)
        pixels = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return BaseOutput(images=self.image_processor.postprocess(pixels, output_type="pil"))


ROW = Family(
    denoiser="network",
    conditions={"words": "encoder_hidden_states"},
    attention="",
)
"""


def doodle() -> DiffusionPipeline:
    """The pipeline from outside, with the parts of a tiny Stable Diffusion."""
    parts = build("sd")[0].components
    names = ("vae", "text_encoder", "tokenizer", "scheduler")
    outside = importlib.import_module("from_outside")
    pipe = outside.DoodlePipeline(network=parts["unet"], **{name: parts[name] for name in names})
    pipe.set_progress_bar_config(disable=True)
    return pipe  # type: ignore[no-any-return] # of a module that is made by the test


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, CODE, {"stablepref.pipelines": {"DoodlePipeline": "ROW"}})


@pytest.mark.usefixtures("_installed")
def test_a_row_from_outside_prunes_the_best_of_n() -> None:
    pipe = doodle()
    call: dict[str, Any] = {"n": 5, "batch_size": 5, "num_inference_steps": 6}
    whole = best_of_n(pipe, PROMPT, Brightness(), keep=5, **call)
    assert len(set(whole.scores)) == 5
    pruned = best_of_n(pipe, PROMPT, Brightness(), keep=2, prune={0.5: 0.4}, **call)
    assert sum(candidate.pruned for candidate in pruned.candidates) == 3
    for index, image in zip(pruned.kept, pruned.images, strict=True):
        expected = np.asarray(whole.images[list(whole.kept).index(index)]).astype(int)
        assert np.abs(np.asarray(image) - expected).max() <= 1


@pytest.mark.usefixtures("_installed")
def test_a_row_from_outside_is_guided() -> None:
    pipe = doodle()
    plain = pipe([PROMPT]).images[0]
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.3)
    guided = pipe(**guidance.arguments).images[0]
    assert sorted(guidance.rewards) == [1, 2, 3, 4, 5]
    assert not np.array_equal(guided, plain)


def test_without_its_row_a_pipeline_is_refused_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path, monkeypatch, CODE, {})
    pipe = doodle()
    assert len(best_of_n(pipe, PROMPT, Brightness(), 2).scores) == 2
    with pytest.raises(ValueError, match=r"prune= is for .*; this is DoodlePipeline with DDIM"):
        best_of_n(pipe, PROMPT, Brightness(), 2, prune={0.5: 0.5})
    with pytest.raises(ValueError, match=r"guidance is for .*; this is DoodlePipeline"):
        RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    with pytest.raises(KeyError, match="no row for DoodlePipeline"):
        family_of(pipe)


class Renamed(StableDiffusionPipeline):
    """A subclass that calls as its parent does."""


class Rewritten(StableDiffusionPipeline):
    """A subclass with a call of its own, of which nothing is known."""

    def __call__(self, prompt: str) -> object:  # type: ignore[override] # the point of it
        return super().__call__(prompt)


def test_subclasses_are_their_parent_unless_they_call_otherwise() -> None:
    base, _ = build("sd")
    renamed = Renamed(**base.components, requires_safety_checker=False)
    assert find_family(renamed) is FAMILIES["StableDiffusionPipeline"]
    rewritten = Rewritten(**base.components, requires_safety_checker=False)
    assert find_family(rewritten) is None
    assert find_family("a folder") is None


def test_rows_name_what_the_pipelines_have() -> None:
    for kind in ("sd", "sdxl", "sd3", "pixart", "sana"):
        pipe, _ = build(kind)
        family = family_of(pipe)
        assert pipe.components[family.denoiser] is not None
        if family.conditions:
            assert set(family.step_tensors) <= set(pipe._callback_tensor_inputs)


def test_inputs_are_put_in_their_places() -> None:
    family = Family(denoiser="unet", conditions={"a": "x", "b": "y.p", "c": "y.q"})
    tensors: dict[str, Any] = {"a": 1, "b": 2, "c": 3, "latents": 4}
    assert family.inputs(tensors) == {"x": 1, "y": {"p": 2, "q": 3}}
    assert family.step_tensors == ["latents", "a", "b", "c"]
