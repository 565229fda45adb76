"""Rewards with gradient, called as the trainers that backpropagate through them call them."""

import pytest
import torch
from diffusers import AutoencoderTiny
from helpers.tiny import tiny_clip
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize

from stablepref.integrations.gradient_rewards import ReNOLoss, alignprop, refl, trl
from stablepref.integrations.reward import DifferentiableReward
from stablepref.models.catalog import BY_NAME

PROMPTS = ("a red circle", "a dog")
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@pytest.fixture
def unit() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_trl_ddpo_and_alignprop(unit: Tensor) -> None:
    """As their trainers: DDPO's tensors of (rewards, metadata), AlignProp's 10 - mean, backward."""
    scorer = tiny_clip()
    reward_fn = trl(DifferentiableReward(scorer))
    expected = scorer.score(unit, list(PROMPTS))

    reward, metadata = reward_fn(unit, PROMPTS, ({}, {}))  # DDPO, without graph
    torch.testing.assert_close(torch.as_tensor(reward, device="cpu"), expected)
    assert not reward.requires_grad
    rewards, _ = zip(*[(reward, metadata)] * 2, strict=True)
    assert torch.cat(rewards).shape == (4,)

    images = unit.clone().requires_grad_()
    reward, _ = reward_fn(images, PROMPTS, ({}, {}))
    loss = 10.0 - reward.mean()
    loss.backward()
    leaf = unit.clone().requires_grad_()
    scorer(leaf, PROMPTS).mean().backward()
    assert images.grad is not None
    assert leaf.grad is not None
    torch.testing.assert_close(images.grad, -leaf.grad)


def test_alignprop(unit: Tensor) -> None:
    """As its trainer: decoded images that overshoot [-1, 1], a loss and rewards for each."""
    scorer = tiny_clip(name="hps-v2.1")
    with torch.no_grad():
        scorer.model.logit_scale.fill_(torch.tensor(100.0).log())
    loss_fn = alignprop(DifferentiableReward(scorer, value_range=(-1, 1)))
    decoded = (unit * 2.4 - 1.2).requires_grad_()
    loss, rewards = loss_fn(decoded, PROMPTS)
    shown = ((decoded.detach() / 2) + 0.5).clamp(0, 1)
    cosine = functional.cosine_similarity(
        scorer.encode_images(shown), scorer.encode_prompts(PROMPTS)
    )
    torch.testing.assert_close(rewards, cosine, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, 1.0 - cosine, rtol=1e-4, atol=1e-5)
    (loss.mean() * 2.0).backward()
    assert decoded.grad is not None
    inside = (decoded.detach().abs() < 1).float()
    assert (decoded.grad != 0).float().mean() > 0.5
    assert (decoded.grad * (1 - inside)).abs().sum() == 0

    plain, _ = alignprop(
        DifferentiableReward(tiny_clip(), value_range=(-1, 1)), offset=3.0, factor=0.5
    )(decoded.detach(), PROMPTS)
    torch.testing.assert_close(plain, 3.0 - 0.5 * tiny_clip().score(shown, list(PROMPTS)))


def test_alignprop_at_its_published_head(unit: Tensor) -> None:
    """As alignprop_trainer.py: pictures in [0, 1], which its rgb_with_grad returns for "pt"."""
    scorer = tiny_clip()
    loss_fn = alignprop(DifferentiableReward(scorer))
    images = unit.clone().requires_grad_()
    loss, rewards = loss_fn(images, PROMPTS)
    torch.testing.assert_close(rewards.detach(), scorer.score(unit, list(PROMPTS)))
    loss.mean().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    # A reward for the other range warns, and what it advises is accepted.
    with pytest.warns(UserWarning, match=r"value_range=\(0, 1\)"):
        alignprop(DifferentiableReward(scorer, value_range=(-1, 1)))(unit, PROMPTS)


def test_refl(unit: Tensor) -> None:
    """As ReFL.py: the x0 prediction decoded, halved, shifted and clamped, then relu and mean."""
    scorer = tiny_clip(name="imagereward-v1")
    loss_fn = refl(DifferentiableReward(scorer))
    decoded = (unit * 2.2 - 1.1).requires_grad_()
    image = (decoded / 2 + 0.5).clamp(0, 1)
    loss = loss_fn(image, list(PROMPTS))
    scores = scorer.score(image.detach(), list(PROMPTS))
    expected = sum(max(0.0, 2.0 - score) for score in scores.tolist()) / 2 * 1e-3
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert decoded.grad is not None
    assert decoded.grad.abs().sum() > 0
    # Rewards beyond the margin are left alone.
    satisfied = refl(DifferentiableReward(scorer), margin=scores.min().item() - 1)
    assert satisfied(unit, list(PROMPTS)).item() == 0
    with pytest.raises(ValueError, match="pass margin="):
        refl(DifferentiableReward(tiny_clip()))


def test_refl_of_latents() -> None:
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    scorer = tiny_clip()
    z = torch.randn(2, 4, 8, 8, requires_grad=True)
    refl(DifferentiableReward(scorer, vae=vae), margin=5.0)(z, list(PROMPTS)).backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0


def test_reno(unit: Tensor) -> None:
    """As its LatentNoiseTrainer: one normalised 224-pixel image, a scalar, name and weighting."""
    scorer = tiny_clip(name="pickscore-v1")
    losses = [
        ReNOLoss(DifferentiableReward(scorer), weighting=0.05),
        ReNOLoss(DifferentiableReward(tiny_clip(protocol="hps", name="own"), views=2)),
    ]
    transform = Compose(
        [
            Resize(224, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(224),
            Normalize(*CLIP),
        ]
    )
    image = unit[:1].clone().requires_grad_()
    preprocessed = transform(image)
    total: Tensor | float = 0
    logged: dict[str, float] = {}
    for reward_loss in losses:
        loss = reward_loss(preprocessed, "a dog")
        assert isinstance(f"{reward_loss.name}: {loss.item():.4f}", str)
        total += loss * reward_loss.weighting
        logged[reward_loss.name] = loss.item()
    assert isinstance(total, Tensor)
    total.backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    resized = Compose(transform.transforms[:2])(unit[:1]).clamp(0, 1)
    assert logged["pickscore-v1"] == pytest.approx(
        30 - scorer.score(resized, "a dog").item(), abs=1e-3
    )
    assert logged["own"] == pytest.approx(
        -tiny_clip(protocol="hps").score(resized, "a dog", views=2).item(), abs=1e-3
    )


def test_robust_rewards_take_fresh_views_on_each_call(unit: Tensor) -> None:
    reward = DifferentiableReward(tiny_clip(), views=2)
    reward_fn = trl(reward)
    found = [reward_fn(unit, PROMPTS, None)[0] for _ in range(2)]
    for step, values in enumerate(found):
        torch.testing.assert_close(values, reward(unit, PROMPTS, step=step))
    assert not torch.equal(*found)


def test_a_reward_for_another_range_is_refused() -> None:
    signed = DifferentiableReward(tiny_clip(), value_range=(-1, 1))
    for make in (trl, ReNOLoss):
        with pytest.raises(ValueError, match=r"\[0, 1\] .* images in \(-1, 1\)"):
            make(signed)
    with pytest.raises(ValueError, match=r"ReFL sends images in \[0, 1\]"):
        refl(signed, margin=1.0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        num_encoder_blocks=(1,),
        num_decoder_blocks=(1,),
    )
    with pytest.raises(ValueError, match=r"AlignProp sends images in \[0, 1\] or \[-1, 1\] .*late"):
        alignprop(DifferentiableReward(tiny_clip(), vae=vae))


def test_constants_of_the_zoo_are_those_of_the_trainers() -> None:
    """ReNO's rewards/*.py and AlignProp's main.py; HPS is a cosine there and 100 x it here."""
    hps, clip, aesthetic = (1.0, 0.01), (100.0, 1.0), (10.0, 1.0)
    plain = (0.0, 1.0)  # in none of these trainers
    assert {entry.name: entry.loss_form for entry in BY_NAME.values() if entry.files} == {
        **dict.fromkeys(("hps-v3", "mps-v1", "mps-v1-batch"), plain),
        **dict.fromkeys(("cyclereward-combo", "cyclereward-t2i", "cyclereward-i2t"), plain),
        "aesthetic-v2.5": aesthetic,  # on the scale of the others of its kind
        "hps-v2.1": hps,
        "hps-v2": hps,
        "hps-v1": hps,
        "pickscore-v1": (30.0, 1.0),
        "clip-vit-h-14": clip,
        "clip-vit-l-14": clip,
        "imagereward-v1": (2.0, 1.0),
        "laion-aesthetic-v2": aesthetic,
        "laion-aesthetic-v1": aesthetic,
        "blip-large": (0.0, 1.0),
    }
    assert BY_NAME["shapes"].loss_form == (0.0, 1.0)
