"""Schedulers by name, in the place of one whose steps are not known here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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

    Its settings are those of the scheduler before, as `from_config` takes them over. A prediction
    of latents is not clipped to [-1, 1], unless the scheduler before did so: DDIM and DDPM would by
    default, for pixels.

    Args:
        pipe: The pipeline.
        name: One of `NAMED`; None leaves the scheduler as it is.

    Raises:
        ValueError: There is no such scheduler, or it goes another way from noise to picture than
            the pipeline's (flow matching, or not).
    """
    check_scheduler_name(name)
    if name is None:
        return
    import diffusers  # noqa: PLC0415 (an extra)

    changed: Any = pipe
    before = changed.scheduler
    kinds = type(before).__name__, NAMED[name]
    # A solver for either way, by a setting that is taken over.
    either = any(kind.startswith(("UniPC", "DPMSolverMultistep")) for kind in kinds)
    if not either and ("Flow" in kinds[0]) != ("Flow" in kinds[1]):
        fit = ", ".join(n for n, kind in NAMED.items() if ("Flow" in kind) == ("Flow" in kinds[0]))
        msg = (
            f"scheduler {name!r} does not fit a pipeline with {kinds[0]}: one of them is for flow "
            f"matching and the other is not; expected {fit}"
        )
        raise ValueError(msg)
    clips = name in ("ddim", "ddpm")
    clipped = {"clip_sample": before.config.get("clip_sample", False)} if clips else {}
    changed.scheduler = getattr(diffusers, NAMED[name]).from_config(before.config, **clipped)


def another_scheduler(kind: str) -> str:
    """What to do about a scheduler whose steps are not known.

    Args:
        kind: The class of the one that is there.
    """
    name = "flow-euler" if "Flow" in kind else "ddim"
    made = NAMED[name]
    return (
        f'Pass scheduler="{name}" (--scheduler {name}). Replace the scheduler: from diffusers '
        f"import {made}; pipe.scheduler = {made}.from_config(pipe.scheduler.config)"
    )
