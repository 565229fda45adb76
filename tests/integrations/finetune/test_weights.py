"""All weights trained, copies that stand in for them, and what is saved of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DiffusionPipeline, UNet2DConditionModel
from helpers.tiny_finetune import PROMPTS, SIDE, bright, disturb, pipeline, quick
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from stablepref.integrations.finetune.policies import Policies
from stablepref.integrations.finetune.run import finetune
from stablepref.integrations.finetune.weights import WeightCopy


def picture(pipe: DiffusionPipeline) -> NDArray[np.float32]:
    made: NDArray[np.float32] = pipe(
        "a red dog",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        height=SIDE,
        width=SIDE,
        output_type="np",
    ).images
    return made


def state(pipe: DiffusionPipeline) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in pipe.unet.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("rank", [2, 0])
def test_each_policy_draws_its_own_pictures(rank: int) -> None:
    """The reference, the policy that draws, the average and the trained one, in any order."""
    pipe = pipeline()
    plain = picture(pipe)
    policies = Policies.of(pipe, quick(method="nft", pictures_per_prompt=2, rank=rank))
    assert policies.old is not None
    assert policies.average is not None
    disturb(policies.trained, seed=1)
    trained = picture(pipe)
    policies.old.follow(0.0)
    disturb(policies.trained, seed=2)
    policies.average.follow(0.25)
    now = picture(pipe)
    with policies.drawing():
        assert np.array_equal(picture(pipe), trained)
        with policies.reference():
            assert np.array_equal(picture(pipe), plain)
        assert np.array_equal(picture(pipe), trained)
    assert np.array_equal(picture(pipe), now)
    with policies.shown():
        shown = picture(pipe)
    assert not np.array_equal(shown, now)
    assert all(weight.requires_grad for weight in policies.trained.parameters())
    policies.finish()
    assert np.array_equal(picture(pipe), shown)
    policies.withdraw()
    assert np.array_equal(picture(pipe), plain)
    assert not any(weight.requires_grad for weight in pipe.unet.parameters())


def test_a_copy_follows_as_far_as_it_is_told() -> None:
    policies = Policies.of(pipeline(), quick(rank=0))
    copy = WeightCopy(policies.trained)
    before = {name: value.clone() for name, value in copy.named_buffers()}
    disturb(policies.trained)
    copy.follow(0.75)
    for name, weight in policies.trained.named_parameters():
        expected = 0.75 * before[name] + 0.25 * weight.detach()
        torch.testing.assert_close(copy.get_buffer(name), expected)


def test_without_rank_every_weight_of_the_denoiser_is_trained() -> None:
    pipe = pipeline()
    policies = Policies.of(pipe, quick(rank=0))
    assert len(list(policies.trained.parameters())) == len(list(pipe.unet.parameters()))
    others = [part for name, part in pipe.components.items() if name in ("vae", "text_encoder")]
    assert not any(weight.requires_grad for part in others for weight in part.parameters())


def test_a_gradient_is_that_of_the_trained_weights_although_copies_stood_in() -> None:
    """Also where activations are computed again in the backward pass."""
    pipe = pipeline()
    policies = Policies.of(pipe, quick(method="nft", pictures_per_prompt=2, rank=0))
    x, texts = torch.ones(1, 4, 8, 8), torch.ones(1, 77, 32)
    disturb(policies.trained)
    weight = pipe.unet.conv_in.weight

    def gradient(*, between: bool) -> Tensor:
        loss = pipe.unet(x, 5, encoder_hidden_states=texts).sample.square().mean()
        if between:
            with torch.no_grad(), policies.drawing():
                pipe.unet(x, 5, encoder_hidden_states=texts)
        (found,) = torch.autograd.grad(loss, weight)
        return found

    assert torch.equal(gradient(between=True), gradient(between=False))


METHODS: dict[str, dict[str, Any]] = {
    "draft": {},
    "ddpo": {"pictures_per_prompt": 2},
    "nft": {"pictures_per_prompt": 2},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_denoiser_is_saved_and_resumed(method: str, tmp_path: Path) -> None:
    """With averaged weights, which are those of the pipeline at the end."""
    settings = {**METHODS[method], "method": method, "rank": 0, "ema": 0.5, "learning_rate": 1e-3,
                "sample_every": 1, "checkpoint_every": 1, "monitor_views": 1}  # fmt: skip
    arguments: dict[str, Any] = {"out": tmp_path / "run", "progress": False}
    pipe = pipeline()
    before = state(pipe)
    finetune(pipe, PROMPTS, bright(pipe), quick(**settings, steps=1), **arguments)
    AcceleratorState._reset_state(reset_partial_state=True)
    pipe = pipeline()
    result = finetune(pipe, PROMPTS, bright(pipe), quick(**settings, steps=2), **arguments)
    AcceleratorState._reset_state(reset_partial_state=True)
    whole = pipeline()
    finetune(
        whole, PROMPTS, bright(whole), quick(**settings, steps=2), out=tmp_path / "whole",
        progress=False,
    )  # fmt: skip
    assert same(state(pipe), state(whole))
    assert not same(state(pipe), before)
    assert result.lora is None
    assert result.denoiser == tmp_path / "run" / "denoiser"
    plain = pipeline()
    for folder in (result.denoiser, tmp_path / "run" / "denoisers" / "step-00000002"):
        plain.unet = UNet2DConditionModel.from_pretrained(folder)
        assert same(state(plain), state(pipe))
        assert np.array_equal(picture(plain), picture(pipe))
    plain.unet = UNet2DConditionModel.from_pretrained(
        tmp_path / "run" / "denoisers" / "step-00000001"
    )
    assert not same(state(plain), state(pipe))


def test_what_ends_early_leaves_the_pipeline_as_it_was(tmp_path: Path) -> None:
    pipe = pipeline()
    before = state(pipe)
    reward = bright(pipe)
    with pytest.raises(ValueError, match="step 2"):
        finetune(
            pipe, PROMPTS, reward, quick(rank=0, learning_rate=1e30), out=tmp_path, progress=False
        )
    assert same(state(pipe), before)


def test_alpha_scales_the_matrices_here_and_in_what_is_saved(tmp_path: Path) -> None:
    """Alpha twice the rank: pictures of the pipeline and of plain diffusers are the same."""
    pipe = pipeline()
    policies = Policies.of(pipe, quick(rank=2, lora_alpha=4))
    disturb(policies.trained)
    policies.save(tmp_path / "lora")
    plain = pipeline()
    plain.load_lora_weights(tmp_path / "lora")
    assert np.array_equal(picture(plain), picture(pipe))
    once = pipeline()
    disturb(Policies.of(once, quick(rank=2)).trained)
    assert not np.array_equal(picture(once), picture(pipe))


def test_what_is_saved_is_the_moving_average_of_all_steps(tmp_path: Path) -> None:
    """Of the weights that the same training has without one, by the recursion."""
    decay, saved = 0.6, {}
    for ema in (0.0, decay):
        pipe = pipeline()
        config = quick(steps=3, learning_rate=0.05, sample_every=1, ema=ema)
        finetune(pipe, PROMPTS, bright(pipe), config, out=tmp_path / str(ema), progress=False)
        AcceleratorState._reset_state(reset_partial_state=True)
        folders = sorted((tmp_path / str(ema) / "loras").iterdir())
        every = [load_file(next(one.glob("*.safetensors"))) for one in folders]
        # The second matrices, which begin at 0.
        saved[ema] = [{n: v for n, v in one.items() if "lora.up" in n} for one in every]
    average = {name: torch.zeros_like(value) for name, value in saved[0.0][0].items()}
    assert average
    for weights, found in zip(saved[0.0], saved[decay], strict=True):
        average = {n: decay * average[n] + (1 - decay) * weights[n] for n in weights}
        for name, value in found.items():
            torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-7)
        assert any(not torch.allclose(average[n], weights[n], rtol=0.1) for n in weights)
