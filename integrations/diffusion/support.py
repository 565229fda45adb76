"""Which pipeline goes with what: the table of the documentation, from the rows of `FAMILIES`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stablepref.output.tables import markdown_lines

from .families import FAMILIES

if TYPE_CHECKING:
    from .families import Family

NO: Final = "no"
CALLBACK: Final = "yes, callback too"
"""Guidance within a call of the user's own, beside `RewardGuidance.draw`."""


def support_table() -> str:
    """Markdown: for each pipeline, what it works with."""
    rows = [[f"`{name}`", *_support(name, FAMILIES[name])] for name in FAMILIES]
    heads = ["pipeline", "best of n", "prune", "guidance", "noise optimisation", "fine-tuning"]
    return "\n".join(markdown_lines(heads, rows, marked=True))


def _support(name: str, family: Family) -> list[str]:
    import diffusers  # noqa: PLC0415 (an extra)

    kind = getattr(diffusers, name, None)
    tuned = "LoRA, all weights" if hasattr(kind, "save_lora_weights") else "all weights, `rank=0`"
    return [
        "yes",
        "yes" if family.from_noise else NO,
        CALLBACK if family.conditions else "yes" if family.from_noise else NO,
        "yes" if family.backpropagates else NO,
        NO if family.takes_pictures else tuned,
    ]
