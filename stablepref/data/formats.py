"""What the rows of each preference data set mean: from a row to a `RankedGroup`.

Formats as their makers publish them: ImageReward's ``test.json`` (THUDM/ImageReward), ImageRewardDB
(hub ``THUDM/ImageRewardDB``), HPD v2's ``train.json`` and ``test.json`` (hub ``ymhao/HPDv2``) and
test gallery (github ``tgxs002/hpd_test_vis``), Pick-a-Pic (hub ``yuvalkirstain/pickapic_v1``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from stablepref.data.groups import MINIMUM_IMAGES, RankedGroup
from stablepref.data.jsonl import group_from_row, require_keys, resolve_image
from stablepref.data.rows import Row, Rows

_TIE_LABEL = 0.5
_LABEL_RANKS = {(1.0, 0.0): (1, 2), (0.0, 1.0): (2, 1), (_TIE_LABEL, _TIE_LABEL): (1, 1)}
_IMAGEREWARDDB_RATINGS = ("overall_rating", "image_text_alignment_rating", "fidelity_rating")


@final
class LeftOutError(Exception):
    """A row that is valid and yet no ranked group; readers count it and go on."""


@final
@dataclass(frozen=True)
class Schema:
    """How the rows of one data set are recognised and read.

    Attributes:
        keys: Keys that its rows have.
        convert: Makes a group of a row and the folder where relative image paths start. Raises
            `ValueError` for a row that is not valid and `LeftOutError` for one that is no group.
        merge: Joins the rows of one group, for data sets with one row for each image.
    """

    keys: frozenset[str]
    convert: Callable[[Row, Path | None], RankedGroup]
    merge: Callable[[Rows], Rows] | None = None


def imagereward_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of ImageReward's JSON: ``generations`` and their ``ranking``, 1 best, ties and gaps."""
    require_keys(row, "prompt", "generations", "ranking")
    return RankedGroup(
        prompt=row["prompt"],
        images=_images(row["generations"], folder),
        ranks=row["ranking"],
        id=_name(row.get("id")),
    )


def imagerewarddb_rows(rows: Rows) -> Rows:
    """Join ImageRewardDB's rows, one for each image, to one row for each ``prompt_id``.

    A group is complete when it has ``image_amount_in_total`` rows; the order of rows is free.
    Incomplete groups follow at the end.
    """
    waiting: dict[str, tuple[str, list[Row]]] = {}
    for place, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            require_keys(row, "prompt_id", "prompt", "rank")
        except ValueError as error:
            yield place, error
            continue
        first, members = waiting.setdefault(str(row["prompt_id"]), (place, []))
        members.append(row)
        if len(members) == row.get("image_amount_in_total"):
            yield first, _merged(waiting.pop(str(row["prompt_id"]))[1])
    for first, members in waiting.values():
        yield first, _merged(members)


def imagerewarddb_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of `imagerewarddb_rows`; groups of which one image is left are left out."""
    if len(row["images"]) < MINIMUM_IMAGES:
        raise LeftOutError("only one image of the prompt")
    return group_from_row(row, folder)


def hpdv2_train_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of HPD v2's train.json: ``human_preference`` is 1 for the preferred image, else 0."""
    require_keys(row, "prompt", "file_path", "human_preference")
    preference = row["human_preference"]
    if not isinstance(preference, (list, tuple)) or not set(preference) <= {0, 1}:
        raise ValueError(f"human_preference is {preference!r}; expected a list of 0 and 1")
    user = row.get("user_hash")
    return RankedGroup(
        prompt=row["prompt"],
        images=_images(row["file_path"], folder),
        ranks=tuple(2 - int(preferred) for preferred in preference),
        metadata={} if user is None else {"user_hash": user},
    )


def hpdv2_test_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of HPD v2's test.json: the averaged ``rank`` and each annotator's raw one.

    The data card calls an annotator's ranks ``rank``; code that reads the published file finds
    them under ``annotation``. Both are read, and so is the singular ``raw_annotation``.
    """
    require_keys(row, "prompt", "image_path", "rank")
    raw = row.get("raw_annotations", row.get("raw_annotation")) or ()
    if isinstance(raw, Mapping) or not all(isinstance(entry, Mapping) for entry in raw):
        raise ValueError("raw_annotations: expected a list of objects with rank and user_hash")
    annotations = []
    for entry in raw:
        ranks = entry.get("rank", entry.get("annotation"))
        if ranks is None:
            raise ValueError(f"an annotation has no ranks; there are: {', '.join(sorted(entry))}")
        annotations.append(tuple(ranks))
    named = all("user_hash" in entry for entry in raw)
    return RankedGroup(
        prompt=row["prompt"],
        images=_images(row["image_path"], folder),
        ranks=row["rank"],
        annotations=tuple(annotations),
        annotators=tuple(entry["user_hash"] for entry in raw) if named else (),
    )


def hpdv2_gallery_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of the HPD v2 gallery: ``rankings[image][annotator]``, 1 best.

    The group's ranks are the annotators' mean ranks; equal means are ties.
    """
    require_keys(row, "prompt", "image_path", "rankings")
    rankings = row["rankings"]
    if not isinstance(rankings, (list, tuple)) or not all(
        isinstance(ranks, (list, tuple)) and len(ranks) == len(rankings[0]) > 0
        for ranks in rankings
    ):
        raise ValueError("rankings: expected for each image a list of as many ranks, not empty")
    return RankedGroup(
        prompt=row["prompt"],
        images=_images(row["image_path"], folder),
        ranks=tuple(sum(ranks) / len(ranks) for ranks in rankings),
        annotations=tuple(zip(*rankings, strict=True)),
    )


def pickapic_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of Pick-a-Pic: two images and labels 1 and 0, or 0.5 each for a tie.

    Rows without a label are left out. Without the images' bytes their URLs are used.
    """
    require_keys(row, "caption", "label_0", "label_1")
    if not row.get("has_label", True):
        raise LeftOutError("has_label is false")
    labels = row["label_0"], row["label_1"]
    if labels not in _LABEL_RANKS:
        raise ValueError(
            f"label_0 and label_1 are {labels}; expected 1 and 0, 0 and 1, or 0.5 each"
        )
    images = [row.get(f"jpg_{side}") or row.get(f"image_{side}_url") for side in (0, 1)]
    kept = ("num_example_per_prompt", "image_0_uid", "image_1_uid", "model_0", "model_1", "user_id")
    return RankedGroup(
        prompt=row["caption"],
        images=_images(images, folder),
        ranks=_LABEL_RANKS[labels],
        id=_name(row.get("ranking_id")),
        metadata={key: row[key] for key in kept if row.get(key) is not None},
    )


SCHEMAS: Mapping[str, Schema] = {
    "stablepref": Schema(frozenset({"prompt", "images", "ranks"}), group_from_row),
    "imagereward": Schema(frozenset({"prompt", "generations", "ranking"}), imagereward_group),
    "imagerewarddb": Schema(
        frozenset({"prompt", "prompt_id", "rank"}), imagerewarddb_group, imagerewarddb_rows
    ),
    "hpdv2-train": Schema(
        frozenset({"prompt", "file_path", "human_preference"}), hpdv2_train_group
    ),
    "hpdv2-test": Schema(frozenset({"prompt", "image_path", "rank"}), hpdv2_test_group),
    "hpdv2-gallery": Schema(frozenset({"prompt", "image_path", "rankings"}), hpdv2_gallery_group),
    "pickapic": Schema(frozenset({"caption", "label_0", "label_1"}), pickapic_group),
}
"""The known data sets by name. ImageRewardDB stands before HPD v2's test set, whose keys its
metadata files have as well."""


def detect_schema(row: Row) -> str:
    """Name the schema whose keys a row has.

    Raises:
        ValueError: If there is none.
    """
    for name, schema in SCHEMAS.items():
        if schema.keys <= row.keys():
            return name
    known = "; ".join(f"{name}: {', '.join(sorted(s.keys))}" for name, s in SCHEMAS.items())
    raise ValueError(f"keys {', '.join(sorted(row))} are of no known format. Known are {known}")


def _images(values: object, folder: Path | None) -> tuple[object, ...]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"the images are a {type(values).__name__}; expected a list")
    return tuple(resolve_image(value, folder) for value in values)


def _name(value: object) -> str | None:
    return None if value is None else str(value)


def _merged(members: list[Row]) -> Row:
    first = members[0]
    metadata: dict[str, Any] = {}
    if first.get("classification") is not None:
        metadata["classification"] = first["classification"]
    for key in _IMAGEREWARDDB_RATINGS:
        if all(key in member for member in members):
            metadata[key] = [member[key] for member in members]
    return {
        "prompt": first["prompt"],
        "images": [member.get("image", member.get("image_path")) for member in members],
        "ranks": [member["rank"] for member in members],
        "id": first["prompt_id"],
        "metadata": metadata,
    }
