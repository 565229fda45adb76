"""The methods of fine-tuning: one row for each, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from ..diffusion.families import family_of
from .backprop import draft_step
from .ddpo import ddpo_step
from .dpo import dpo_step
from .grpo import grpo_step, transition_of
from .nft import nft_step
from .transitions import check_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .config import FinetuneConfig, Method
    from .state import FinetuneRun


def _any_pipeline(pipe: object, config: FinetuneConfig) -> None:
    del pipe, config


def _drawn_by_ddim(pipe: Any, config: FinetuneConfig) -> None:  # noqa: ANN401 (diffusers has no types)
    check_policy(pipe.scheduler, method=config.method)


def _drawn_with_noise(pipe: Any, config: FinetuneConfig) -> None:  # noqa: ANN401 (diffusers has no types)
    check_policy(pipe.scheduler, method=config.method, flow=True)
    transition_of(config, pipe.scheduler)


def _encoded(pipe: object, config: FinetuneConfig) -> None:
    family = family_of(pipe)
    if family.packed and family.encode is None:
        msg = (
            f"method {config.method} encodes pictures, and {type(pipe).__name__} packs its latents "
            "in a way that its row does not tell (Family.encode); use method nft or grpo with a "
            "reward"
        )
        raise ValueError(msg)


@final
@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """One method.

    Attributes:
        step: Changes the weights once or more, and says what the metrics say of it.
        gradient: Whether it needs a reward with a gradient to the pictures.
        pairs: Whether it trains on ranked groups.
        check: Raises ValueError for a pipeline that it cannot train, beyond what all need.
    """

    step: Callable[[FinetuneRun, int], dict[str, float]]
    gradient: bool = False
    pairs: bool = False
    check: Callable[[object, FinetuneConfig], None] = _any_pipeline


METHODS: Final[Mapping[Method, MethodRow]] = {
    "draft": MethodRow(step=draft_step, gradient=True),
    "refl": MethodRow(step=draft_step, gradient=True),
    "ddpo": MethodRow(step=ddpo_step, check=_drawn_by_ddim),
    "nft": MethodRow(step=nft_step),
    "grpo": MethodRow(step=grpo_step, check=_drawn_with_noise),
    "dpo": MethodRow(step=dpo_step, pairs=True, check=_encoded),
}
