"""Dropping candidates that are losing while they are still being made.

Between two denoising steps the pipeline's prediction of the finished picture (x0) is decoded and
scored, and the losing share of the batch goes: its latents, embeddings, noise generators and what
the scheduler remembers of it. Pipelines keep such things in different places, so this is for those
that were looked at, with schedulers that are tested to give the survivors the same picture as
without pruning; all others are refused.
"""

from __future__ import annotations

import functools
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch import Tensor

from ..diffusion.denoiser import embeds_guidance
from ..diffusion.families import family_of
from ..diffusion.latents import decode_latents
from ..diffusion.pipelines import decoder_lifted
from ..diffusion.x0 import (
    FLOW_MATCHING,
    MULTISTEP,
    check_supported,
    predict_x0,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from PIL import Image

    from ..diffusion.pipelines import Pipeline

# Arguments with rows that a callback does not reach, or callbacks themselves.
_REFUSED: Final = (
    "callback_on_step_end",
    "ip_adapter_image",
    "ip_adapter_image_embeds",
    "skip_guidance_layers",
)
_LATENT_RANK = 4


def check_prune(
    pipe: Pipeline, prune: Mapping[float, float], arguments: Mapping[str, object]
) -> None:
    """Refuse what is not tested, before anything is made.

    Raises:
        ValueError: The pipeline, its scheduler or an argument is not supported, or a share in
            `prune` is not between 0 and 1.
    """
    for at, keep in prune.items():
        if not (0 < at < 1 and 0 < keep < 1):
            msg = (
                f"prune is {dict(prune)}; expected shares of the steps and shares to keep, both "
                "above 0 and below 1, such as {0.4: 0.5}"
            )
            raise ValueError(msg)
    check_supported(pipe, what="prune=")
    config: Mapping[str, Any] = getattr(pipe.components["scheduler"], "config", {})
    unfit = {
        "stochastic_sampling (its noise has no seed of its own)": config.get("stochastic_sampling"),
        "predict_x0=False": config.get("predict_x0") is False,
        "an algorithm_type other than dpmsolver++": config.get("algorithm_type", "dpmsolver++")
        != "dpmsolver++",
        "an embedded guidance scale": embeds_guidance(pipe),
    }
    given = [name for name in _REFUSED if arguments.get(name) is not None]
    wrong = [what for what, is_so in unfit.items() if is_so] + given
    if wrong:
        msg = f"prune= does not go with {', '.join(wrong)}"
        raise ValueError(msg)


def step_of(share: float, steps: int) -> int:
    """The denoising step, from 1, after which that share of them is done."""
    return max(1, round(share * steps))


@final
class Pruner:
    """Prunes one batch, as the pipeline's `callback_on_step_end`.

    Attributes:
        rows: Positions in the batch of those that are left.
        dropped: For each position that is not, why, and its x0 prediction as a picture.

    Args:
        prune: Share of the steps to share of the batch kept there, at least one candidate.
        score: Scores of pictures.
        generators: Of the batch; shortened with it, in place, for the pipeline holds the list.
    """

    def __init__(
        self,
        pipe: Pipeline,
        prune: Mapping[float, float],
        score: Callable[[Sequence[Image.Image]], list[float]],
        generators: list[torch.Generator],
    ) -> None:
        self.rows = list(range(len(generators)))
        self.dropped: dict[int, tuple[Image.Image, str]] = {}
        self._pipe: Any = pipe
        self._prune = prune
        self._score = score
        self._generators = generators
        self._x0: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[dict[str, object]]:
        """Catch x0 predictions within; yields the arguments of the pipeline's call."""
        scheduler = self._pipe.scheduler
        step = scheduler.step
        flow = type(scheduler).__name__ in FLOW_MATCHING
        remembered = type(scheduler).__name__ in MULTISTEP

        # With the signature of the step itself: pipelines look there for what they may pass.
        @functools.wraps(step)
        def caught(
            model_output: Tensor, timestep: Tensor, sample: Tensor, **kwargs: object
        ) -> tuple[Tensor, ...]:
            output: tuple[Tensor, ...] = step(model_output, timestep, sample, **kwargs)
            if flow:
                taken = scheduler.step_index - 1
                self._x0 = predict_x0(scheduler, model_output, sample, taken)
            else:
                self._x0 = scheduler.model_outputs[-1] if remembered else output[1]
            return output

        vars(scheduler)["step"] = caught
        try:
            yield {
                "callback_on_step_end": self._on_step_end,
                "callback_on_step_end_tensor_inputs": family_of(self._pipe).step_tensors,
            }
        finally:
            del vars(scheduler)["step"]

    def _on_step_end(
        self, pipe: object, step: int, timestep: object, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        del pipe, timestep
        total = self._pipe.num_timesteps
        shares = [k for at, k in self._prune.items() if step_of(at, total) == step + 1]
        if not shares or step + 1 >= total:
            return tensors
        count = len(self.rows)
        pictures = self._pictures()
        scores = [s if math.isfinite(s) else -math.inf for s in self._score(pictures)]
        order = sorted(range(count), key=lambda row: -scores[row])
        keep = sorted(order[: math.ceil(min(shares) * count)])
        for row in set(range(count)) - set(keep):
            fault = f"pruned after {step + 1} of {total} steps, at a score of {scores[row]:.4f}"
            self.dropped[self.rows[row]] = pictures[row], fault
        self.rows = [self.rows[row] for row in keep]
        self._generators[:] = [self._generators[row] for row in keep]
        _slice_state(self._pipe.scheduler, keep, count)
        return {name: _slice(tensor, keep, count) for name, tensor in tensors.items()}

    def _pictures(self) -> list[Image.Image]:
        """The x0 predictions as the pipeline would show them."""
        assert self._x0 is not None, "the scheduler has stepped"
        vae = self._pipe.vae
        with decoder_lifted(vae):
            decoded = decode_latents(vae, self._x0)
        shown: list[Image.Image] = self._pipe.image_processor.postprocess(
            decoded, output_type="pil"
        )
        return shown


def _slice(tensor: Tensor, keep: Sequence[int], count: int) -> Tensor:
    """The rows kept, of a tensor with one or, with guidance, two runs of `count` rows."""
    rows = [run * count + row for run in range(len(tensor) // count) for row in keep]
    return tensor[rows]


def _slice_state(scheduler: object, keep: Sequence[int], count: int) -> None:
    """What a scheduler remembers of the batch: latents, and lists of them."""

    def sliced(value: object) -> object:
        is_batch = isinstance(value, Tensor) and value.ndim == _LATENT_RANK
        return _slice(value, keep, count) if is_batch else value  # type: ignore[arg-type] # a tensor

    for name, value in vars(scheduler).items():
        vars(scheduler)[name] = [*map(sliced, value)] if type(value) is list else sliced(value)
