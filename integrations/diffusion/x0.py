"""What a denoiser's output predicts of the finished picture (x0), for each scheduler that is known.

Every one of them holds latents that are scale x (signal x x0 + noise x epsilon), with epsilon
standard normal, and shows the denoiser the bracket. They differ in the three numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from stablepref.runtime.precision import widen

from .families import FAMILIES, find_family
from .schedulers import another_scheduler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .pipelines import Pipeline

# Schedulers that look their noise up by timestep; the others, by the number of the step.
_BY_TIMESTEP: Final = ("DDIMScheduler", "DDPMScheduler", "LCMScheduler")
_EULER: Final = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
# Those that remember x0 predictions.
MULTISTEP: Final = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
FLOW_MATCHING: Final = ("FlowMatchEulerDiscreteScheduler",)
SCHEDULERS: Final = _BY_TIMESTEP + _EULER + MULTISTEP + FLOW_MATCHING
"""Those whose x0 predictions are known, with one step for each timestep, whose steps have a
gradient."""


@final
@dataclass(frozen=True)
class NoiseLevel:
    """How much noise is in latents: they are scale x (signal x x0 + noise x epsilon).

    Attributes:
        signal: Factor of the picture.
        noise: Factor of the noise.
        scale: Factor of both: the denoiser sees latents / scale. 1 but for Euler's schedulers.
    """

    signal: float
    noise: float
    scale: float = 1.0


def check_supported(pipe: Pipeline, *, what: str, pipelines: Sequence[str], instead: str) -> None:
    """Refuse pipelines and schedulers whose x0 predictions are not known.

    Args:
        pipe: The pipeline.
        what: What is asked of it, as the message begins.
        pipelines: Names of the pipelines' rows for which that is.
        instead: What to use with another pipeline.

    Raises:
        ValueError: The pipeline is not one of those, or its scheduler not of `SCHEDULERS`.
    """
    family = find_family(pipe)
    scheduler = pipe.components.get("scheduler")
    kind = type(scheduler).__name__
    known = family in [FAMILIES[name] for name in pipelines]
    if not known or kind not in SCHEDULERS:
        msg = (
            f"{what} is for {', '.join(pipelines)} with {', '.join(SCHEDULERS)}; this is "
            f"{type(pipe).__name__} with {kind}"
        )
        msg += f". {another_scheduler(scheduler)}" if known else f"; {instead}"
        raise ValueError(msg)


def noise_level(scheduler: Any, step: int) -> NoiseLevel:  # noqa: ANN401 - diffusers is untyped
    """How much noise is in the latents that go into a step.

    Args:
        scheduler: One of `SCHEDULERS`, its timesteps set.
        step: Number of the step, from 0.
    """
    kind = type(scheduler).__name__
    if kind in _BY_TIMESTEP:
        kept = float(scheduler.alphas_cumprod[int(scheduler.timesteps[step])])
        return NoiseLevel(math.sqrt(kept), math.sqrt(1 - kept))
    sigma = float(scheduler.sigmas[step])
    if kind in FLOW_MATCHING or scheduler.config.get("use_flow_sigmas"):
        return NoiseLevel(1 - sigma, sigma)
    size = math.hypot(1, sigma)
    return NoiseLevel(1 / size, sigma / size, size if kind in _EULER else 1.0)


def predict_x0(scheduler: Any, output: Tensor, latents: Tensor, step: int) -> Tensor:  # noqa: ANN401
    """The picture that a denoiser's output predicts, as latents; differentiable.

    See `x0_of_output`. It is clipped where the scheduler clips it. Of a consistency model it is
    c_skip x latents + c_out x that prediction, as the scheduler makes it (Luo et al. 2023, section
    4.1).

    Args:
        scheduler: One of `SCHEDULERS`, its timesteps set.
        output: The denoiser's, for these latents.
        latents: As they go into the step, `(batch, channels, h, w)`.
        step: Number of the step, from 0.

    Returns:
        Of the shape of the latents, float32 (float64 for float64 ones).

    Raises:
        ValueError: The scheduler has another `prediction_type`.
    """
    level, kind = noise_level(scheduler, step), type(scheduler).__name__
    x = widen(latents) / level.scale
    x0 = x0_of_output(
        prediction_type(scheduler), widen(output), x, signal=level.signal, noise=level.noise
    )
    if kind in _BY_TIMESTEP and scheduler.config.clip_sample:
        reach = scheduler.config.clip_sample_range
        x0 = x0.clamp(-reach, reach)
    if kind == "LCMScheduler":
        time = int(scheduler.timesteps[step])
        skip, kept = scheduler.get_scalings_for_boundary_condition_discrete(time)
        x0 = kept * x0 + skip * x
    return x0


def prediction_type(scheduler: Any) -> str:  # noqa: ANN401 - diffusers is untyped
    """What the denoiser of a scheduler of `SCHEDULERS` predicts, as diffusers calls it.

    Raises:
        ValueError: It is not "epsilon", "v_prediction", "flow_prediction" or "sample".
    """
    kind = type(scheduler).__name__
    of: str = "flow_prediction" if kind in FLOW_MATCHING else scheduler.config.prediction_type
    if of not in ("epsilon", "v_prediction", "flow_prediction", "sample"):
        msg = (
            f"{kind} has the prediction_type {of!r}; expected epsilon, v_prediction, "
            "flow_prediction or sample"
        )
        raise ValueError(msg)
    return of


def x0_of_output(
    of: str, output: Tensor, x: Tensor, *, signal: Tensor | float, noise: Tensor | float
) -> Tensor:
    """The picture that a denoiser's output predicts, as latents; differentiable.

    With a, s the factors of picture and noise, the prediction is (x - s output) / a of noise
    (epsilon; Ho et al. 2020), a x - s output of velocity (v_prediction; Salimans and Ho 2022),
    x - s output of flow, where a + s = 1 (Lipman et al. 2023), and the output itself (sample).

    Args:
        of: As `prediction_type` gives it.
        output: The denoiser's, for these latents.
        x: Latents as the denoiser sees them, `(batch, channels, h, w)`.
        signal: Factor of the picture in them; a number, or one that broadcasts.
        noise: Factor of the noise in them, likewise.
    """
    if of == "epsilon":
        return (x - noise * output) / signal
    if of == "v_prediction":
        return signal * x - noise * output
    if of == "flow_prediction":
        return x - noise * output
    return output
