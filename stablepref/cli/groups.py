"""Ranked groups that a command trains on."""

from pathlib import Path
from typing import TYPE_CHECKING

from stablepref.cli.ends import say

if TYPE_CHECKING:
    from stablepref.data.groups import RankedGroup


def usable_groups(
    source: str, split: str | None, data_format: str, images: Path | None
) -> "list[RankedGroup]":
    """All usable groups; what is left out is counted on standard error."""
    from stablepref.data.groups import Exclusions
    from stablepref.data.read import read_groups

    left_out = Exclusions()
    groups = list(read_groups(source, data_format, images=images, split=split, exclusions=left_out))
    for reason, count in left_out.counts.items():
        say(f"{source}: left out {count} times: {reason}")
    return groups
