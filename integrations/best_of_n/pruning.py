"""Dropping candidates that are losing while they are still being made.

Between two denoising steps the pipeline's prediction of the finished picture (x0) is decoded and
scored, and the losing share of the batch goes: the pipeline's call ends there, and another one
goes on with the latents, prompts and noise generators that are left, and with what the scheduler
remembers of them. This is for the pipelines and schedulers that are tested to give the survivors
the same picture as without pruning; all others are refused.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch import Tensor

from ..diffusion.call import BY_STEP, call, decoded
from ..diffusion.encodings import encoded_by
from ..diffusion.families import entered, family_of
from ..diffusion.latents import decode_latents
from ..diffusion.pipelines import decoder_lifted
from ..diffusion.x0 import check_supported, predict_x0

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL import Image

    from ..diffusion.pipelines import Pipeline

# Arguments with rows that a call that goes on does not get, what goes by the number of a step, and
# callbacks themselves, which would be told a number of their own.
_REFUSED: Final = (
    "callback_on_step_end",
    "ip_adapter_image",
    "ip_adapter_image_embeds",
    *BY_STEP,
)


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
    check_supported(
        pipe, what="prune=", pipelines=entered(), instead="use best of n without prune="
    )
    config: Mapping[str, Any] = getattr(pipe.components["scheduler"], "config", {})
    unfit = {
        "stochastic_sampling (its noise has no seed of its own)": config.get("stochastic_sampling"),
        "predict_x0=False": config.get("predict_x0") is False,
        "an algorithm_type other than dpmsolver++": config.get("algorithm_type", "dpmsolver++")
        != "dpmsolver++",
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
    """Prunes one batch: the pipeline's call ends after a step, and goes on with what is left.

    Attributes:
        rows: Positions in the batch of those that are left.
        dropped: For each position that is not, why, and its x0 prediction as a picture.

    Args:
        pipe: The pipeline.
        prune: Share of the steps to share of the batch kept there, at least one candidate.
        score: Scores of pictures.
        arguments: Of the pipeline's call for some positions in the batch.
        count: Positions in the batch.
    """

    def __init__(
        self,
        pipe: Pipeline,
        prune: Mapping[float, float],
        score: Callable[[Sequence[Image.Image]], list[float]],
        arguments: Callable[[Sequence[int]], Mapping[str, object]],
        count: int,
    ) -> None:
        self.rows = list(range(count))
        self.dropped: dict[int, tuple[Image.Image, str]] = {}
        self._pipe: Any = pipe
        self._prune = prune
        self._score = score
        self._arguments = arguments
        self._x0: Tensor | None = None
        self._done = 0

    @torch.no_grad()
    def run(self) -> object:
        """Make the batch; what the pipeline returns for the rows that are left at the end."""
        scheduler = copy.deepcopy(self._pipe.scheduler)
        options: dict[str, Any] = {}
        while True:
            arguments: Mapping[str, Any] = self._arguments(self.rows)
            with encoded_by(self._pipe, arguments["generator"]):
                made = call(
                    self._pipe,
                    arguments,
                    scheduler=scheduler,
                    rule=self._predict,
                    until=self._ends,
                    **options,
                )
            if not isinstance(made, Tensor):
                return made
            keep = self._kept(len(scheduler.timesteps))
            _slice_state(scheduler, keep, made)
            options = {
                "latents": made[keep],
                "timesteps": scheduler.timesteps[self._done :],
                "continued": True,
            }

    def _share(self, done: int, steps: int) -> float | None:
        """The share to keep after a step; None where nothing is pruned."""
        shares = [k for at, k in self._prune.items() if step_of(at, steps) == done]
        return min(shares) if shares and done < steps else None

    def _ends(self, done: int, steps: int) -> bool:
        self._done = done
        return self._share(done, steps) is not None

    def _predict(self, scheduler: Any, index: int, output: Tensor, latents: Tensor) -> None:  # noqa: ANN401 (diffusers' schedulers share no type)
        if self._share(index + 1, len(scheduler.timesteps)) is not None:
            self._x0 = predict_x0(scheduler, output, latents, index)

    def _kept(self, steps: int) -> list[int]:
        """Which of the rows go on; the others are dropped."""
        count, share = len(self.rows), self._share(self._done, steps)
        assert share is not None, "the call ended here"
        pictures = self._pictures()
        scores = [s if math.isfinite(s) else -math.inf for s in self._score(pictures)]
        order = sorted(range(count), key=lambda row: -scores[row])
        keep = sorted(order[: math.ceil(share * count)])
        for row in set(range(count)) - set(keep):
            fault = f"pruned after {self._done} of {steps} steps, at a score of {scores[row]:.4f}"
            self.dropped[self.rows[row]] = pictures[row], fault
        self.rows = [self.rows[row] for row in keep]
        return keep

    def _pictures(self) -> list[Image.Image]:
        """The x0 predictions as the pipeline would show them."""
        assert self._x0 is not None, "the scheduler has stepped"
        vae = self._pipe.vae
        shown: list[Image.Image]
        if family_of(self._pipe).packed:
            shown = decoded(self._pipe, self._arguments(self.rows), self._x0)
            return shown
        with decoder_lifted(vae):
            pixels = decode_latents(vae, self._x0)
            shown = self._pipe.image_processor.postprocess(pixels, output_type="pil")
        return shown


def _slice_state(scheduler: object, keep: Sequence[int], latents: Tensor) -> None:
    """What a scheduler remembers of the batch: latents, and lists of them."""

    def sliced(value: object) -> object:
        is_batch = isinstance(value, Tensor) and value.shape == latents.shape
        return value[keep] if is_batch else value  # type: ignore[index] # a tensor

    for name, value in vars(scheduler).items():
        vars(scheduler)[name] = [*map(sliced, value)] if type(value) is list else sliced(value)
