"""A look ahead from within a pipeline's call: other calls of it, which leave it as it was."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import torch

from .call import CallEnded, call, decoded
from .encodings import Encodings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor


@final
class Probe:
    """What the denoiser predicts, and pictures of latents, as a call of the pipeline makes them.

    Gradients are kept where the caller's mode keeps them. Nothing that the call around it keeps in
    the pipeline or its scheduler changes, and no generator of its arguments is used: pictures among
    them are those that the call around it encoded.

    Args:
        pipe: A pipeline whose row has `from_noise`, before the call.
        arguments: Of the call around it, with none of `call.BY_STEP`.
    """

    def __init__(self, pipe: Any, arguments: Mapping[str, object]) -> None:  # noqa: ANN401 (diffusers has no types)
        self._pipe = pipe
        self._arguments = {**arguments, "generator": torch.Generator()}
        self._scheduler = pipe.scheduler
        self._encodings = Encodings(pipe)

    def kept(self) -> AbstractContextManager[None]:
        """Within, the call to look ahead from: it makes what is looked at."""
        return self._encodings.kept()

    def output(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The denoiser's prediction, guided if the call is, in the scheduler's convention.

        Args:
            latents: `(batch, ...)`, as the denoiser sees them: of Euler's schedulers divided by
                `noise_level(scheduler, step).scale`.
            timestep: One of the scheduler's timesteps.
        """
        found: list[Tensor] = []

        def rule(scheduler: object, index: int, output: Tensor, latents: Tensor) -> None:
            del scheduler, index, latents
            found.append(output)
            raise CallEnded

        with _left_as_it_is(self._pipe), self._encodings.again():
            call(
                self._pipe,
                self._arguments,
                scheduler=self._new_scheduler(),
                rule=rule,
                latents=latents,
                timesteps=timestep[None],
            )
        return found[0]

    def pictures(self, latents: Tensor) -> Tensor:
        """Pictures `(batch, 3, H, W)` in [0, 1] of finished latents, as the pipeline decodes."""
        with _left_as_it_is(self._pipe), self._encodings.again():
            made: Tensor = decoded(
                self._pipe,
                self._arguments,
                latents,
                output_type="pt",
                scheduler=self._new_scheduler(),
            )
        return made

    def _new_scheduler(self) -> Any:  # noqa: ANN401 (diffusers' schedulers share no type)
        return type(self._scheduler).from_config(self._scheduler.config)


@contextmanager
def _left_as_it_is(pipe: object) -> Iterator[None]:
    """Within, a call may keep in the pipeline what it likes; afterwards all is as before."""
    before = dict(vars(pipe))
    try:
        yield
    finally:
        vars(pipe).clear()
        vars(pipe).update(before)
