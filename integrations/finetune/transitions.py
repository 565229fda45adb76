"""Sampling steps as random choices: the normal density that the next latents are drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, final

import torch
from torch import Tensor

from stablepref.runtime.precision import widen

from ..diffusion.schedulers import another_scheduler, matches_flow
from ..diffusion.x0 import FLOW_MATCHING, predict_x0

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOG_ROOT_TWO_PI: Final = 0.5 * math.log(2 * math.pi)

Kind = Literal["ddim", "sde", "cps"]


class Density(NamedTuple):
    """The next latents are mean + std x noise.

    Attributes:
        mean: `(batch, channels, h, w)`, float32 (float64 for float64 latents).
        std: Standard deviation; 0 for a step without noise.
        diffusion: The deviation in whose units policies are compared: of Flow-GRPO's equation
            that before the square root of the step's length, else `std`.
    """

    mean: Tensor
    std: float
    diffusion: float


@final
@dataclass(frozen=True)
class Transition:
    """A kind of step with noise.

    Attributes:
        kind: "ddim" (Song et al. 2021), "sde" (Flow-GRPO, Liu et al. 2025) or "cps" (the
            coefficient-preserving form in Flow-GRPO's code).
        eta: How much noise.
    """

    kind: Kind
    eta: float

    def density(
        self,
        scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
        output: Tensor,
        latents: Tensor,
        step: int,
        *,
        noisy: bool = True,
    ) -> Density:
        """The density of a step.

        Args:
            scheduler: Of the kind: DDIM, or flow matching; its timesteps are set.
            output: The denoiser's, `(batch, channels, h, w)`.
            latents: Before the step.
            step: Its number, from 0.
            noisy: Whether it has noise; else it is the pipeline's own step without any.
        """
        return _DENSITIES[self.kind](scheduler, output, latents, step, self.eta if noisy else 0.0)

    def log_probability(self, drawn: Tensor, density: Density) -> Tensor:
        """Logarithm of the density of latents, `(batch,)`; of "cps" without its constants.

        Args:
            drawn: `(batch, ...)`; no gradient flows to it.
            density: Of the step, with noise.
        """
        if self.kind == "cps":
            return -(widen(drawn.detach()) - density.mean).square().flatten(1).mean(dim=1)
        return log_probability(drawn, density.mean, density.std)


def ddim_density(
    scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
    output: Tensor,
    latents: Tensor,
    step: int,
    eta: float,
) -> Density:
    """A step of DDIM: equations 12 and 16 of Song et al. 2021.

    With a schedule that begins in pure noise and eta 1 rounding can make the square of the
    direction's factor negative, where diffusers returns NaN: here it is 0 then.

    Args:
        scheduler: A DDIM scheduler whose timesteps are set.
        output: The denoiser's, `(batch, channels, h, w)`.
        latents: Before the step.
        step: Its number, from 0.
        eta: 0 for no noise, 1 for DDPM's.
    """
    timestep = int(scheduler.timesteps[step])
    before = timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    alpha = float(scheduler.alphas_cumprod[timestep])
    next_alpha = float(
        scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
    )
    x0 = predict_x0(scheduler, output, latents, step)
    epsilon = (widen(latents) - math.sqrt(alpha) * x0) / math.sqrt(1 - alpha)
    variance = (1 - next_alpha) / (1 - alpha) * (1 - alpha / next_alpha)
    std = eta * math.sqrt(max(0.0, variance))
    direction = math.sqrt(max(0.0, 1 - next_alpha - std**2))
    return Density(math.sqrt(next_alpha) * x0 + direction * epsilon, std, std)


def sde_density(
    scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
    output: Tensor,
    latents: Tensor,
    step: int,
    eta: float,
) -> Density:
    """A step of flow matching as a stochastic differential equation (Flow-GRPO, equation 9).

    With s = eta sqrt(sigma / (1 - sigma)) and dt = sigma_next - sigma, below 0, the mean is
    x (1 + s^2 dt / (2 sigma)) + v (1 + s^2 (1 - sigma) / (2 sigma)) dt and the deviation
    s sqrt(-dt). At sigma = 1 the denominator takes the second sigma, as in Flow-GRPO's code.

    Args:
        scheduler: A flow-matching Euler scheduler whose timesteps are set.
        output: The velocity v, `(batch, channels, h, w)`.
        latents: Before the step.
        step: Its number, from 0.
        eta: 0 for no noise; Flow-GRPO takes 0.7.
    """
    sigma, after = (float(value) for value in scheduler.sigmas[step : step + 2])
    second = float(scheduler.sigmas[1])
    diffusion = eta * math.sqrt(sigma / (1 - (second if sigma == 1 else sigma)))
    x, velocity, span = widen(latents), widen(output), after - sigma
    pull = diffusion**2 / (2 * sigma)
    mean = x * (1 + pull * span) + velocity * (1 + pull * (1 - sigma)) * span
    return Density(mean, diffusion * math.sqrt(-span), diffusion)


def cps_density(
    scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
    output: Tensor,
    latents: Tensor,
    step: int,
    eta: float,
) -> Density:
    """A step of flow matching whose noise takes the place of some of what is there.

    With s = sigma_next sin(eta pi / 2) and the two ends x0 = x - sigma v and
    x1 = x + (1 - sigma) v the mean is (1 - sigma_next) x0 + sqrt(sigma_next^2 - s^2) x1, so that
    picture and noise keep the coefficients of the schedule.

    Args:
        scheduler: A flow-matching Euler scheduler whose timesteps are set.
        output: The velocity v, `(batch, channels, h, w)`.
        latents: Before the step.
        step: Its number, from 0.
        eta: From 0 for no noise to 1; Flow-GRPO's code takes 0.8.
    """
    sigma, after = (float(value) for value in scheduler.sigmas[step : step + 2])
    x, velocity = widen(latents), widen(output)
    std = after * math.sin(eta * math.pi / 2)
    picture, noise = x - sigma * velocity, x + (1 - sigma) * velocity
    kept = math.sqrt(max(0.0, after**2 - std**2))
    return Density((1 - after) * picture + kept * noise, std, std)


_DENSITIES: Final[Mapping[Kind, Callable[[Any, Tensor, Tensor, int, float], Density]]] = {
    "ddim": ddim_density,
    "sde": sde_density,
    "cps": cps_density,
}


def log_probability(drawn: Tensor, mean: Tensor, std: float) -> Tensor:
    """Logarithm of the normal density, the mean over a picture's numbers, `(batch,)`.

    The mean, not the sum that the density of the whole would be: as in ddpo-pytorch
    (`ddim_with_logprob`) and flow_grpo, whose clip ranges belong to it.

    Args:
        drawn: `(batch, ...)`; no gradient flows to it.
        mean: Of the same shape.
        std: Above 0.
    """
    distance = (widen(drawn.detach()) - mean) / std
    density = -0.5 * distance.square() - math.log(std) - _LOG_ROOT_TWO_PI
    return density.flatten(1).mean(dim=1)


def check_policy(scheduler: object, *, method: str, flow: bool = False) -> None:
    """Refuse what gives no step a normal density that is known here.

    Args:
        scheduler: The pipeline's.
        method: Its name, for the message.
        flow: Whether the method knows flow matching as well as DDIM.

    Raises:
        ValueError: It is neither DDIM nor such a one, or clips its x0 prediction.
    """
    kind = type(scheduler).__name__
    config: Any = getattr(scheduler, "config", {})
    if flow and kind in FLOW_MATCHING:
        return
    if kind != "DDIMScheduler" or config.get("clip_sample") or config.get("thresholding"):
        also = f" or {', '.join(FLOW_MATCHING)}" if flow else ""
        msg = (
            f"method {method} needs DDIMScheduler without clip_sample and thresholding{also}; the "
            f"pipeline has {kind}. "
        )
        if kind == "DDIMScheduler":
            msg += (
                "Replace it by pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, "
                "clip_sample=False, thresholding=False), if the pipeline's latents are not in "
                "[-1, 1], or use another method, such as nft"
            )
        elif flow or not matches_flow(scheduler):
            msg += f"{another_scheduler(scheduler)}; or use another method, such as nft"
        else:
            msg += "It is one of flow matching: use another method, such as nft or grpo"
        raise ValueError(msg)


def is_flow(scheduler: object) -> bool:
    """Whether a scheduler that `check_policy` accepts is one of flow matching."""
    return type(scheduler).__name__ in FLOW_MATCHING


def clipped_loss(ratio: Tensor, advantage: Tensor, *, clip_range: float) -> Tensor:
    """The clipped surrogate of PPO (Schulman et al. 2017, equation 7), to be lowered, `(batch,)`.

    -min(ratio x advantage, clip(ratio, 1 - range, 1 + range) x advantage).

    Args:
        ratio: Of the present odds to those at the time of drawing, `(batch,)`, with gradient.
        advantage: `(batch,)`.
        clip_range: Bound of the ratio's distance to 1.
    """
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantage, clipped * advantage)
