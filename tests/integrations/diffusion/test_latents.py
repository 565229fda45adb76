"""Latents and images on their way into a reward."""

import warnings

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from diffusers.image_processor import VaeImageProcessor
from helpers.tiny import tiny_clip
from torch import Tensor

from stablepref.integrations.diffusion.latents import decode_latents, unit_pixels
from stablepref.integrations.reward import DifferentiableReward

PROMPTS = ["a red circle", "a dog"]


def tiny_vae(**config: object) -> AutoencoderKL:
    """A VAE of two levels, four latent channels."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        **config,
    ).eval()


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(2, 4, 16, 20, generator=torch.Generator().manual_seed(1))


def shown(vae: AutoencoderKL, unscaled: Tensor) -> Tensor:
    """What a pipeline shows of latents that are scaled for the decoder already."""
    with torch.no_grad():
        image = vae.decode(unscaled, return_dict=False)[0]
        return VaeImageProcessor(vae_scale_factor=2).postprocess(image, output_type="pt")


@pytest.mark.parametrize("kind", ["sd", "shifted", "standardised"])
def test_latents_score_as_the_picture_that_a_pipeline_shows(kind: str, latents: Tensor) -> None:
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.5, 0.5, 2.0, 1.0]
    config: dict[str, dict[str, object]] = {
        "sd": {"scaling_factor": 0.18215},
        "shifted": {"scaling_factor": 1.5305, "shift_factor": 0.0609},
        "standardised": {"scaling_factor": 0.5, "latents_mean": mean, "latents_std": std},
    }
    vae = tiny_vae(**config[kind])
    wide = (1, 4, 1, 1)
    unscaled = {  # as StableDiffusionPipeline, StableDiffusion3Pipeline, StableDiffusionXLPipeline
        "sd": latents / 0.18215,
        "shifted": latents / 1.5305 + 0.0609,
        "standardised": latents * torch.tensor(std).view(wide) / 0.5
        + torch.tensor(mean).view(wide),
    }[kind]
    scorer = tiny_clip()
    leaf = latents.clone().requires_grad_()
    rewards = DifferentiableReward(scorer, vae=vae)(leaf, PROMPTS)
    expected = scorer.score(shown(vae, unscaled), PROMPTS)
    torch.testing.assert_close(rewards, expected, rtol=1e-5, atol=1e-5)
    (found,) = torch.autograd.grad(rewards.sum(), leaf)
    assert (found.abs() > 0).all()
    assert not any(p.requires_grad for p in vae.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_through_the_decoder(latents: Tensor, checkpointing: bool) -> None:
    vae = tiny_vae(scaling_factor=2.0).double()
    reward = DifferentiableReward(
        tiny_clip().double(), vae=vae, views=1, checkpointing=checkpointing
    )
    z = latents.double().requires_grad_()
    (found,) = torch.autograd.grad(reward(z, PROMPTS).sum(), z)
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(z.shape, dtype=z.dtype, generator=generator)
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (reward(z + s * step * direction, PROMPTS).sum() for s in (1, -1))
    numeric = (ahead - behind) / (2 * step)
    torch.testing.assert_close((found * direction).sum(), numeric, rtol=1e-4, atol=1e-8)


def test_other_decoders_of_diffusers(latents: Tensor) -> None:
    torch.manual_seed(0)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    ).eval()
    deep = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    ).eval()
    with torch.no_grad():
        for vae in (tiny, deep):
            expected = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
            torch.testing.assert_close(decode_latents(vae, latents), expected)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 16, 8, 8), r"\(2, 16, 8, 8\); expected \(batch, 4, h, w\)"),
        ((2, 64, 16), "unpack them as the pipeline does"),
        ((2, 3, 64, 64), r"expected \(batch, 4, h, w\)"),
    ],
)
def test_latents_of_another_vae_are_refused(shape: tuple[int, ...], says: str) -> None:
    reward = DifferentiableReward(tiny_clip(), vae=tiny_vae())
    with pytest.raises(ValueError, match=says):
        reward(torch.randn(shape), PROMPTS)


def test_overflow_of_the_vae_is_told(latents: Tensor) -> None:
    reward = DifferentiableReward(tiny_clip(), vae=tiny_vae())
    with pytest.raises(ValueError, match="VAE may have overflowed in half precision"):
        reward(latents * torch.inf, PROMPTS)


def test_black_images_are_warned_of() -> None:
    images = torch.rand(3, 3, 8, 8)
    images[1] = 0
    with pytest.warns(UserWarning, match="1 of 3 images are entirely black.*safety checker"):
        unit_pixels(images, (0.0, 1.0))
    with pytest.warns(UserWarning, match="1 of 3 images are entirely black"):
        unit_pixels(images * 2 - 1, (-1.0, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unit_pixels(images[::2], (0.0, 1.0))


def test_unit_images_given_as_signed_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"value_range=\(0, 1\)"):
        unit_pixels(torch.rand(2, 3, 8, 8), (-1.0, 1.0))


@pytest.mark.parametrize(
    ("images", "value_range", "says"),
    [
        (torch.full((1, 3, 4, 4), 200.0), (-1.0, 1.0), "divide 8-bit levels by 127.5"),
        (torch.full((1, 3, 4, 4), torch.inf), (-1.0, 1.0), "infinite"),
        (torch.tensor([0.1, torch.nan]).repeat(24).view(1, 3, 4, 4), (-1.0, 1.0), "NaN"),
        (torch.full((1, 3, 4, 4), 1.2), (0.0, 1.0), "clamp"),
        (torch.rand(3, 4, 4), (0.0, 1.0), r"image\[None\]"),
        (torch.randn(2, 16, 64), (0.0, 1.0), "latents.*vae=pipe.vae"),
        (torch.rand(0, 3, 4, 4), (0.0, 1.0), r"\(0, 3, 4, 4\)"),
    ],
)
def test_other_values_and_shapes_are_refused(
    images: Tensor, value_range: tuple[float, float], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        unit_pixels(images, value_range)


def test_only_tensors_are_taken() -> None:
    with pytest.raises(TypeError, match="got list"):
        unit_pixels([1, 2], (0.0, 1.0))  # type: ignore[arg-type] # the point of the test
