"""What the rows of each preference data set mean: from a row to a `RankedGroup`.

Formats as their makers publish them: ImageReward's ``test.json`` (THUDM/ImageReward), ImageRewardDB
(hub ``THUDM/ImageRewardDB``), HPD v2's ``train.json`` and ``test.json`` (hub ``ymhao/HPDv2``) and
test gallery (github ``tgxs002/hpd_test_vis``), Pick-a-Pic (hub ``yuvalkirstain/pickapic_v1``).
Data sets of pairs are in `stablepref.data.pairs`.

A data set is one function and one row of `FORMATS`. Other packages add theirs by an entry point of
the group ``stablepref.readers`` that names a `Format`, programs by `FORMATS.register`.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from stablepref.data import labels, pairs
from stablepref.data.convert import (
    Format,
    LeftOutError,
    given,
    id_of,
    is_list,
    is_number,
    keys_of,
    plain,
    require_keys,
    resolve_images,
)
from stablepref.data.groups import MINIMUM_IMAGES, RankedGroup, as_list, as_name, as_rank, shown
from stablepref.data.rows import Row, Rows
from stablepref.runtime.registry import Registry

_GROUP_KEYS = frozenset(
    {"prompt", "images", "ranks", "id", "annotations", "annotators", "metadata"}
)
_LABEL_RANKS = (((1, 0), (1, 2)), ((0, 1), (2, 1)), ((0.5, 0.5), (1, 1)))
_IMAGEREWARDDB_RATINGS = ("overall_rating", "image_text_alignment_rating", "fidelity_rating")


def stablepref_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of the project's own form, with the keys of `RankedGroup`; others become metadata."""
    require_keys(row, "prompt", "images", "ranks")
    metadata = row.get("metadata")
    if not isinstance(metadata, (Mapping, type(None))):
        raise ValueError(f"metadata is a {type(metadata).__name__}; expected an object")
    extra = {key: row[key] for key in row.keys() - _GROUP_KEYS if not isinstance(row[key], bytes)}
    return RankedGroup(
        prompt=row["prompt"],
        images=resolve_images(row["images"], folder),
        ranks=row["ranks"],
        id=id_of(row, "id"),
        annotations=given(row, "annotations"),
        annotators=given(row, "annotators"),
        metadata={key: plain(value) for key, value in {**extra, **(metadata or {})}.items()},
    )


def imagereward_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of ImageReward's JSON: ``generations`` and their ``ranking``, 1 best, ties and gaps."""
    require_keys(row, "prompt", "generations", "ranking")
    return RankedGroup(
        prompt=row["prompt"],
        images=resolve_images(row["generations"], folder),
        ranks=row["ranking"],
        id=id_of(row, "id"),
    )


def imagerewarddb_rows(rows: Rows) -> Rows:
    """Join ImageRewardDB's rows, one for each image, to one row for each ``prompt_id``.

    A group is complete when it has ``image_amount_in_total`` rows; the order of rows is free.
    Incomplete groups follow at the end. Rows that are whole groups already, as in its
    configurations ``*_group``, where rank and image are lists, stay.
    """
    waiting: dict[str, tuple[str, list[Row]]] = {}
    for place, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            require_keys(row, "prompt_id", "prompt", "rank")
            name = as_name(row["prompt_id"])
            if is_list(row["rank"]):
                whole = _whole(row)
                yield place, whole
                continue
        except ValueError as error:
            yield place, error
            continue
        first, members = waiting.setdefault(name, (place, []))
        members.append(row)
        if len(members) == row.get("image_amount_in_total"):
            yield first, _merged(waiting.pop(name)[1])
    for first, members in waiting.values():
        yield first, _merged(members)


def imagerewarddb_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of `imagerewarddb_rows`; groups of which one image is left are left out."""
    if len(row["images"]) < MINIMUM_IMAGES:
        raise LeftOutError("only one image of the prompt")
    return stablepref_group(row, folder)


def imagerewarddb_pair(row: Row, folder: Path | None) -> RankedGroup:
    """A row of ImageRewardDB's configurations ``*_pair``: the better image and the worse."""
    require_keys(row, "prompt", "img_better", "img_worse")
    return RankedGroup(
        prompt=row["prompt"],
        images=resolve_images([row["img_better"], row["img_worse"]], folder),
        ranks=(1, 2),
        id=id_of(row, "prompt_id"),
    )


def hpdv2_train_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of HPD v2's train.json: ``human_preference`` is 1 for the preferred image, else 0."""
    require_keys(row, "prompt", "file_path", "human_preference")
    held = row["human_preference"]
    preference = as_list(held, "human_preference") if is_list(held) else None
    if preference is None or not all(is_number(one) and one in (0, 1) for one in preference):
        raise ValueError(f"human_preference is {shown(held)}; expected a list of 0 and 1")
    user = row.get("user_hash")
    return RankedGroup(
        prompt=row["prompt"],
        images=resolve_images(row["file_path"], folder),
        ranks=tuple(2 - int(preferred) for preferred in preference),
        metadata={} if user is None else {"user_hash": user},
    )


def hpdv2_test_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of HPD v2's test.json: the averaged ``rank`` and each annotator's raw one.

    The data card calls an annotator's ranks ``rank``; code that reads the published file finds
    them under ``annotation``. Both are read, and so is the singular ``raw_annotation``.
    """
    require_keys(row, "prompt", "image_path", "rank")
    raw = row.get("raw_annotations", row.get("raw_annotation"))
    entries = [] if raw is None else as_list(raw, "raw_annotations")
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError("raw_annotations: expected a list of objects with rank and user_hash")
    annotations = []
    for entry in entries:
        ranks = entry.get("rank", entry.get("annotation"))
        if ranks is None:
            raise ValueError(f"an annotation has no ranks; there are: {keys_of(entry)}")
        annotations.append(ranks)
    named = all("user_hash" in entry for entry in entries)
    return RankedGroup(
        prompt=row["prompt"],
        images=resolve_images(row["image_path"], folder),
        ranks=row["rank"],
        annotations=tuple(annotations),
        annotators=tuple(entry["user_hash"] for entry in entries) if named else (),
    )


def hpdv2_gallery_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of the HPD v2 gallery: ``rankings[image][annotator]``, 1 best.

    The group's ranks are the annotators' mean ranks; equal means are ties.
    """
    require_keys(row, "prompt", "image_path", "rankings")
    rankings = [
        [as_rank(rank, f"rankings[{image}]") for rank in as_list(ranks, f"rankings[{image}]")]
        for image, ranks in enumerate(as_list(row["rankings"], "rankings"))
    ]
    if not all(len(ranks) == len(rankings[0]) > 0 for ranks in rankings):
        raise ValueError("rankings: expected for each image a list of as many ranks, not empty")
    return RankedGroup(
        prompt=row["prompt"],
        images=resolve_images(row["image_path"], folder),
        ranks=tuple(sum(map(float, ranks)) / len(ranks) for ranks in rankings),
        annotations=tuple(zip(*rankings, strict=True)),
    )


def pickapic_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of Pick-a-Pic: two images and labels 1 and 0, or 0.5 each for a tie.

    Rows without a label are left out. Without the images' bytes their URLs are used.
    """
    require_keys(row, "caption", "label_0", "label_1")
    if row.get("has_label", True) in (False, 0, None):
        raise LeftOutError("has_label is false")
    labels = row["label_0"], row["label_1"]
    ranks = None
    if all(map(is_number, labels)):
        ranks = next((ranks for known, ranks in _LABEL_RANKS if labels == known), None)
    if ranks is None:
        found = f"({', '.join(map(shown, labels))})"
        raise ValueError(f"label_0 and label_1 are {found}; expected 1 and 0, 0 and 1, or 0.5 each")
    images = []
    for side in (0, 1):
        picture = row.get(f"jpg_{side}")
        nothing = picture is None or (isinstance(picture, (bytes, str)) and not picture)
        images.append(row.get(f"image_{side}_url") if nothing else picture)
    kept = ("num_example_per_prompt", "image_0_uid", "image_1_uid", "model_0", "model_1", "user_id")
    return RankedGroup(
        prompt=row["caption"],
        images=resolve_images(images, folder),
        ranks=ranks,
        id=id_of(row, "ranking_id"),
        metadata={key: row[key] for key in kept if row.get(key) is not None},
    )


FORMATS = Registry[Format](
    "format",
    "stablepref.readers",
    {
        "labels": Format(labels.label_group, labels.KEYS, labels.label_rows),
        "stablepref": Format(stablepref_group, {"prompt", "images", "ranks"}),
        "imagereward": Format(imagereward_group, {"prompt", "generations", "ranking"}),
        "imagerewarddb": Format(
            imagerewarddb_group, {"prompt", "prompt_id", "rank"}, imagerewarddb_rows
        ),
        "imagerewarddb-pair": Format(imagerewarddb_pair, {"prompt", "img_better", "img_worse"}),
        "hpdv2-train": Format(hpdv2_train_group, {"prompt", "file_path", "human_preference"}),
        "hpdv2-test": Format(hpdv2_test_group, {"prompt", "image_path", "rank"}),
        "hpdv2-gallery": Format(hpdv2_gallery_group, {"prompt", "image_path", "rankings"}),
        "pickapic": Format(pickapic_group, {"caption", "label_0", "label_1"}),
        "hpdv3": Format(pairs.hpdv3_group, {"prompt", "path1", "path2"}),
        "mmrb2": Format(
            pairs.mmrb2_group, {"prompt_text", "response_a_images", "response_b_images", "chosen"}
        ),
        "mmrb2-json": Format(
            pairs.mmrb2_json_group, {"prompt_content", "response_a", "response_b", "chosen"}
        ),
        "chosen-rejected": Format(pairs.chosen_rejected_group, {"prompt", "chosen", "rejected"}),
        "open-image-preferences": Format(
            pairs.open_image_preferences_group, {"images", "preference.responses"}
        ),
        "rapidata-votes": Format(
            pairs.rapidata_votes_group,
            {"prompt", "image1", "image2", "votes_image1", "votes_image2"},
        ),
        **{
            f"rapidata-{aspect}": Format(
                partial(pairs.rapidata_weighted_group, aspect=aspect),
                {"prompt", "image1", "image2", f"weighted_results_image1_{aspect}"},
            )
            for aspect in pairs.RAPIDATA_ASPECTS
        },
        "user-pairs": Format(
            stablepref_group, {"prompt", "image_a", "image_b", "choice"}, pairs.user_pair_rows
        ),
    },
)
"""The known data sets by name, with those of other packages. ImageRewardDB stands before HPD v2's
test set, whose keys its metadata files have as well."""


def named_format(name: str) -> Format:
    """The format of a name.

    Raises:
        KeyError: If there is no such format.
        ImportError: If a package says that it brings it, and fails to.
        TypeError: If what it brings is not a `Format`.
    """
    found: object = FORMATS[name]
    if not isinstance(found, Format):
        raise TypeError(
            f"the format {name!r} is a {type(found).__name__}; expected a stablepref.data.Format"
        )
    return found


def detect_format(row: Row) -> str:
    """Name the format whose keys a row has; those of other packages come after the built-in ones.

    Raises:
        ValueError: If no known format has such keys.
        ImportError: As `named_format`.
    """
    known = []
    for name in FORMATS:
        keys = named_format(name).keys
        if keys and set(keys) <= row.keys():
            return name
        known += [f"{name}: {', '.join(sorted(keys))}"] * bool(keys)
    raise ValueError(
        f"the keys {keys_of(row)} are those of no known format; known are {'; '.join(known)}"
    )


def _whole(row: Row) -> Row:
    """A row with the lists of all images, as one of `_merged`."""
    images = row.get("image", row.get("image_path"))
    kept = {
        key: plain(row[key]) for key in ("classification", *_IMAGEREWARDDB_RATINGS) if key in row
    }
    return {
        "prompt": row["prompt"],
        "images": as_list(images, "the list of images"),
        "ranks": row["rank"],
        "id": row["prompt_id"],
        "metadata": {key: value for key, value in kept.items() if value is not None},
    }


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
