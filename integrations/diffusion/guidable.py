"""What reward guidance cannot be called with, refused before anything is made."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from .call import BY_STEP
from .denoiser import embeds_guidance
from .families import family_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pipelines import Pipeline

_TAKEN: Final = ("prompt", "prompt_embeds", "callback_on_step_end", "callback", *BY_STEP)
"""Arguments of a pipeline's call that `draw` does not take."""


def check_callback(pipe: Pipeline) -> None:
    """Refuse a pipeline whose denoiser gets more than a callback of the pipeline does.

    Raises:
        ValueError: It is one.
    """
    kind = type(pipe).__name__
    if not family_of(pipe).conditions:
        msg = f"a callback of {kind} does not get what guidance needs; call guidance.draw(...)"
        raise ValueError(msg)
    if embeds_guidance(pipe):
        msg = (
            "guidance as a callback does not go with an embedded guidance scale; call "
            "guidance.draw(...)"
        )
        raise ValueError(msg)


def check_arguments(pipe: Any, arguments: Mapping[str, object]) -> None:  # noqa: ANN401 (diffusers has no types)
    """Refuse arguments of a call that the pipeline does not take, or guidance does not support.

    Raises:
        ValueError: There is one.
    """
    takes = inspect.signature(pipe.__call__).parameters
    for name, value in arguments.items():
        if name not in takes:
            msg = f"{type(pipe).__name__} takes no argument {name!r}; it takes: {', '.join(takes)}"
            raise ValueError(msg)
        if name in _TAKEN and value is not None:
            why = (
                "depends on the number of a step, which guidance does not support"
                if name in BY_STEP
                else "is what the guidance itself gives"
            )
            msg = f"{name} {why}; leave it out"
            raise ValueError(msg)
