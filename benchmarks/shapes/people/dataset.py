"""Preference data of the laboratory, in memory or on disk in the form that real data have."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from stablepref.data.groups import RankedGroup
from stablepref.data.write import write_jsonl
from stablepref.output.durable import replacing
from stablepref.output.locks import sole_writer

from ..world.drawing import IMAGE_SIZE
from ..world.errors import GENERATOR_ERRORS
from ..world.language import describe
from ..world.scenes import SPLITS, Split
from .alignment import MISTAKE_COSTS
from .annotators import mean_ranks
from .collect import Collected, collect
from .fidelity import FAULT_COSTS
from .settings import Setting
from .utility import TERMS, true_utility

RECIPE = "recipe.json"
_IMAGES = "images"
_DECIMALS = 6


def lab_groups(
    setting: Setting,
    *,
    split: Split,
    groups: int,
    seed: int = 0,
    size: int = IMAGE_SIZE,
    annotators: int | None = None,
) -> Iterator[RankedGroup]:
    """Make ranked groups, with PIL images.

    The ranks are the mean ranks of the people who ranked the group, as in HPD v2; each person's
    ranks are the group's annotations. No prompt or scene occurs twice, in one split or in two.

    Args:
        setting: Who draws, who ranks, and how noisily.
        split: Where the prompts are from.
        groups: How many groups; fewer are the first of more.
        seed: Of everything.
        size: Side of the pictures in pixels.
        annotators: People who rank each group; None is the setting's number for the split.

    Returns:
        An iterator over the groups. ``metadata`` has, image by image, ``utilities`` and their parts
        ``alignment`` and ``fidelity``, what each ``shows`` in words, its ``mistakes`` and
        ``faults``, and the ``generators``.

    Raises:
        ValueError: If ``groups`` is negative or ``annotators`` out of range.
    """
    if groups < 0:
        raise ValueError(f"groups is {groups}; expected 0 or more")
    collected = collect(setting, split=split, seed=seed, annotators=annotators)
    return (_drawn(one, setting, seed, size) for one in islice(collected, groups))


def oracle_groups(groups: Iterable[RankedGroup]) -> Iterator[RankedGroup]:
    """Rank groups of the laboratory by true utility, so that agreement with the oracle is measured.

    Args:
        groups: From `lab_groups`, or read from a file that `write_dataset` wrote.

    Yields:
        The same groups with the oracle's ranks; equal utilities tie.

    Raises:
        ValueError: If a group does not say its images' utilities.
    """
    for group in groups:
        utilities = group.metadata.get("utilities")
        if not isinstance(utilities, (list, tuple)) or len(utilities) != len(group.images):
            raise ValueError(
                f"group {group.id}: metadata has no utilities of its {len(group.images)} images; "
                "expected a group that stablepref.benchmarks.shapes.dataset made"
            )
        ranks = mean_ranks(np.asarray(utilities, dtype=np.float64))
        yield replace(group, ranks=tuple(ranks.tolist()))


def write_dataset(
    out: Path,
    setting: Setting,
    groups: Mapping[Split, int],
    *,
    seed: int = 0,
    size: int = IMAGE_SIZE,
    annotators: int | None = None,
) -> None:
    """Write ``SPLIT.jsonl`` for each split, and the pictures as PNG files in ``images``.

    A file appears whole or not at all, and a split that is there already is kept: an interrupted
    run is resumed by the same call.

    Args:
        out: Folder.
        setting: Who draws, who ranks, and how noisily.
        groups: Number of groups in each split.
        seed: Of everything.
        size: Side of the pictures in pixels.
        annotators: People who rank each group; None is the setting's number for the split.

    Raises:
        ValueError: If the folder holds data that were made differently, or numbers are out of
            range.
        InUseError: If another process is writing data there.
    """
    made = {
        split: lab_groups(
            setting, split=split, groups=number, seed=seed, size=size, annotators=annotators
        )
        for split, number in groups.items()
    }
    recipe = {
        "setting": asdict(setting),
        "seed": seed,
        "size": size,
        "annotators": annotators,
        "errors": GENERATOR_ERRORS,
    }
    with sole_writer(out, folder=True):
        claim(out, json.loads(json.dumps(recipe)))
        for split, number in groups.items():
            path = out / f"{split}.jsonl"
            if is_complete(path, number):
                continue
            shown = track(made[split], description=split, total=number)
            write_jsonl(path, map(_with_files, shown), image_folder=out / _IMAGES)


def _drawn(one: Collected, setting: Setting, seed: int, size: int) -> RankedGroup:
    return RankedGroup(
        one.prompt,
        tuple(Image.fromarray(picture.draw(size)) for picture in one.pictures),
        tuple(one.annotations.mean(axis=0).tolist()),
        id=one.name,
        annotations=tuple(map(tuple, one.annotations.tolist())),
        annotators=tuple(f"person-{number:03}" for number in one.people),
        metadata={"setting": setting.name, "seed": seed, **_truth(one)},
    )


def _truth(one: Collected) -> dict[str, object]:
    """What is true of each image, as plain values."""
    terms = one.terms()
    found: list[dict[str, float]] = [
        {name: value for name, value in zip(TERMS, row, strict=True) if value}
        for row in terms.round(_DECIMALS).tolist()
    ]
    fidelity = np.array([name in FAULT_COSTS for name in TERMS])
    parts = {
        "utilities": true_utility(terms),
        "alignment": true_utility(terms * ~fidelity),
        "fidelity": true_utility(terms * fidelity),
    }
    return {
        # Adding 0 turns -0.0 into 0.0.
        **{name: (values.round(_DECIMALS) + 0.0).tolist() for name, values in parts.items()},
        "shows": [describe(picture.shown) for picture in one.pictures],
        "mistakes": [
            {name: int(row[name]) for name in MISTAKE_COSTS if name in row} for row in found
        ],
        "faults": [{name: row[name] for name in FAULT_COSTS if name in row} for row in found],
        "generators": [picture.generator for picture in one.pictures],
    }


def _with_files(group: RankedGroup) -> RankedGroup:
    """The group with its PIL images as the bytes of PNG files."""
    files = []
    for image in group.images:
        assert isinstance(image, Image.Image)
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        files.append(buffer.getvalue())
    return replace(group, images=tuple(files))


def claim(out: Path, recipe: object) -> None:
    """Note in the folder how its data are made, or check that it says the same."""
    path = out / RECIPE
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != recipe:
            raise ValueError(
                f"{out} holds data made with other settings (see {path.name}); give another folder"
            )
        return
    if present := [out / f"{split}.jsonl" for split in SPLITS if (out / f"{split}.jsonl").exists()]:
        raise ValueError(
            f"{present[0]} exists without a {path.name} that says how it was made; give another "
            "folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    with replacing(path) as staging:
        staging.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")


def is_complete(path: Path, rows: int) -> bool:
    """Whether a file is there and has so many lines."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return sum(1 for _ in file) == rows
