"""Schedulers by name, in the place of one whose steps are not known here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pipelines import Pipeline

NAMED: Final = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
    "flow-euler": "FlowMatchEulerDiscreteScheduler",
}
"""What `scheduler=` and `--scheduler` take, with diffusers' classes."""

_FLOW: Final = "flow-euler"
_EITHER: Final = ("dpm++", "unipc")
"""Solvers for flow matching as well, if their settings say so."""
_SHIFTS: Final = ("shift", "flow_shift")
"""What schedulers of flow matching call their shift to more noise."""
_OWN: Final = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
"""Settings that each scheduler of flow matching reads in a way of its own."""
_MORE: Final = {
    "shift_terminal": (_FLOW, "unipc"),
    "invert_sigmas": (_FLOW,),
    "stochastic_sampling": (_FLOW,),
}
"""Further ones, with the schedulers that have them."""


def check_scheduler_name(name: str | None) -> None:
    """Refuse a name that is not in `NAMED`; needs no torch.

    Raises:
        ValueError: There is no such scheduler.
    """
    if name is not None and name not in NAMED:
        msg = f"there is no scheduler {name!r}; expected one of {', '.join(NAMED)}"
        raise ValueError(msg)


def use_scheduler(pipe: Pipeline, name: str | None) -> None:
    """Replace a pipeline's scheduler by one of the same noise levels; for good.

    Its settings are those of the scheduler before, as `from_config` takes them over, and of flow
    matching those that the schedulers call by other names, such as the shift. A prediction of
    latents is not clipped to [-1, 1], unless the scheduler before did so: DDIM and DDPM would by
    default, for pixels.

    Args:
        pipe: The pipeline.
        name: One of `NAMED`; None leaves the scheduler as it is.

    Raises:
        ValueError: There is no such scheduler; it goes another way from noise to picture than the
            pipeline's (flow matching, or not); or it does not have a setting of the pipeline's, or
            does not take the noise levels that the pipeline's call gives.
    """
    check_scheduler_name(name)
    if name is None:
        return
    import diffusers  # noqa: PLC0415 (an extra)

    from .families import find_family  # noqa: PLC0415 (it needs torch)

    changed: Any = pipe
    before = changed.scheduler
    kind, flows = type(before).__name__, matches_flow(before)
    if name not in (fit := [one for one in NAMED if one in _EITHER or (one == _FLOW) == flows]):
        msg = (
            f"scheduler {name!r} does not fit a pipeline with {kind}: one of them is for flow "
            f"matching and the other is not; expected {', '.join(fit)}"
        )
        raise ValueError(msg)
    made = getattr(diffusers, NAMED[name])
    settings = _flow_settings(before, name) if flows else {}
    if name in ("ddim", "ddpm"):
        settings = {"clip_sample": before.config.get("clip_sample", False)}
    family = find_family(pipe)
    if family is not None and family.gives_sigmas and name != _FLOW:
        msg = (
            f"scheduler {name!r} does not fit {type(pipe).__name__}, whose call gives the noise "
            f"levels in a form that {NAMED[_FLOW]} takes; expected {_FLOW}"
        )
        raise ValueError(msg)
    # Of a setting that has another name there, diffusers would say that it is ignored.
    kept = {key: value for key, value in before.config.items() if key not in _SHIFTS}
    changed.scheduler = made.from_config(kept if flows else before.config, **settings)


def matches_flow(scheduler: object) -> bool:
    """Whether a scheduler is one of flow matching."""
    config: Mapping[str, object] = getattr(scheduler, "config", {})
    return _is_flow_matching(scheduler) or bool(config.get("use_flow_sigmas"))


def _is_flow_matching(scheduler: object) -> bool:
    """Whether it can do nothing else, as diffusers' names say, that of a parent too."""
    return any("FlowMatch" in kind.__name__ for kind in type(scheduler).__mro__)


def _flow_settings(before: Any, name: str) -> Mapping[str, object]:  # noqa: ANN401
    """The settings of a scheduler of flow matching that another one calls by other names.

    Raises:
        ValueError: The one before has a setting that this one does not know.
    """
    config, kind = before.config, type(before).__name__
    own = _is_flow_matching(before)
    # `set_shift` changes the attribute alone.
    shift = getattr(before, "shift", 1.0) if own else config.get(_SHIFTS[1], 1.0)
    lost = [key for key, having in _MORE.items() if config.get(key) and name not in having]
    if kind != NAMED[name]:
        lost += [key for key in _OWN if config.get(key)]
    linear = config.get("use_dynamic_shifting") and config.get("time_shift_type") == "linear"
    if linear and name == "dpm++":
        lost.append("time_shift_type")
    if lost:
        msg = (
            f"scheduler {name!r} does not fit the pipeline's {kind}, whose settings "
            f"{', '.join(f'{key}={config[key]!r}' for key in lost)} it does not have for flow "
            "matching"
        )
        raise ValueError(msg)
    if name == _FLOW:
        return {"shift": shift}
    return {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}


def another_scheduler(scheduler: object) -> str:
    """What to do about a scheduler whose steps are not known, or not those that are needed.

    Args:
        scheduler: The one that is there.
    """
    name = _FLOW if matches_flow(scheduler) else "ddim"
    return (
        f'Pass scheduler="{name}" (--scheduler {name}). Replace the scheduler: from '
        f'{__name__} import use_scheduler; use_scheduler(pipe, "{name}")'
    )
