"""The denoiser's batches and errors, against naive ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_lab_pipeline import TINY
from torch import nn

from stablepref.benchmarks.shapes.clip.scene_code import scene_codes
from stablepref.benchmarks.shapes.pipeline.autoencoder import Pictures, object_circles, to_input
from stablepref.benchmarks.shapes.pipeline.batches import LatentBatches
from stablepref.benchmarks.shapes.pipeline.denoiser import (
    Averaged,
    DenoiserConfig,
    batch_losses,
    train_denoiser,
)
from stablepref.benchmarks.shapes.pipeline.latents import Latents, cache_latents, training_picture
from stablepref.benchmarks.shapes.pipeline.object_maps import build_reader
from stablepref.benchmarks.shapes.pipeline.parts import (
    build_autoencoder,
    build_denoiser,
    build_scheduler,
)
from stablepref.benchmarks.shapes.pipeline.prompt_encoder import build_prompt_encoder, places_loss
from stablepref.benchmarks.shapes.world.drawing import layout, render
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import BACKGROUNDS, split_of


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Latents:
    autoencoder = build_autoencoder(TINY, seed=0).eval()
    folder = tmp_path_factory.mktemp("latents")
    return cache_latents(autoencoder, folder, number=20, seed=5, quiet=True)


def batches(latents: Latents, **options: object) -> LatentBatches:
    chosen: dict = {"batch_size": 8, "steps": 9, "textless": 0.25, "seed": 0, **options}
    return LatentBatches(latents, pictures_seed=5, **chosen)


def test_batches_depend_on_seed_and_step_alone(latents: Latents) -> None:
    first = batches(latents)
    for step in (3, 0):
        again = batches(latents)[step]
        for one, other in zip(first[step], again, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(first[1].noise, first[2].noise)
    assert not torch.equal(first[1].noise, batches(latents, seed=1)[1].noise)


def test_times_are_stratified(latents: Latents) -> None:
    for step in range(5):
        parts = batches(latents)[step].times // 125
        assert parts.tolist() == [*range(8)]


def test_prompts_describe_the_pictures_and_some_are_left_out(latents: Latents) -> None:
    dataset, textless = batches(latents, batch_size=32), 0
    scenes = {training_picture(5, index).scene for index in range(20)}
    assert all(split_of(scene) == "train" for scene in scenes)
    for step in range(4):
        batch = dataset[step]
        for tokens, description in zip(batch.tokens, batch.descriptions, strict=True):
            text = dataset.tokenizer.decode(tokens, skip_special_tokens=True)
            assert (description == 0).all() == (not text)
            textless += not text
            if text:
                assert parse(text.replace(" ,", ",").replace(" :", ":")) in scenes
    assert 0.15 < textless / 128 < 0.35


def test_pictures_have_plain_backgrounds_which_prompts_leave_open() -> None:
    pictures = [training_picture(0, index) for index in range(60)]
    assert {one.drawn.background for one in pictures} == set(BACKGROUNDS)
    for one in pictures:
        assert replace(one.drawn, background=one.scene.background) == one.scene
        if one.scene.background is not None:
            assert one.drawn == one.scene
    assert any(one.scene.background is None for one in pictures)


def test_latents_are_drawn_from_the_autoencoders_distribution(latents: Latents) -> None:
    autoencoder = build_autoencoder(TINY, seed=0).eval()
    assert latents[3].shape == (2, 4, 16, 16)
    picture = training_picture(5, 3)
    with torch.no_grad():
        drawn = to_input([render(picture.drawn, seed=picture.seed)])
        wanted = autoencoder.encode(drawn).latent_dist
    np.testing.assert_allclose(latents[3][0], wanted.mean[0], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(latents[3][1], wanted.std[0], rtol=2e-3, atol=1e-3)


def test_errors_are_those_of_a_naive_loop(latents: Latents) -> None:
    config = DenoiserConfig(sizes=TINY, max_weight=5.0)
    text, places = build_prompt_encoder(TINY, seed=0)
    networks = nn.ModuleDict(
        {
            "text": text,
            "places": places,
            "denoiser": build_denoiser(TINY, seed=0),
            "reader": build_reader(TINY.denoiser[1], seed=0),
        }
    )
    scheduler, batch = build_scheduler(), batches(latents)[0]
    with torch.no_grad():
        losses = batch_losses(networks, scheduler, batch, config)
        wanted = 0.0
        for i, time in enumerate(batch.times):
            kept = float(scheduler.alphas_cumprod[time])
            noisy = kept**0.5 * batch.latents[i] + (1 - kept) ** 0.5 * batch.noise[i]
            states = networks["text"](batch.tokens[i : i + 1]).last_hidden_state
            v = networks["denoiser"](noisy[None], time, states).sample[0]
            clean = kept**0.5 * noisy - (1 - kept) ** 0.5 * v
            if time == 999:  # nothing of the latents is left: v is all but their negative
                clean, weight = -v, 1.0
            else:
                weight = min(kept / (1 - kept) + 1, 5.0)
            wanted += weight * float((clean - batch.latents[i]).square().mean()) / 8
    assert float(losses.error) == pytest.approx(wanted, rel=1e-4)
    codes, known = scene_codes(batch.descriptions, TINY.text), []
    for tokens, code in zip(batch.tokens, codes, strict=True):
        pooled = networks["text"](tokens[None]).pooler_output[0].detach()
        if code.any():
            known.append(1 - float(pooled @ code / pooled.norm()))
    assert float(losses.code_loss) == pytest.approx(sum(known) / len(known), rel=1e-4)
    with torch.no_grad():
        read = places(text(batch.tokens).pooler_output)
        expected = float(places_loss(read, batch.descriptions))
    assert float(losses.places_loss) == pytest.approx(expected, rel=1e-4) != 0
    weights = (1, config.code_weight, config.places_weight, config.reading_weight)
    total = sum(weight * float(one) for weight, one in zip(weights, losses, strict=True))
    assert float(losses.total(config)) == pytest.approx(total, rel=1e-5)


def test_the_average_is_the_recursive_one() -> None:
    network = nn.Linear(1, 1, bias=False)
    averaged = Averaged(network, decay=0.5)
    wanted = float(network.weight.detach())
    for step, value in enumerate([1.0, 4.0, -2.0, 8.0, 3.0, 1.0, 0.5, 9.0, 2.0, 5.0]):
        with torch.no_grad():
            network.weight.fill_(value)
        averaged.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * value
        assert float(averaged.network.weight) == pytest.approx(wanted)


def test_cached_latents_are_checked_and_completed(latents: Latents, tmp_path: Path) -> None:
    autoencoder = build_autoencoder(TINY, seed=0).eval()
    cache_latents(autoencoder, tmp_path, number=3, seed=5, quiet=True)
    (tmp_path / "00000.npy").rename(tmp_path / "moved")
    again = cache_latents(autoencoder, tmp_path, number=3, seed=5, quiet=True)
    assert np.array_equal(again[2], latents[2])
    with pytest.raises(ValueError, match="remove the folder"):
        cache_latents(build_autoencoder(TINY, seed=1), tmp_path, number=3, seed=5, quiet=True)
    with pytest.raises(ValueError, match="'seed': 6"):
        cache_latents(autoencoder, tmp_path, number=3, seed=6, quiet=True)


def test_misfits_are_refused(latents: Latents, tmp_path: Path) -> None:
    config, prompts = DenoiserConfig(sizes=TINY, pictures=20), build_prompt_encoder(TINY, seed=0)
    with pytest.raises(ValueError, match="expected a multiple of checkpoint_every, 200"):
        train_denoiser(config, prompts, latents, tmp_path, pictures_seed=5, visit_every=300)
    with pytest.raises(ValueError, match="20 latents; expected 30"):
        train_denoiser(DenoiserConfig(pictures=30), prompts, latents, tmp_path, pictures_seed=5)


def test_pictures_of_a_step_do_not_depend_on_those_before() -> None:
    one, same, other = (Pictures(name, 2, 5)[3][0] for name in "aab")
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_circles_hold_the_objects() -> None:
    scene = parse("a red circle left of a blue square on a grey background")
    pixels = torch.from_numpy(render(scene, seed=1)).float()
    inside = object_circles(layout(scene, 1))[0]
    far = (pixels - pixels[~inside].mean(dim=0)).abs().amax(dim=2) > 60
    assert not (far & ~inside).any()
    assert far.sum() > 0.5 * inside.sum()
