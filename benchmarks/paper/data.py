"""The test splits that the paper's tables are about: official files, the hub, or the laboratory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from stablepref.data.read import read_groups
from stablepref.weights.hub import first_line

from ..shapes.dataset import lab_groups
from ..shapes.people.settings import SETTINGS
from .numbers import HPDV2, IMAGEREWARD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stablepref.data.groups import RankedGroup
    from stablepref.evaluation.agreement import TieRule


@final
@dataclass(frozen=True)
class Official:
    """A published test split.

    Attributes:
        option: Of the command line, for its file or folder.
        hub: Where `read_groups` finds it on the hub.
        groups: How many it has.
        rule: What ties do in its own code, see `stablepref.evaluation.agreement.pairwise_accuracy`.
        setting: What imitates it in the laboratory.
    """

    option: str
    hub: str
    groups: int
    rule: TieRule
    setting: str


OFFICIAL: Final[Mapping[str, Official]] = {
    HPDV2: Official("--hpdv2", "hf:ymhao/HPDv2", 400, "hpsv2", "hpdv2"),
    IMAGEREWARD: Official(
        "--imagereward", "hf:THUDM/ImageRewardDB", 466, "imagereward", "imagereward"
    ),
}
FILE: Final = "test.json"
"""Name of both official files."""


@final
@dataclass(frozen=True)
class Place:
    """Where an official test split is, as typed.

    Attributes:
        source: Its file, or a folder with `FILE` or with one file of ranked groups.
        images: Where its image paths start; None looks beside the file.
    """

    source: Path
    images: Path | None = None


@final
@dataclass(frozen=True, eq=False)
class Split:
    """A test split in memory; images are files or small pictures.

    Attributes:
        dataset: `HPDV2` or `IMAGEREWARD`.
        groups: Its groups.
        laboratory: Whether the laboratory's stand in for it.
        told: What it is, for titles.
        rule: What ties do.
    """

    dataset: str
    groups: Sequence[RankedGroup]
    laboratory: bool
    told: str
    rule: TieRule

    def missing(self) -> int:
        """Images that are files and are not there."""
        paths = (image for group in self.groups for image in group.images)
        return sum(isinstance(path, Path) and not path.is_file() for path in paths)

    def images(self) -> int:
        """How many there are, with those that are missing."""
        return sum(len(group.images) for group in self.groups)


def official_split(dataset: str, place: Place) -> Split:
    """The test split in official files, whole or in part.

    Raises:
        ValueError: There is no ranked group, or they are the laboratory's.
        FileNotFoundError: There is no such file or folder.
        DataError: As `read_groups`.
    """
    source = place.source
    if (source / FILE).is_file():
        source = source / FILE
    groups = list(read_groups(source, images=place.images))
    return _checked(dataset, groups, str(source))


def hub_split(dataset: str) -> Split:
    """The test split from the hub.

    Raises:
        OSError: It cannot be downloaded.
        ImportError: `datasets` is not installed; it is in the extra ``bench``.
    """
    source = OFFICIAL[dataset].hub
    try:
        groups = list(read_groups(source, split="test"))
    except OSError as error:
        option = OFFICIAL[dataset].option
        msg = f"{source} cannot be downloaded ({first_line(error)}): name its files, {option} PATH"
        raise OSError(msg) from error
    return _checked(dataset, groups, source)


def lab_split(dataset: str, *, groups: int, ablations: Path | None) -> Split:
    """What imitates a test split in the laboratory.

    Args:
        dataset: Which is imitated.
        groups: How many to draw.
        ablations: A finished run of the ablations, whose own test groups are taken if they are
            there, so that all rows are of the same.

    Raises:
        DataError: The ablations' file is damaged.
    """
    name = OFFICIAL[dataset].setting
    drawn = None if ablations is None else ablations / "data" / name / "test.jsonl"
    if drawn is not None and drawn.is_file():
        found = list(read_groups(drawn))
    else:
        found = list(lab_groups(SETTINGS[name], split="test", groups=groups))
    told = f"{len(found)} group{'s' * (len(found) != 1)} that imitate {dataset}"
    return Split(dataset, found, laboratory=True, told=told, rule="half")


def where(dataset: str) -> str:
    """What to do for a test split."""
    known = OFFICIAL[dataset]
    return f"give {known.option} PATH (its {FILE}), or --download for {known.hub}"


def _checked(dataset: str, groups: Sequence[RankedGroup], source: str) -> Split:
    known = OFFICIAL[dataset]
    if not groups:
        msg = f"{source} holds no ranked group"
        raise ValueError(msg)
    if any("utilities" in group.metadata for group in groups):
        msg = (
            f"{source} holds groups of the laboratory; {known.option} is for the real {dataset}: "
            "leave it out, and the laboratory stands in"
        )
        raise ValueError(msg)
    count = len(groups)
    whole = count == known.groups
    told = f"{dataset}'s test split" + ("" if whole else f", {count} of its {known.groups} groups")
    return Split(dataset, groups, laboratory=False, told=told, rule=known.rule)
