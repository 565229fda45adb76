"""Answers of annotators one by one, as `stablepref label` writes them, and the groups they make.

A file of answers is JSON Lines that only ever grow. A line is one answer of one annotator, or takes
one back:

    {"label": "9f...", "annotator": "ann", "prompt": "a cat", "images": ["a.png", "b.png"],
     "answer": "ranked", "ranks": [1, 2], "shown": [1, 0], "seconds": 2.1, "time": "2026-..."}
    {"label": "c1...", "annotator": "ann", "undo": "9f..."}

`images` and `ranks` are in one order, whichever way the pictures stood on the screen, which
`shown` tells. The second answer of an annotator to the same pictures is a repeat: it measures how
steady the annotator is, and is no second vote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast, final, get_args

from scipy.stats import rankdata

from stablepref.data.convert import (
    LeftOutError,
    given,
    id_of,
    plain,
    require_keys,
    resolve_image,
)
from stablepref.data.groups import (
    MINIMUM_IMAGES,
    DataError,
    RankedGroup,
    Ranks,
    as_list,
    as_name,
    as_rank,
    shown,
)
from stablepref.data.rows import Row, Rows, read_rows

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

Answer = Literal["ranked", "tie", "bad", "skip"]
"""An order, all equally good, all bad, or no answer."""
ANSWERS: Final = get_args(Answer)
KEYS: Final = frozenset({"label", "annotator"})
"""Keys of every line of a file of answers."""

Key = tuple[str, tuple[str, ...]]
"""What is asked: the prompt and the pictures, in order of their names."""


@final
@dataclass(frozen=True)
class Label:
    """One answer of one annotator.

    Attributes:
        id: Its name in the file.
        annotator: Who gave it.
        prompt: Of the pictures.
        images: The pictures, as the file names them.
        answer: What was answered.
        ranks: For each picture, lower is better; all equal with "tie" and "bad", empty with "skip".
        shown: The places of the pictures in `images`, in the order in which they stood on the
            screen; empty where that is not known.
        seconds: How long it took; None where that is not known.
    """

    id: str
    annotator: str
    prompt: str
    images: tuple[str, ...]
    answer: Answer
    ranks: Ranks
    shown: tuple[int, ...] = ()
    seconds: float | None = None

    @property
    def key(self) -> Key:
        """What was asked."""
        return self.prompt, tuple(sorted(self.images))

    def ranks_of(self, images: Iterable[str]) -> Ranks:
        """The ranks in another order of the same pictures."""
        ranks = dict(zip(self.images, self.ranks, strict=True))
        return tuple(ranks[image] for image in images)


def label_of_row(row: Row) -> Label:
    """The answer of a row that is one.

    Raises:
        ValueError: It is not valid.
    """
    require_keys(row, "label", "annotator", "prompt", "images", "answer")
    answer = row["answer"]
    if answer not in ANSWERS:
        raise ValueError(f"answer is {shown(answer)}; expected one of {', '.join(ANSWERS)}")
    images = tuple(map(_name, as_list(row["images"], "images")))
    if len(images) < MINIMUM_IMAGES or len(set(images)) < len(images):
        raise ValueError(f"images has {len(set(images))} different items; expected two or more")
    ranks = tuple(as_rank(rank, "ranks") for rank in given(row, "ranks"))
    if len(ranks) != (0 if answer == "skip" else len(images)):
        raise ValueError(f"ranks has {len(ranks)} items for {len(images)} images and {answer!r}")
    if answer in ("tie", "bad") and len(set(ranks)) > 1:
        raise ValueError(f"ranks is {shown(ranks)} and answer {answer!r}; expected equal ranks")
    order = tuple(given(row, "shown"))
    places = sorted(place for place in order if type(place) is int)
    if order and (len(places) < len(order) or places != list(range(len(images)))):
        raise ValueError(f"shown is {shown(order)}; expected each of 0 to {len(images) - 1} once")
    seconds = row.get("seconds")
    return Label(
        id=as_name(row["label"]),
        annotator=as_name(row["annotator"]),
        prompt=as_name(row["prompt"]),
        images=images,
        answer=cast("Answer", answer),
        ranks=ranks,
        shown=order,
        seconds=None if seconds is None else float(as_rank(seconds, "seconds")),
    )


def valid_labels(rows: Iterable[Row]) -> list[Label]:
    """The answers that were not taken back, in the order in which they were given.

    Raises:
        ValueError: A row is not valid.
    """
    found: dict[str, Label] = {}
    for row in rows:
        if "undo" in row:
            require_keys(row, "label", "annotator", "undo")
            found.pop(as_name(row["undo"]), None)
        else:
            label = label_of_row(row)
            found[label.id] = label
    return list(found.values())


def read_labels(path: str | os.PathLike[str]) -> list[Label]:
    """The answers of a file that `stablepref label` wrote, without those that were taken back.

    Raises:
        DataError: A line is not valid, or the file holds something else.
        OSError: It cannot be read.
    """
    file = Path(path)
    return valid_labels(_checked(file, read_rows(file)))


def _checked(path: Path, rows: Rows) -> Iterator[Row]:
    """Rows of answers, of which a wrong one names its place."""
    for place, row in rows:
        if isinstance(row, ValueError):
            raise DataError(path, place, str(row)) from row
        try:
            require_keys(row, *sorted(KEYS))
            if "undo" not in row:
                label_of_row(row)
        except ValueError as error:
            raise DataError(path, place, str(error)) from error
        yield row


def first_answers(labels: Iterable[Label]) -> dict[Key, dict[str, Label]]:
    """For each question the first answer of each annotator, that is, without repeats and skips."""
    found: dict[Key, dict[str, Label]] = {}
    for label in labels:
        answers = found.setdefault(label.key, {})
        if label.answer != "skip":
            answers.setdefault(label.annotator, label)
    return found


def repeated_answers(labels: Iterable[Label]) -> list[tuple[Label, Label]]:
    """The first two answers of each annotator to the same question, where there are two."""
    found: dict[tuple[str, Key], list[Label]] = {}
    for label in labels:
        if label.answer != "skip":
            found.setdefault((label.annotator, label.key), []).append(label)
    return [(first[0], first[1]) for first in found.values() if len(first) > 1]


def label_rows(rows: Rows) -> Rows:
    """Join rows of answers to one row for each question, after all have been read.

    Several annotators' ranks are averaged, equal ranks at their mean; of two pictures that is the
    majority, a tie for one half.
    """
    good: list[Row] = []
    places: dict[Key, str] = {}
    for place, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            if "undo" not in row:
                places.setdefault(label_of_row(row).key, place)
        except ValueError as error:
            yield place, error
            continue
        good.append(row)
    for key, answers in first_answers(valid_labels(good)).items():
        yield places[key], _joined(list(answers.values()))


def label_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of `label_rows`; a question that nobody answered is left out.

    `metadata["bad"]` lists the annotators who called all pictures bad.
    """
    require_keys(row, "annotations")
    if not row["annotations"]:
        raise LeftOutError("nobody answered")
    return RankedGroup(
        prompt=row["prompt"],
        images=tuple(resolve_image(image, folder) for image in row["images"]),
        ranks=row["ranks"],
        id=id_of(row, "id"),
        annotations=row["annotations"],
        annotators=row["annotators"],
        metadata=row["metadata"],
    )


def _joined(answers: list[Label]) -> dict[str, Any]:
    if not answers:
        return {"annotations": ()}
    first = answers[0]
    annotations = [one.ranks_of(first.images) for one in answers]
    ranks: object = annotations[0]
    if len(annotations) > 1:
        ranks = plain(rankdata(annotations, axis=1).mean(axis=0))
    bad = [one.annotator for one in answers if one.answer == "bad"]
    return {
        "prompt": first.prompt,
        "images": first.images,
        "ranks": ranks,
        "annotations": annotations,
        "annotators": [one.annotator for one in answers],
        "metadata": {"bad": bad} if bad else {},
    }


def _name(image: object) -> str:
    if isinstance(image, Mapping) or not isinstance(image, str) or not image:
        raise ValueError(f"an image is {shown(image)}; expected a path or an address")
    return image
