"""Training by contrast in the forward process: towards good pictures, away from bad ones.

DiffusionNFT (Zheng et al. 2025, arXiv:2509.16117): pictures come from the pipeline as from a black
box, of any scheduler and number of steps. They get noise again, and the denoiser is trained on
them as it was first trained, but with a share for what is good in them and one for what is bad.

All pictures of a prompt get the same noise at the same levels, where the authors' code draws it for
each. What an error owes to its noise is then alike in them and cancels in the contrast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from stablepref.runtime.precision import widen

from .advantages import ADVANTAGE_BOUND
from .batches import noise_seed
from .noising import Noising

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .batches import Picture
    from .method_settings import OldPolicy
    from .state import FinetuneRun

_LEAST_ERROR: Final = 1e-5  # its code's floor of the mean absolute error
_RISE, _MOST_INERTIA = 0.001, 0.5  # its decay_type 1
_LATE, _LATE_RISE, _MOST_LATE_INERTIA = 75, 0.0075, 0.999  # its decay_type 2
_STEADY_INERTIA = 0.9  # our own: for steps of few pictures


def nft_step(run: FinetuneRun, step: int) -> dict[str, float]:
    """Draw pictures with the old policy, and train on them by how good they are.

    Args:
        run: The fine-tuning.
        step: From 0.

    Returns:
        "loss" and "grad_norm" of the last update, "reward" and "reward_std" over the step's
        pictures, "dropped": the prompts whose pictures all have one reward, which are left out.

    Raises:
        ValueError: Something is not finite; names the step.
        FloatingPointError: The loss or the gradient is not finite; names the step.
    """
    config, policies = run.config, run.policies
    assert policies.old is not None
    pictures = run.pictures(step)
    drawn, found = [], []
    with policies.drawing(), torch.no_grad():
        for chunk in run.chunks(pictures):
            prompts = [picture.prompt for picture in chunk]
            latents = run.loop.sample(prompts, [picture.generator() for picture in chunk])
            found.append(run.reward_parts(latents, prompts, step))
            drawn.append(latents)
    rewards = run.gathered(torch.cat(found))
    prompts = [picture.prompt for picture in pictures]
    better = run.better(rewards, prompts)
    count = int(better.kept.sum())
    share, kept = run.own_part(goodness(better.values)), run.own_part(better.kept)
    seeds: dict[str, int] = {}
    for picture in pictures:
        seeds.setdefault(picture.prompt, picture.seed)
    loss = norm = 0.0
    for update in range(config.update_count if count else 0):
        own = _gradients(
            run, list(run.chunks(pictures)), drawn, share, kept, seeds, update=update, count=count
        )
        loss = float(run.gathered(own[None]).sum())
        norm = run.update(step, loss, prompts)
    policies.old.follow(inertia(step + 1, config.nft_old))
    return {
        "loss": loss,
        **run.of_rewards(rewards),
        "grad_norm": norm,
        "dropped": better.dropped,
    }


def goodness(advantage: Tensor) -> Tensor:
    """The share of a picture that counts as good, `(batch,)`, from 0 to 1: one half at 0."""
    return (advantage / (2 * ADVANTAGE_BOUND) + 0.5).clamp(0, 1)


def inertia(step: int, kind: OldPolicy) -> float:
    """The share of itself that the old policy keeps after a step.

    Args:
        step: Steps done, from 1.
        kind: The schedule, of DiffusionNFT's code: "copy" 0 (type 0), "rising" 0.001 a step up to
            0.5 (type 1), "late" 0 until step 75, then 0.0075 a step up to 0.999 (type 2); and
            "steady" 0.9, for steps of few pictures, whose noise it averages from the first on.
    """
    if kind == "copy":
        return 0.0
    if kind == "rising":
        return min(_RISE * step, _MOST_INERTIA)
    if kind == "steady":
        return _STEADY_INERTIA
    return min(_LATE_RISE * max(0, step - _LATE), _MOST_LATE_INERTIA)


def contrast_loss(x0: Tensor, new: Tensor, old: Tensor, share: Tensor, *, beta: float) -> Tensor:
    """The loss of each picture, `(batch,)`.

    The good prediction is beta new + (1 - beta) old, the bad one (1 + beta) old - beta new: the
    paper's mixtures of velocities, which are linear, as x0 is in them, so that any kind of output
    will do. Each one's loss is its mean squared error, divided by its mean absolute error, which
    has no gradient. Together they are (share good + (1 - share) bad) / beta x 5.

    Args:
        x0: The pictures' latents, `(batch, channels, h, w)`.
        new: x0 predictions of the policy that is trained, with gradient.
        old: x0 predictions of the policy that drew.
        share: How good each picture is, from 0 to 1, `(batch,)`.
        beta: Above 0.
    """
    good = _relative_error(beta * new + (1 - beta) * old, x0)
    bad = _relative_error((1 + beta) * old - beta * new, x0)
    return (share * good + (1 - share) * bad) / beta * ADVANTAGE_BOUND


def _relative_error(predicted: Tensor, x0: Tensor) -> Tensor:
    error = (predicted - x0).flatten(1)
    size = error.detach().double().abs().mean(dim=1).clamp(min=_LEAST_ERROR)
    return error.square().mean(dim=1) / size.to(error)


def _gradients(
    run: FinetuneRun,
    chunks: Sequence[Sequence[Picture]],
    drawn: Sequence[Tensor],
    share: Tensor,
    kept: Tensor,
    seeds: Mapping[str, int],
    *,
    update: int,
    count: int,
) -> Tensor:
    """Add up the gradients of the mean loss, noise level by noise level.

    Each prompt has a seed for the noise of its pictures.

    Returns:
        This process's part of the mean loss, a scalar.
    """
    config, policies = run.config, run.policies
    noising = Noising(run.loop)
    levels = config.nft_timesteps or noising.steps
    total = share.new_zeros(())
    sizes = [len(latents) for latents in drawn]
    for chunk, latents, goods, keep in zip(
        chunks, drawn, share.split(sizes), kept.split(sizes), strict=True
    ):
        if not keep.any():
            continue
        pictures = [picture for picture, taken in zip(chunk, keep.tolist(), strict=True) if taken]
        x0, good = widen(latents[keep]), goods[keep]
        prompts = [picture.prompt for picture in pictures]
        steps, generators = _levels([seeds[one] for one in prompts], noising.steps, levels, update)
        for at in steps.unbind(dim=1):
            noise = torch.stack(
                [torch.randn(x0.shape[1:], generator=one, dtype=x0.dtype) for one in generators]
            ).to(x0.device)
            x = noising.noised(x0, noise, at)
            start = None
            with torch.no_grad():
                with policies.drawing():
                    old = noising.predict(x, at, prompts)
                if config.nft_kl:
                    with policies.reference():
                        start = noising.predict(x, at, prompts)
            new = noising.predict(x, at, prompts)
            losses = contrast_loss(x0, new, old, good, beta=config.nft_beta)
            if start is not None:
                losses = losses + config.nft_kl * noising.velocity_distance(new, start, at)
            part = losses.sum() / (count * levels)
            run.accelerator.backward(part)
            total += part.detach()
    return total


def _levels(
    seeds: Sequence[int], steps: int, count: int, update: int
) -> tuple[Tensor, list[torch.Generator]]:
    """Sampling steps `(pictures, count)` and generators of noise, equal for equal seeds."""
    generators = [torch.Generator().manual_seed(noise_seed(seed, update)) for seed in seeds]
    chosen = [torch.randperm(steps, generator=one)[:count] for one in generators]
    return torch.stack(chosen), generators
