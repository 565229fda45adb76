"""The pipeline's networks: sizes, the schedule, and the autoencoder's standardised latents."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from helpers.tiny_lab_pipeline import TINY

from stablepref.assets import PIPELINES
from stablepref.benchmarks.shapes.pipeline.autoencoder import standardise_latents, to_input
from stablepref.benchmarks.shapes.pipeline.parts import (
    Sizes,
    build_autoencoder,
    build_denoiser,
    build_scheduler,
    build_text_encoder,
    open_pipeline,
)
from stablepref.integrations.diffusion.described import pipeline_digests


def test_the_bundled_sizes_fit_twelve_megabytes() -> None:
    parts = [
        build(Sizes(), seed=0) for build in (build_autoencoder, build_text_encoder, build_denoiser)
    ]
    numbers = sum(weight.numel() for part in parts for weight in part.parameters())
    assert 2 * numbers < 11.85e6, "half precision; configuration and words, 0.1 MB, come on top"
    assert 4.2e6 < parts[2].num_parameters() < 4.6e6


def test_weights_depend_on_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    for build in (build_autoencoder, build_text_encoder, build_denoiser):
        one, same, other = (build(TINY, seed=seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(before, torch.random.get_rng_state())


def test_sampling_begins_in_total_noise() -> None:
    scheduler = build_scheduler()
    scheduler.set_timesteps(25)
    assert scheduler.timesteps[0] == 999
    assert scheduler.alphas_cumprod[-1] == 0
    # Nichol and Dhariwal's equation 17 with s = 0.008; the rescaling changes it by less than 1 %.
    middle = [np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2 for t in (0, 500)]
    assert scheduler.alphas_cumprod[499] == pytest.approx(middle[1] / middle[0], rel=0.01)


@torch.no_grad()
def test_standardising_changes_latents_but_not_pictures() -> None:
    model = build_autoencoder(TINY, seed=0).eval()
    model.quant_conv.bias[:4] = torch.tensor([3.0, -1.0, 0.0, 7.0])
    rng = np.random.default_rng(0)
    pictures = to_input([*rng.integers(0, 255, (16, 64, 64, 3), dtype=np.uint8)])
    before = model.encode(pictures).latent_dist
    decoded = model.decode(before.mean).sample
    standardise_latents(model, [pictures[:8], pictures[8:]])
    after = model.encode(pictures).latent_dist
    assert after.mean.mean(dim=(0, 2, 3)) == pytest.approx(np.zeros(4), abs=1e-5)
    assert after.mean.std(dim=(0, 2, 3)) == pytest.approx(np.ones(4), abs=1e-4)
    spread = before.mean.std(dim=(0, 2, 3))[:, None, None]
    torch.testing.assert_close(after.std * spread, before.std, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.decode(after.mean).sample, decoded, rtol=1e-4, atol=1e-4)


def test_pictures_become_input_in_their_range() -> None:
    black_white = [np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)]
    values = to_input(black_white)
    assert values.shape == (2, 3, 64, 64)
    assert values[0].unique().tolist() == [-1.0]
    assert values[1].unique().tolist() == [1.0]


def test_opening_changes_the_layout_alone() -> None:
    plain = StableDiffusionPipeline.from_pretrained(PIPELINES["shapes"])
    opened = open_pipeline(PIPELINES["shapes"])
    assert opened.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert pipeline_digests(opened) == pipeline_digests(plain)
    images = []
    for pipe in (plain, opened):
        pipe.set_progress_bar_config(disable=True)
        noise = torch.Generator().manual_seed(0)
        images.append(
            pipe("two green stars", num_inference_steps=3, generator=noise, output_type="pt").images
        )
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=1 / 255)
