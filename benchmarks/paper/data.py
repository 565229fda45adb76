"""The test splits of the paper's tables: from official files, the hub, or the laboratory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from stablepref.data.read import read_groups
from stablepref.weights.network import first_line

from ..shapes.people.dataset import lab_groups
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
        option: Option of the command line for its file or folder.
        hub: Its place on the hub, for `read_groups`.
        groups: Number of its groups.
        rule: How its own code counts ties, see
            `stablepref.evaluation.agreement.pairwise_accuracy`.
        setting: Name of the laboratory's data that imitate it.
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
    """Where an official test split is, as given on the command line.

    Attributes:
        source: Its file, or a folder with `FILE` or with one file of ranked groups.
        images: Folder that its image paths are relative to; None for that of the file.
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
        laboratory: Whether groups of the laboratory stand in for it.
        description: What it is, for titles.
        rule: How ties count.
    """

    dataset: str
    groups: Sequence[RankedGroup]
    laboratory: bool
    description: str
    rule: TieRule

    def missing(self) -> int:
        """Number of image files that do not exist."""
        paths = (image for group in self.groups for image in group.images)
        return sum(isinstance(path, Path) and not path.is_file() for path in paths)

    def images(self) -> int:
        """Number of images, those that are missing included."""
        return sum(len(group.images) for group in self.groups)


def official_split(dataset: str, place: Place) -> Split:
    """The test split in official files, whole or in part.

    Raises:
        ValueError: The files hold no ranked groups, or groups of the laboratory.
        FileNotFoundError: The file or folder does not exist.
        DataError: A file or row cannot be read, see `read_groups`.
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
        msg = f"{source} cannot be downloaded ({first_line(error)}): give its files, {option} PATH"
        raise OSError(msg) from error
    return _checked(dataset, groups, source)


def lab_split(dataset: str, *, groups: int, ablations: Path | None) -> Split:
    """Groups of the laboratory that imitate a test split.

    Args:
        dataset: The data set that is imitated.
        groups: How many to draw.
        ablations: A finished run of the ablations, whose own test groups are taken if they exist,
            so that all rows are measured on the same groups.

    Raises:
        DataError: The ablations' file is damaged.
    """
    name = OFFICIAL[dataset].setting
    drawn = None if ablations is None else ablations / "data" / name / "test.jsonl"
    if drawn is not None and drawn.is_file():
        found = list(read_groups(drawn))
    else:
        found = list(lab_groups(SETTINGS[name], split="test", groups=groups))
    description = f"{len(found)} group{'s' * (len(found) != 1)} that imitate {dataset}"
    return Split(dataset, found, laboratory=True, description=description, rule="half")


def where(dataset: str) -> str:
    """How to get a test split, for messages."""
    known = OFFICIAL[dataset]
    return f"give {known.option} PATH (its {FILE}), or --download for {known.hub}"


def _checked(dataset: str, groups: Sequence[RankedGroup], source: str) -> Split:
    known = OFFICIAL[dataset]
    if not groups:
        msg = f"{source} holds no ranked groups"
        raise ValueError(msg)
    if any("utilities" in group.metadata for group in groups):
        msg = (
            f"{source} holds groups of the laboratory; {known.option} is for the real {dataset}: "
            "leave it out, and the laboratory stands in"
        )
        raise ValueError(msg)
    count = len(groups)
    whole = count == known.groups
    part = "" if whole else f", {count} of its {known.groups} groups"
    description = f"{dataset}'s test split{part}"
    return Split(dataset, groups, laboratory=False, description=description, rule=known.rule)
