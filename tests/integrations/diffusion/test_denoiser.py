"""Which pipelines are refused before anything is made of them."""

import pytest
import torch
from accelerate import cpu_offload
from helpers.tiny_finetune import pipeline

from stablepref.integrations.diffusion.denoiser import check_denoisable


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3"])
def test_whole_pipelines_pass(kind: str) -> None:
    check_denoisable(pipeline(kind))
    check_denoisable(pipeline(kind).to(torch.bfloat16))


def test_other_pipelines_are_refused() -> None:
    with pytest.raises(TypeError, match="this is FluxPipeline"):
        check_denoisable(pipeline("flux"))
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


def test_an_embedded_guidance_scale_is_refused() -> None:
    pipe = pipeline()
    pipe.unet.register_to_config(time_cond_proj_dim=4)
    with pytest.raises(ValueError, match="guidance scale as an input"):
        check_denoisable(pipe)
