"""What a check of preference data found: as data, as text, and as a page of examples."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple, final

from stablepref.data.groups import Exclusions, RankedGroup
from stablepref.images.sources import ImageError, Source, describe
from stablepref.output.pages import write_template
from stablepref.scoring.page import Thumbnail, card

_LISTED = 10


class ImageProblem(NamedTuple):
    """An image that cannot be used.

    Attributes:
        group: The group's id, or its number in the data set, from 1.
        image: Position in the group, from 0.
        name: Path, URL or short description.
        reason: Why it cannot be used.
        missing: Whether there is no such file; otherwise it is there and broken.
    """

    group: str
    image: int
    name: str
    reason: str
    missing: bool


class SharedImage(NamedTuple):
    """An image that occurs in more than one split, with equal bytes.

    Attributes:
        places: For each split its first place there, as "name of the image (group)".
    """

    places: Mapping[str, str]


@final
@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        name: The split's name.
        groups: Valid groups.
        images: Their images, counted in every group they are in.
        pairs: Untied pairs.
        ties: Tied pairs.
        annotated: Groups with the ranks of single annotators.
        group_sizes: Number of groups by number of images.
        image_sizes: Number of usable images by (width, height).
        problems: Missing and broken images. They are listed, never replaced.
        usable_groups: Groups of which two or more images are left without those.
        usable_pairs: Untied pairs of images that are left.
        repeated: How many images had been met in the same split before, with equal bytes.
        exclusions: Entries that are no valid group, by reason.
        examples: The first groups.
    """

    name: str
    groups: int = 0
    images: int = 0
    pairs: int = 0
    ties: int = 0
    annotated: int = 0
    group_sizes: Counter[int] = field(default_factory=Counter)
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[ImageProblem] = field(default_factory=list)
    usable_groups: int = 0
    usable_pairs: int = 0
    repeated: int = 0
    exclusions: Exclusions = field(default_factory=Exclusions)
    examples: list[RankedGroup] = field(default_factory=list)

    @property
    def missing(self) -> list[ImageProblem]:
        """The images whose file does not exist."""
        return [problem for problem in self.problems if problem.missing]

    @property
    def broken(self) -> list[ImageProblem]:
        """The images that are there and cannot be decoded."""
        return [problem for problem in self.problems if not problem.missing]


@final
@dataclass
class DataReport:
    """What a data set holds, split by split, and what its splits share.

    Attributes:
        splits: One report for each split, in the order given.
        shared_images: Images in more than one split.
        shared_prompts: Prompts in more than one split.
    """

    splits: list[SplitReport]
    shared_images: list[SharedImage]
    shared_prompts: list[str]

    @property
    def clean(self) -> bool:
        """Whether every entry and image can be used and the splits share no image."""
        return not self.shared_images and not any(
            split.problems or split.exclusions.counts for split in self.splits
        )

    def as_dict(self) -> dict[str, object]:
        """The report as plain values for JSON, with all problems and without the examples."""
        return {
            "clean": self.clean,
            "splits": [_split_dict(split) for split in self.splits],
            "shared_images": [dict(shared.places) for shared in self.shared_images],
            "shared_prompts": self.shared_prompts,
        }

    def lines(self) -> list[str]:
        """The report as lines of text; long lists show their first items and their length."""
        lines = [line for split in self.splits for line in _split_lines(split)]
        if len(self.splits) > 1:
            shared = [
                " = ".join(f"{split}: {place}" for split, place in image.places.items())
                for image in self.shared_images
            ]
            lines += _listed("images in more than one split", shared)
            lines += _listed("prompts in more than one split", self.shared_prompts)
        lines.append("everything can be used" if self.clean else "there are problems, see above")
        return lines


def write_examples(path: Path, report: DataReport) -> None:
    """Write an HTML page of the example groups of checked data, in the order of their ranks.

    Args:
        path: Where; written under a temporary name first.
        report: Of `stablepref.data.check.check_data`. Images of the examples that cannot be
            used are listed below, with the reasons.

    Raises:
        OSError: The page cannot be written.
    """
    sections, failures = [], []
    for split in report.splits:
        for number, group in enumerate(split.examples, start=1):
            cards = []
            for index in sorted(range(len(group.images)), key=group.ranks.__getitem__):
                image, rank = group.images[index], group.ranks[index]
                name = str(image) if isinstance(image, str | PurePath) else describe(image)
                try:
                    thumbnail = Thumbnail(Source(index, name, image))
                except ImageError as error:
                    failures.append((name, error.reason))
                    continue
                cards.append(card(name, thumbnail, place=rank, best=rank == min(group.ranks)))
            label = group.id or f"example {number}"
            sections.append((f"{split.name}, {label}: {group.prompt}", cards))
    write_template(
        path,
        "pictures.html.j2",
        title="Examples of preference data",
        heading="Examples of preference data",
        about=f"{len(sections)} groups, lower ranks first. The best are outlined.",
        sections=sections,
        failed="Cannot be used",
        failures=failures,
    )


def _split_dict(split: SplitReport) -> dict[str, object]:
    counted = ("name", "groups", "images", "pairs", "ties", "annotated")
    usable = ("usable_groups", "usable_pairs", "repeated")
    return {
        **{key: getattr(split, key) for key in (*counted, *usable)},
        "group_sizes": {str(size): count for size, count in sorted(split.group_sizes.items())},
        "image_sizes": {f"{w}x{h}": n for (w, h), n in split.image_sizes.most_common()},
        "excluded": dict(split.exclusions.counts),
        "problems": [problem._asdict() for problem in split.problems],
    }


def _split_lines(split: SplitReport) -> list[str]:
    sizes = sorted(split.group_sizes)
    images = " to ".join(str(size) for size in dict.fromkeys(sizes[:1] + sizes[-1:]))
    lines = [
        f"{split.name}: {split.groups} groups of {images or 'no'} images, {split.annotated} with "
        "the ranks of single annotators",
        f"  {split.images} images, {split.pairs} untied pairs, {split.ties} ties",
        f"  usable: {split.usable_groups} groups, {split.usable_pairs} untied pairs",
    ]
    if split.image_sizes:
        widths, heights = zip(*split.image_sizes, strict=True)
        (width, height), count = split.image_sizes.most_common(1)[0]
        lines.append(
            f"  image sizes: width {min(widths)} to {max(widths)}, height {min(heights)} to "
            f"{max(heights)}, most often {width} x {height} ({count} times)"
        )
    if split.repeated:
        lines.append(f"  {split.repeated} images had occurred in this split before")
    for reason, count in split.exclusions.counts.most_common():
        places = "; ".join(split.exclusions.places[reason][:3])
        lines.append(f"  left out {count} times: {reason} (first: {places})")
    for kind, problems in (("missing images", split.missing), ("broken images", split.broken)):
        items = [f"{p.name} (image {p.image} of {p.group}): {p.reason}" for p in problems]
        lines += _listed(f"  {kind}", items)
    for example in split.examples:
        ranked = sorted(zip(example.ranks, example.images, strict=True), key=lambda pair: pair[0])
        lines.append(f"  example: {example.prompt}")
        lines += [f"    rank {rank}: {_short(image)}" for rank, image in ranked]
    return lines


def _listed(title: str, items: list[str]) -> list[str]:
    if not items:
        return []
    indent = " " * (len(title) - len(title.lstrip()) + 2)
    lines = [f"{title}: {len(items)}", *(f"{indent}{item}" for item in items[:_LISTED])]
    if len(items) > _LISTED:
        lines.append(f"{indent}and {len(items) - _LISTED} more")
    return lines


def _short(image: object) -> str:
    return f"{len(image)} bytes" if isinstance(image, bytes) else str(image)
