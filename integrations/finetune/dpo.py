"""Training on pairs that people ranked, without a reward: Diffusion-DPO.

Diffusion-DPO (Wallace et al. 2023, arXiv:2311.12908) lowers the denoising error of the better
picture and raises that of the worse one, each compared with the pipeline as it was. By how much
they differ is the log-odds that the model itself gives the pair, its implicit margin. It takes the
place of a reward model's margin, so that the weights of *Stable Preference* apply to it as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from stablepref.losses import (
    margin_log_normalizer,
    margin_weight,
    order_weight,
    preference_loss,
)
from stablepref.runtime.precision import widen

from ..diffusion.denoiser import denoiser_of
from ..diffusion.pipelines import unwrapped
from ..diffusion.x0 import prediction_type
from .dpo_pairs import step_pairs, training_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .config import FinetuneConfig
    from .dpo_pairs import Drawn
    from .state import FinetuneRun

BETA: Final = 5000.0  # the paper's, for Stable Diffusion
FLOW_BETA: Final = 2000.0  # Flow-Factory's, for flow matching


def dpo_step(run: FinetuneRun, step: int) -> dict[str, float]:
    """Change the weights once, by a batch of pairs.

    Args:
        run: The fine-tuning, with pairs.
        step: From 0.

    Returns:
        "loss", "grad_norm", "accuracy": the share of pairs whose better picture has the larger
        implicit reward, "margin": the mean implicit margin.

    Raises:
        ImageError: A picture cannot be used.
        FloatingPointError: The loss or the gradient is not finite; names the step.
    """
    config = run.config
    drawn = step_pairs(run.pairs, step, batch_size=config.batch_size, seed=config.seed)
    encode = run.latents
    weighting = weighting_of(config, step)
    chunks = list(run.chunks(drawn))
    normalizer = None
    if weighting == "margin":
        with torch.no_grad():
            own = torch.cat([implicit_margins(run, chunk, encode(chunk)) for chunk in chunks])
        normalizer = margin_log_normalizer(run.gathered(own))
    margins, losses = [], []
    for chunk in chunks:
        margin = implicit_margins(run, chunk, encode(chunk))
        loss = weighted(margin, config, weighting, normalizer=normalizer, count=len(drawn))
        run.accelerator.backward(loss)
        margins.append(margin.detach())
        losses.append(loss.detach())
    every = run.gathered(torch.cat(margins))
    loss_value = float(run.gathered(torch.stack(losses).sum()[None]).sum())
    norm = run.update(step, loss_value, [one.prompt for one in drawn])
    return {
        "loss": loss_value,
        "grad_norm": norm,
        "accuracy": float((every > 0).float().mean()),
        "margin": float(every.mean()),
    }


def implicit_margins(run: FinetuneRun, chunk: Sequence[Drawn], latents: Tensor) -> Tensor:
    """The model's own log-odds of pairs, `(pairs,)`, with gradient where there is one.

    -beta / 2 ((L_w - L_l) - (L_w_ref - L_l_ref)), where L is the mean squared error of what the
    denoiser predicts, of the better (w) and the worse (l) picture at one noise and noise level, and
    ref the pipeline as it was (Wallace et al. 2023, equation 14; their code's factor 1 / 2).

    Args:
        run: The fine-tuning.
        chunk: The pairs.
        latents: `(2 x pairs, ...)`, of the better pictures, then of the worse.
    """
    scheduler = run.loop.scheduler()
    predicts = prediction_type(scheduler)
    flow = predicts == "flow_prediction"  # of solvers like DPM-Solver++, too
    latents = widen(latents)
    better, _ = latents.chunk(2)
    times, signal, level, noise = training_noise(
        scheduler, [one.seed for one in chunk], better, flow=flow
    )
    times, signal, level, noise = (torch.cat([one] * 2) for one in (times, signal, level, noise))
    x = signal * latents + level * noise
    goal = target(predicts, latents, noise, signal=signal, level=level)
    prompts = [one.prompt for one in chunk] * 2
    seen = x.to(unwrapped(denoiser_of(run.loop.pipe)).dtype)

    def errors() -> Tensor:
        output = run.loop.denoise(seen, times, prompts, guided=False)
        return (widen(output) - goal).square().flatten(1).mean(dim=1)

    with torch.no_grad(), run.policies.reference():
        first = errors()
    better_error, worse_error = (errors() - first).chunk(2)
    beta = run.config.dpo_beta or (FLOW_BETA if flow else BETA)
    return -0.5 * beta * (better_error - worse_error)


def target(of: str, x0: Tensor, noise: Tensor, *, signal: Tensor, level: Tensor) -> Tensor:
    """What a denoiser is trained to predict, of the shape of the latents.

    Args:
        of: As `prediction_type` gives it.
        x0: Finished latents.
        noise: What is mixed with them.
        signal: Factor of the picture.
        level: Factor of the noise.
    """
    if of == "epsilon":
        return noise
    if of == "v_prediction":
        return signal * noise - level * x0
    if of == "flow_prediction":
        return noise - x0
    return x0


def weighting_of(config: FinetuneConfig, step: int) -> str:
    """How pairs are weighted at a step: "equal", "order" or "margin"."""
    if config.dpo_weights != "paper":
        return config.dpo_weights
    return "order" if step < config.dpo_order_steps else "margin"


def weighted(
    margin: Tensor,
    config: FinetuneConfig,
    weighting: str,
    *,
    normalizer: Tensor | None,
    count: int,
) -> Tensor:
    """This part of the loss of a batch, a scalar.

    Cross-entropy of the margins, `preference_loss`, with equal weights (DPO), or with those of
    *Stable Preference*: `order_weight`, in the mean, or `margin_weight`, in the sum.

    Args:
        margin: Implicit margins of some pairs, `(pairs,)`.
        config: Has b and tau.
        weighting: "equal", "order" or "margin".
        normalizer: `margin_log_normalizer` of the whole batch, for "margin".
        count: Pairs of the whole batch.
    """
    loss: Any = preference_loss(margin)
    if weighting == "margin":
        assert normalizer is not None
        return (margin_weight(margin, log_normalizer=normalizer) * loss).sum()
    if weighting == "order":
        loss = order_weight(margin, config.dpo_b, config.dpo_tau) * loss
    total: Tensor = loss.sum() / count
    return total
