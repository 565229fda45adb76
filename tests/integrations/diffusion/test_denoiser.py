"""The denoiser called from a callback predicts as the next step does; what is refused before."""

from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers import StableDiffusionImg2ImgPipeline
from helpers.tiny_finetune import pipeline
from helpers.tiny_pipelines import build, unet
from torch import Tensor

from stablepref.integrations.diffusion.denoiser import check_denoisable, denoise, embeds_guidance
from stablepref.integrations.diffusion.families import family_of
from stablepref.integrations.diffusion.x0 import noise_level


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux"])
def test_whole_pipelines_pass(kind: str) -> None:
    check_denoisable(pipeline(kind))
    check_denoisable(pipeline(kind).to(torch.bfloat16))


def test_other_pipelines_are_refused() -> None:
    with pytest.raises(TypeError, match="this is StableDiffusionImg2ImgPipeline"):
        check_denoisable(StableDiffusionImg2ImgPipeline(**pipeline().components))
    with pytest.raises(TypeError, match="this is str"):
        check_denoisable("a folder")


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "vae"])
def test_a_missing_part_is_named(part: str) -> None:
    pipe = pipeline()
    setattr(pipe, part, None)
    with pytest.raises(ValueError, match=f"the StableDiffusionPipeline has no {part}"):
        check_denoisable(pipe)


def test_float16_is_refused() -> None:
    pipe = pipeline()
    pipe.unet.to(torch.float16)
    with pytest.raises(ValueError, match=r"unet of the pipeline is in float16.*bfloat16"):
        check_denoisable(pipe)


def test_offloaded_weights_are_refused() -> None:
    pipe = pipeline()
    cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    with pytest.raises(ValueError, match="unet is offloaded"):
        check_denoisable(pipe)


CASES = [
    ("sd", {}),
    ("sd", {"guidance_scale": 1.0}),
    ("sd", {"guidance_scale": 4.0, "guidance_rescale": 0.7, "negative_prompt": ["a cat"] * 2}),
    ("sdxl", {"guidance_scale": 3.0, "original_size": (48, 64), "crops_coords_top_left": (3, 1)}),
    ("sdxl", {"guidance_scale": 1.0}),
    ("sd3", {"guidance_scale": 5.0}),
    ("sd3", {"guidance_scale": 1.0}),
]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_equals_the_output_of_the_next_step(kind: str, options: dict[str, object]) -> None:
    pipe, arguments = build(kind)
    pipe.set_progress_bar_config(disable=True)
    own: list[Tensor] = []
    ours: list[Tensor] = []
    step = pipe.scheduler.step

    def watched(output: Tensor, *args: object, **kwargs: object) -> object:
        own.append(output)
        return step(output, *args, **kwargs)

    def callback(pipe: Any, i: int, t: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
        del t
        if i + 1 < pipe.num_timesteps:
            inputs = tensors["latents"] / noise_level(pipe.scheduler, i + 1).scale
            ours.append(denoise(pipe, inputs, pipe.scheduler.timesteps[i + 1], tensors))
        return {}

    pipe.scheduler.step = watched
    pipe(
        ["a red circle", "a dog"],
        num_images_per_prompt=2,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=family_of(pipe).step_tensors,
        **{**arguments, "num_inference_steps": 4, **options},
    )
    assert len(ours) == 3
    assert ours[0].shape == (4, 4, 16, 16)
    torch.testing.assert_close(torch.stack(ours), torch.stack(own[1:]), rtol=1e-4, atol=1e-5)


def test_guidance_as_an_input_is_seen() -> None:
    pipe, _ = build("sd")
    assert not embeds_guidance(pipe)
    pipe.unet = unet(cross_attention_dim=32, time_cond_proj_dim=8)
    assert embeds_guidance(pipe)
    assert not embeds_guidance(build("sd3")[0])
