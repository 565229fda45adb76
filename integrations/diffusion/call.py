"""A pipeline's own call, with gradients, from any latents, at any timestep, step by step.

The sampling loop is diffusers' own in all cases: guidance, packing of latents, the units of
timesteps and the sign of predictions are whatever the pipeline makes of them. Its call is entered
behind its `no_grad`, with a scheduler of that call's own. All that is asked of a pipeline is that
it draws its first latents by `prepare_latents` and calls `scheduler.step` once for each timestep,
as those of diffusers do.
"""

from __future__ import annotations

import copy
import functools
import inspect
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .denoiser import denoiser_of
from .pipelines import undistributed, without_progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

BY_STEP: Final = (
    "skip_guidance_layers",
    "cfg_trunc_ratio",
    "control_guidance_start",
    "control_guidance_end",
)
"""Arguments of calls whose meaning depends on the number of a step, which counts anew in each."""


class StepRule(Protocol):
    """What takes the place of a scheduler's step."""

    def __call__(
        self,
        scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
        index: int,
        output: Tensor,
        latents: Tensor,
    ) -> Tensor | None:
        """The next latents; None for the scheduler's own.

        Args:
            scheduler: Of this call, its timesteps set.
            index: Number of the step, from 0.
            output: What the denoiser predicts, guided, in the convention of the scheduler: noise,
                velocity, or flow (noise minus picture).
            latents: That went into the step, as the scheduler has them, of the output's shape.

        Raises:
            CallEnded: Nothing more is needed of the call.
        """


@final
class CallEnded(Exception):  # noqa: N818 (it is no error)
    """Raised by a step rule: what the pipeline would do next is not needed."""


def call(
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    arguments: Mapping[str, object],
    *,
    scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
    rule: StepRule | None = None,
    latents: Tensor | None = None,
    timesteps: Tensor | None = None,
    last_steps: int | None = None,
    checkpointing: bool = False,
    until: Callable[[int, int], bool] | None = None,
    after: Callable[[Any, int, Tensor], Tensor] | None = None,
    continued: bool = False,
) -> Any:  # noqa: ANN401 (of each pipeline its own)
    """Call a pipeline as it is, without its `no_grad`.

    Gradients are kept where the caller's mode keeps them.

    Args:
        pipe: A pipeline of diffusers; it is left as it was.
        arguments: Of its call.
        scheduler: What the call uses in place of the pipeline's own scheduler, and changes.
        rule: Called in place of the scheduler's step.
        latents: What the first step gets, in the form that the loop has them in: packed, for
            pipelines that pack. None for what the pipeline draws.
        timesteps: `(steps,)`, those of the loop, in place of those that the scheduler would set;
            or `(steps, batch)`, one for each picture, for a call without guidance. With none of
            them, `(0,)`, the latents are decoded as they are. The denoiser then sees latents as
            they are, unscaled.
        last_steps: Steps with a gradient, counted from the end; None for all.
        checkpointing: Keep no activations of the denoiser where there is a gradient, and compute
            them again in the backward pass.
        until: Whether to end the call after a step, given how many of how many are done.
        after: What goes on in place of the latents that a step made, given the scheduler, how many
            steps are done, and those latents.
        continued: The scheduler is in the middle of its steps, and `timesteps` are those that are
            left of its own: latents are scaled, generators go on and steps are counted as if the
            call had never ended. What is drawn before the latents, as the noise of a given
            picture, is drawn again as the seeds of the generators say.

    Returns:
        What the pipeline returns; if `until` ended the call the latents that its last step made, in
        the form that the loop has them in. None if `rule` ended the call.
    """
    kept = torch.is_grad_enabled()
    whole = scheduler.timesteps if continued else None
    last = last_steps if kept else 0
    watch = _Steps(scheduler, rule, last, until=until, after=after, whole=whole)
    with ExitStack() as stack:
        stack.enter_context(without_progress_bar(pipe))
        parts = {name: undistributed(part) for name, part in pipe.components.items()}
        stack.enter_context(holding(pipe, **{**parts, "scheduler": scheduler}))
        if timesteps is not None:
            fixed = _fixed(scheduler, timesteps, scaled=continued)
            stack.enter_context(holding(scheduler, **fixed))
        if latents is not None:
            given = _giving(pipe, latents, _rewound(arguments) if continued else [])
            stack.enter_context(holding(pipe, prepare_latents=given))
        control = parts.get("controlnet")
        if control is not None and not hasattr(control, "gradient_checkpointing"):
            # Z-Image's asks for it where there is a gradient.
            stack.enter_context(holding(control, gradient_checkpointing=False))
        if checkpointing:
            stack.enter_context(around_forward(denoiser_of(pipe), _checkpointed))
        stack.enter_context(holding(scheduler, step=watch.step()))
        # Its mode changes on the way, and is put back at the end.
        stack.enter_context(torch.set_grad_enabled(kept and last_steps is None))
        try:
            return inspect.unwrap(type(pipe).__call__)(pipe, **own_lists(arguments))
        except CallEnded:
            return watch.finished


def own_lists(arguments: Mapping[str, object]) -> dict[str, object]:
    """Arguments of a call with lists of their own.

    Z-Image's call writes its chat template into the list of prompts that it is given.
    """
    return {name: [*v] if type(v) is list else v for name, v in arguments.items()}


def all_done(done: int, steps: int) -> bool:
    """Whether there is no step left: for `until`, where nothing is to be decoded."""
    return done == steps


def first_latents(pipe: Any, arguments: Mapping[str, object], *, scheduler: Any) -> Tensor:  # noqa: ANN401 (diffusers has no types)
    """What the pipeline's first step would get: drawn, scaled and packed."""
    return prepared(pipe, arguments, scheduler=scheduler)[0]


def prepared(
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    arguments: Mapping[str, object],
    *,
    scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
) -> tuple[Tensor, ...]:
    """All that the pipeline's `prepare_latents` returns: the first latents, and places of some."""
    found: list[tuple[Tensor, ...]] = []
    prepare = pipe.prepare_latents

    @functools.wraps(prepare)
    def caught(*args: object, **kwargs: object) -> object:
        made = prepare(*args, **kwargs)
        found.append((made,) if isinstance(made, Tensor) else tuple(made))
        raise CallEnded

    with torch.no_grad(), holding(pipe, prepare_latents=caught):
        call(pipe, arguments, scheduler=scheduler)
    return found[0]


def decoded(
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    arguments: Mapping[str, object],
    latents: Tensor,
    *,
    output_type: str = "pil",
    scheduler: Any = None,  # noqa: ANN401 (diffusers' schedulers share no type)
) -> Any:  # noqa: ANN401 (of the output type)
    """Pictures of finished latents, in the form that the pipeline's loop has them in.

    Args:
        pipe: A pipeline of diffusers; it is left as it was.
        arguments: Of its call.
        latents: The finished latents.
        output_type: Of its call.
        scheduler: For the call, which makes no step; None for one like the pipeline's.
    """
    made = call(
        pipe,
        {**arguments, "output_type": output_type},
        scheduler=copy.deepcopy(pipe.scheduler) if scheduler is None else scheduler,
        latents=latents,
        timesteps=torch.empty(0, device=latents.device),
        continued=False,
    )
    return made.images


def scheduled(pipe: Any, arguments: Mapping[str, object], *, scheduler: Any) -> Any:  # noqa: ANN401 (diffusers has no types)
    """The scheduler as the pipeline's first step finds it, its timesteps set."""

    def ended(module: object, inputs: object) -> None:
        del module, inputs
        raise CallEnded

    handle = denoiser_of(pipe).register_forward_pre_hook(ended)
    try:
        with torch.no_grad():
            call(pipe, arguments, scheduler=scheduler)
    finally:
        handle.remove()
    return scheduler


@final
class _Steps:
    """Counts a scheduler's steps, hands them to a rule, and keeps gradients of the last ones.

    Attributes:
        finished: What the last step made, if the call ended there.

    Args:
        scheduler: The scheduler.
        rule: In place of its step.
        last: Steps with a gradient; None for all, where the mode is left alone.
        until: Whether the call ends after so many of so many steps.
        after: What goes on in place of the latents that a step made.
        whole: All timesteps, of a scheduler in the middle of them.
    """

    def __init__(
        self,
        scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
        rule: StepRule | None,
        last: int | None,
        *,
        until: Callable[[int, int], bool] | None,
        after: Callable[[Any, int, Tensor], Tensor] | None,
        whole: Tensor | None,
    ) -> None:
        self.finished: Tensor | None = None
        self._scheduler = scheduler
        self._own = scheduler.step
        self._rule = rule
        self._last = last
        self._until = until
        self._after = after
        self._whole = whole
        self._done: int | None = None

    def step(self) -> Callable[..., object]:
        """In place of the scheduler's, with its signature: pipelines look there."""

        @functools.wraps(self._own)
        def step(
            model_output: Tensor,
            timestep: Tensor,
            sample: Tensor,
            *args: object,
            **kwargs: object,
        ) -> object:
            scheduler, seen = self._scheduler, self._scheduler.timesteps
            whole = seen if self._whole is None else self._whole
            done = len(whole) - len(seen) if self._done is None else self._done
            made = None
            with holding(scheduler, timesteps=whole):
                if self._rule is not None:
                    made = self._rule(scheduler, done, model_output, sample)
                result: Any = (made, made)  # of a consistency model the second is the prediction
                if made is None:
                    result = self._own(model_output, timestep, sample, *args, **kwargs)
                if self._after is not None:
                    result = (self._after(scheduler, done + 1, result[0]), *result[1:])
            self._done = done + 1
            if self._until is not None and self._until(self._done, len(whole)):
                self.finished = result[0]
                raise CallEnded
            if self._last:
                torch.set_grad_enabled(len(whole) - self._done <= self._last)
            return result

        return step


def _fixed(scheduler: Any, timesteps: Tensor, *, scaled: bool) -> dict[str, object]:  # noqa: ANN401 (diffusers' schedulers share no type)
    """What a scheduler is given so that a pipeline goes through these timesteps."""

    @functools.wraps(scheduler.set_timesteps)
    def set_timesteps(*args: object, **kwargs: object) -> None:
        del args, kwargs

    def set_begin_index(begin_index: int = 0) -> None:
        del begin_index

    def scale_model_input(sample: Tensor, *args: object, **kwargs: object) -> Tensor:
        del args, kwargs
        return sample

    fixed: dict[str, object] = {
        "timesteps": timesteps,
        "set_timesteps": set_timesteps,
        "set_begin_index": set_begin_index,
    }
    return fixed if scaled else {**fixed, "scale_model_input": scale_model_input}


def _rewound(arguments: Mapping[str, object]) -> list[tuple[torch.Generator, Tensor]]:
    """The generators among arguments, set to where they began, and their states before."""
    found = [(one, one.get_state()) for one in _generators([*arguments.values()])]
    for generator, _ in found:
        generator.manual_seed(generator.initial_seed())
    return found


def _giving(
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    latents: Tensor,
    states: Sequence[tuple[torch.Generator, Tensor]],
) -> Callable[..., object]:
    """The pipeline's `prepare_latents`, with these latents in the place of those that it draws.

    Args:
        pipe: The pipeline.
        latents: What the loop begins with.
        states: Generators and what they go on with; others are left as if they had drawn.
    """
    prepare = pipe.prepare_latents

    @functools.wraps(prepare)
    def given(*args: object, **kwargs: object) -> object:
        made = prepare(*args, **kwargs)
        for generator, state in states:
            generator.set_state(state)
        if isinstance(made, Tensor):
            return latents.to(made)
        first, *others = made  # with the places of packed latents
        return (latents.to(first), *others)

    return given


def _generators(values: Sequence[object]) -> list[torch.Generator]:
    """Those among arguments, and in lists of them."""
    found = []
    for value in values:
        if isinstance(value, torch.Generator):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _generators(value)
    return found


def _checkpointed(forward: Callable[..., object], *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 (a network's)
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


@contextmanager
def around_forward(module: nn.Module, around: Callable[..., object]) -> Iterator[None]:
    """Give a module a `forward` that calls `around(forward it has, *args, **kwargs)`.

    In front of what offloading and compilation put there, which is called only when needed.
    """
    with holding(module, forward=functools.partial(around, module.forward)):
        yield


@contextmanager
def holding(holder: object, **values: object) -> Iterator[None]:
    """Within, attributes of an object itself, past whatever else setting them would do."""
    own = vars(holder)
    before = {name: own[name] for name in values if name in own}
    own.update(values)
    try:
        yield
    finally:
        for name in values:
            own.pop(name, None)
        own.update(before)
