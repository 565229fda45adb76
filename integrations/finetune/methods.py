"""The methods of fine-tuning: one row for each, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from .backprop import draft_step
from .ddpo import check_policy, ddpo_step
from .nft import nft_step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .config import Method
    from .state import FinetuneRun


def _any_pipeline(pipe: object) -> None:
    del pipe


def _drawn_by_ddim(pipe: Any) -> None:  # noqa: ANN401 (diffusers has no types)
    check_policy(pipe.scheduler)


@final
@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """One method.

    Attributes:
        step: Changes the weights once or more, and says what the metrics say of it.
        gradient: Whether it needs a reward with a gradient to the pictures.
        check: Raises ValueError for a pipeline that it cannot train, beyond what all need.
    """

    step: Callable[[FinetuneRun, int], dict[str, float]]
    gradient: bool = False
    check: Callable[[object], None] = _any_pipeline


METHODS: Final[Mapping[Method, MethodRow]] = {
    "draft": MethodRow(step=draft_step, gradient=True),
    "refl": MethodRow(step=draft_step, gradient=True),
    "ddpo": MethodRow(step=ddpo_step, check=_drawn_by_ddim),
    "nft": MethodRow(step=nft_step),
}
