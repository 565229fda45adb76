"""What the laboratory's oracle says of a demonstration's pictures, beside what the reward says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from ..bench.judges import OracleJudge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from PIL import Image


@final
@dataclass(frozen=True)
class Truth:
    """Which candidates show all that their prompt names.

    Attributes:
        correct: By the candidate's index; empty where it is not known.
        unknown: Why it is not known; empty where it is.
    """

    correct: Mapping[int, bool]
    unknown: str = ""

    def count(self, indices: Iterable[int]) -> int | None:
        """How many of these candidates are correct; None where it is not known."""
        return None if self.unknown else sum(self.correct[index] for index in indices)


def load_oracle() -> OracleJudge:
    """The oracle.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        return OracleJudge()
    except ImportError as error:
        msg = f"this needs scipy: pip install 'stablepref[diffusers,bench]' ({error})"
        raise ImportError(msg) from error


def judged(
    oracle: OracleJudge,
    prompt: str,
    pictures: Iterable[tuple[int, Image.Image]],
    advance: Callable[[int], None] = lambda _: None,
) -> Truth:
    """Let the oracle look at candidates.

    Args:
        oracle: Who judges.
        prompt: Of all of them; the oracle knows prompts of the laboratory's grammar only.
        pictures: Index and picture of each.
        advance: Called with 1 after each picture.
    """
    correct = {}
    for index, picture in pictures:
        (verdict,) = oracle([picture], [prompt], [picture])
        if isinstance(verdict, str):
            return Truth({}, verdict)
        correct[index] = bool(verdict)
        advance(1)
    return Truth(correct)
