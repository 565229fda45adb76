"""`RankedGroup`, the unit of human preference data: images of one prompt and their ranks.

Lower ranks are better and equal ranks are ties; only the order of ranks counts, so gaps and
averages are welcome. `stablepref.data.write` holds the project's own form on disk, and
`stablepref.data.read` reads the data sets of the field.
"""

import math
import os
import reprlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from numbers import Real
from typing import Any, final

Ranks = tuple[float, ...]
MINIMUM_IMAGES = 2

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def shown(value: object) -> str:
    """A value as it stands in messages: as Python writes it, cut where it is long or deep."""
    return _SHORT.repr(value)


def as_list(value: object, name: str) -> list[Any]:
    """A list that a row holds, as tuple or array too.

    Raises:
        ValueError: If it is anything else; the message calls it by its name.
    """
    if isinstance(value, (list, tuple)):
        return list(value)
    array: Any = value
    if getattr(array, "ndim", 0) >= 1 and hasattr(array, "tolist"):
        # An array of numbers or names is a list of them; one of pictures is a list of arrays.
        found: list[Any] = list(array) if array.ndim > 2 else array.tolist()
        return found
    raise ValueError(f"{name} is a {type(value).__name__}; expected a list")


def as_rank(value: object, name: str) -> float:
    """A rank, whole where it was whole.

    Raises:
        ValueError: If it is not a number, or not a finite one; the message calls it by its name.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} is {shown(value)}; expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {shown(value)}; expected a finite number")
    # Whole numbers stay whole, so that they are written as they were read.
    return int(number) if number.is_integer() else number


def as_name(value: object) -> str:
    """A name that a row holds: a text, a number, or anything else that is a single value.

    Raises:
        ValueError: If it is a list, an object or the like.
    """
    if value is None or isinstance(value, (Mapping, list, tuple, set, bytes, bool)):
        raise ValueError(f"a name is {shown(value)}; expected a text or a number")
    return str(value)


@final
class DataError(ValueError):
    """Preference data that cannot be used: which file, where in it, and why.

    Attributes:
        path: The file, or a description of the source.
        place: The place in it, such as ``"line 3"`` or ``"row 17"``.
        reason: What is wrong.
    """

    def __init__(self, path: str | os.PathLike[str], place: str, reason: str) -> None:
        self.path = str(path)
        self.place = place
        self.reason = reason
        super().__init__(f"{self.path}, {place}: {reason}")

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str, str]]:
        """Rebuild from the three parts, so that a worker process can hand the error on."""
        return DataError, (self.path, self.place, self.reason)


@final
@dataclass
class Exclusions:
    """What was excluded from the data: how often for each reason, and the first places of each.

    Attributes:
        counts: Number of items by reason.
        places: Up to ``keep`` places by reason.
        keep: Places remembered for each reason.
    """

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    keep: int = 20

    def add(self, reason: str, place: str) -> None:
        """Count one item that was excluded for ``reason`` at ``place``."""
        self.counts[reason] += 1
        places = self.places.setdefault(reason, [])
        if len(places) < self.keep:
            places.append(place)


@final
@dataclass(frozen=True, slots=True)
class RankedGroup:
    """Images of one prompt in the order in which people prefer them.

    Attributes:
        prompt: The text that all images were made from.
        images: Two or more images: paths, bytes, or anything else `stablepref.images` accepts.
        ranks: One number for each image, lower is better, equal is a tie. Only order counts.
        id: The group's name in its data set.
        annotations: For each annotator the ranks given to the images, where these are known.
        annotators: The annotators' names, in the order of ``annotations``.
        metadata: Whatever else the data set says about the group.

    Raises:
        ValueError: If the prompt is blank, there are fewer than two images, counts differ, or a
            rank is not a finite number.
    """

    prompt: str
    images: tuple[object, ...]
    ranks: Ranks
    id: str | None = None
    annotations: tuple[Ranks, ...] = ()
    annotators: tuple[str, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Turn lists into tuples and check that the parts fit together."""
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise ValueError(
                f"the prompt is {shown(self.prompt)}; expected a text that is not blank"
            )
        images = _as_tuple(self.images, "images")
        if len(images) < MINIMUM_IMAGES:
            raise ValueError(
                f"images has {len(images)} item(s); a ranked group needs {MINIMUM_IMAGES} or more"
            )
        annotations = tuple(
            _as_ranks(ranks, len(images), f"annotations[{index}]")
            for index, ranks in enumerate(_as_tuple(self.annotations, "annotations"))
        )
        annotators = tuple(map(as_name, _as_tuple(self.annotators, "annotators")))
        if annotators and len(annotators) != len(annotations):
            raise ValueError(
                f"annotators has {len(annotators)} item(s) and annotations {len(annotations)}; "
                "expected as many"
            )
        # A frozen dataclass sets its fields this way.
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "ranks", _as_ranks(self.ranks, len(images), "ranks"))
        object.__setattr__(self, "annotations", annotations)
        object.__setattr__(self, "annotators", annotators)

    def pairs(self) -> list[tuple[int, int]]:
        """All untied pairs of images as (index of the better, index of the worse)."""
        ranks = self.ranks
        return [
            (i, j) if ranks[i] < ranks[j] else (j, i)
            for i, j in combinations(range(len(ranks)), 2)
            if ranks[i] != ranks[j]
        ]

    def ties(self) -> list[tuple[int, int]]:
        """All tied pairs of images, the smaller index first."""
        ranks = self.ranks
        return [(i, j) for i, j in combinations(range(len(ranks)), 2) if ranks[i] == ranks[j]]

    def without(self, indices: Collection[int]) -> "RankedGroup | None":
        """The group less some of its images, or None if fewer than two are left."""
        kept = [index for index in range(len(self.images)) if index not in indices]
        if len(kept) < MINIMUM_IMAGES:
            return None
        return replace(
            self,
            images=tuple(self.images[index] for index in kept),
            ranks=tuple(self.ranks[index] for index in kept),
            annotations=tuple(tuple(row[index] for index in kept) for row in self.annotations),
        )


def _as_tuple(values: object, name: str) -> tuple[object, ...]:
    if isinstance(values, (list, tuple)) or hasattr(values, "ndim"):
        return tuple(as_list(values, name))
    unordered = (str, bytes, Mapping, set, frozenset)
    if isinstance(values, unordered) or not isinstance(values, Iterable):
        raise ValueError(f"{name} is a {type(values).__name__}; expected a list")
    return tuple(values)


def _as_ranks(values: object, count: int, name: str) -> Ranks:
    ranks = _as_tuple(values, name)
    if len(ranks) != count:
        raise ValueError(f"{name} has {len(ranks)} item(s) for {count} images; expected as many")
    return tuple(as_rank(rank, f"{name}[{index}]") for index, rank in enumerate(ranks))
