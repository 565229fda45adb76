"""The forward process: finished latents with the noise of a sampling step, and what is predicted.

A denoiser sees x = signal x0 + noise epsilon and its output, of whatever kind, predicts x0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from stablepref.runtime.precision import widen

from ..diffusion.denoiser import denoiser_of
from ..diffusion.pipelines import unwrapped
from ..diffusion.x0 import noise_level, prediction_type, x0_of_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..diffusion.sampling import SamplingLoop


@final
class Noising:
    """Noise levels of a pipeline's sampling steps, and predictions of its denoiser at them.

    Predictions are without guidance: classifier-free guidance is not a policy that is trained.

    Attributes:
        steps: Number of noise levels.

    Args:
        loop: The pipeline's sampling, with its number of steps.
    """

    def __init__(self, loop: SamplingLoop) -> None:
        scheduler = loop.scheduler()
        self.steps = len(scheduler.timesteps)
        self._kind = prediction_type(scheduler)
        self._timesteps: Tensor = scheduler.timesteps
        levels = [noise_level(scheduler, step) for step in range(self.steps)]
        self._signal = torch.tensor([level.signal for level in levels], dtype=torch.float64)
        self._noise = torch.tensor([level.noise for level in levels], dtype=torch.float64)
        self._loop = loop
        self._dtype = unwrapped(denoiser_of(loop.pipe)).dtype

    def noised(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """Latents as the denoiser sees them.

        Args:
            latents: Finished ones, `(batch, ...)`.
            noise: Standard normal, of the same shape.
            steps: The sampling step of each picture, from 0, int64 `(batch,)`.
        """
        signal, level = self._factors(steps, latents)
        return signal * latents + level * noise

    def predict(self, x: Tensor, steps: Tensor, prompts: Sequence[str]) -> Tensor:
        """The x0 prediction, of the shape of the latents, float32 (float64 for float64 ones).

        Args:
            x: Latents as the denoiser sees them, `(batch, ...)`.
            steps: The sampling step of each picture, from 0, int64 `(batch,)`.
            prompts: One for each picture.
        """
        times = self._timesteps[steps.to(self._timesteps.device)]
        output = self._loop.denoise(x.to(self._dtype), times, prompts, guided=False)
        wide = widen(x)
        signal, noise = self._factors(steps, wide)
        return x0_of_output(self._kind, widen(output), wide, signal=signal, noise=noise)

    def velocity_distance(self, x0: Tensor, other: Tensor, steps: Tensor) -> Tensor:
        """Mean square `(batch,)` of the difference of two predictions as velocities.

        Both of flow matching (epsilon - x0) and of v-prediction (signal epsilon - noise x0) the
        velocity is a constant of x less x0 / noise, so that the difference of two at one x is
        that of their x0 predictions, divided by the noise.
        """
        _, noise = self._factors(steps, x0)
        return ((x0 - other) / noise).square().flatten(1).mean(dim=1)

    def _factors(self, steps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise of each picture, `(batch, 1, ...)`."""
        shape = (-1, *(1,) * (like.ndim - 1))
        rows = steps.to("cpu")
        return (
            self._signal[rows].to(like).view(shape),
            self._noise[rows].to(like).view(shape),
        )
