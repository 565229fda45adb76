"""What is asked: pairs or groups of pictures of one prompt, and the order in which they come."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, final

import numpy as np
import torch

from stablepref.data.image_prompts import prompt_of
from stablepref.data.layouts import pictures_of_prompts
from stablepref.data.manifest import IMAGE_COLUMNS, SUFFIXES, Columns, read_manifest
from stablepref.data.prompts import read_prompt_file
from stablepref.data.rows import find_column, read_values
from stablepref.images.paths import image_files
from stablepref.images.sources import UnusableImageError
from stablepref.scoring.uncertainty import preference_probability

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stablepref.data.image_prompts import PromptSource
    from stablepref.scorer import Scorer

Show = Literal["pairs", "groups"]
MOST: Final = 9
"""Pictures that are shown at once: there is a key for each."""
MOST_PAIRS: Final = 5000
"""Pairs of one prompt that are asked about: those of 100 pictures, more than anybody answers."""

Pictures = dict[str, list[Path]]
"""The pictures of each prompt."""


@final
@dataclass(frozen=True)
class Question:
    """Pictures of one prompt between which people choose.

    Attributes:
        id: Says nothing of the pictures' names.
        prompt: The words.
        images: Two to nine pictures.
    """

    id: str
    prompt: str
    images: tuple[Path, ...]


def read_pictures(
    folders: Sequence[Path], prompts: Path | None, prompt_from: PromptSource | None
) -> Pictures:
    """The pictures of each prompt.

    Args:
        folders: Folders of pictures.
        prompts: A list of prompts, after whose places or ids the pictures are named in each folder
            (`stablepref.data.layouts`), or a manifest with an image, relative to the folder or to
            the manifest, and its prompt in each row.
        prompt_from: Where each picture has its own prompt, in place of a list.

    Raises:
        ValueError: A folder is none, there is not one source of prompts, or no prompt has two
            pictures.
        DataError: The list is damaged.
        OSError: A file cannot be read.
    """
    for folder in folders:
        if not folder.is_dir():
            msg = f"{folder} is not a folder; expected one with pictures"
            raise ValueError(msg)
    if (prompts is None) == (prompt_from is None):
        msg = "give either --prompts, a file, or --prompt-from, where pictures bring their own"
        raise ValueError(msg)
    found: Pictures = defaultdict(list)
    for prompt, path in _listed(folders, prompts, prompt_from):
        if path.absolute() not in found[prompt]:
            found[prompt].append(path.absolute())
    if not any(len(paths) > 1 for paths in found.values()):
        msg = (
            f"no prompt has two pictures: {sum(map(len, found.values()))} pictures of "
            f"{len(found)} prompts were found in {', '.join(map(str, folders))}; expected pictures "
            "named after the prompts' places, such as 00000.png and 00000-1.png, or a manifest"
        )
        raise ValueError(msg)
    return dict(found)


def _listed(
    folders: Sequence[Path], prompts: Path | None, prompt_from: PromptSource | None
) -> Iterator[tuple[str, Path]]:
    if prompts is None:
        assert prompt_from is not None, "checked before"
        for folder in folders:
            for path in image_files(folder.rglob("*"), where=folder):
                yield prompt_of(path, prompt_from), path
    elif _has_images(prompts):
        for item in read_manifest(prompts, Columns()):
            if isinstance(item.image, UnusableImageError) or not isinstance(item.image, Path):
                msg = f"{prompts}: {item.name}: {item.image}; expected the path of a file"
                raise ValueError(msg)
            yield item.prompt or "", _below(item.image, prompts.parent, folders)
    else:
        listed = read_prompt_file(prompts)
        for folder in folders:
            for place, numbered in sorted(pictures_of_prompts(folder, listed).items()):
                for _, picture in sorted(numbered.items()):
                    yield listed[place].prompt, Path(str(picture))


def _has_images(prompts: Path) -> bool:
    """Whether a file's rows name images beside prompts."""
    if prompts.suffix.lower() not in SUFFIXES:
        return False
    first = next((row for _, row in read_values(prompts) if not isinstance(row, ValueError)), None)
    return isinstance(first, dict) and find_column(first, IMAGE_COLUMNS) is not None


def _below(path: Path, beside: Path, folders: Sequence[Path]) -> Path:
    """A manifest's picture: where the manifest says, or at the same place in a folder."""
    if path.is_file() or not path.is_relative_to(beside):
        return path
    places = [folder / path.relative_to(beside) for folder in folders]
    return next((place for place in places if place.is_file()), path)


def make_questions(
    pictures: Mapping[str, Sequence[Path]], show: Show, *, seed: int
) -> list[Question]:
    """The pairs of each prompt's pictures, or its pictures at once, in random order.

    Args:
        pictures: Of each prompt; prompts with one picture are left out.
        show: Pairs or groups. Of a prompt with more than `MOST_PAIRS` pairs as many are drawn at
            random. Groups have at most nine pictures; those of a prompt with more are
            dealt to several groups.
        seed: Of the order and of the groups.
    """
    rng = random.Random(f"questions {seed}")
    asked: list[Question] = []
    for prompt, paths in pictures.items():
        parts = _pairs(paths, rng) if show == "pairs" else _dealt(rng.sample(paths, len(paths)))
        asked += [Question(_id(prompt, part, seed), prompt, part) for part in parts]
    rng.shuffle(asked)
    return asked


def _pairs(paths: Sequence[Path], rng: random.Random) -> list[tuple[Path, ...]]:
    """All pairs, or `MOST_PAIRS` of them."""
    if math.comb(len(paths), 2) <= MOST_PAIRS:
        return list(itertools.combinations(paths, 2))
    drawn: set[tuple[int, ...]] = set()
    while len(drawn) < MOST_PAIRS:
        drawn.add(tuple(sorted(rng.sample(range(len(paths)), 2))))
    return [tuple(paths[place] for place in places) for places in sorted(drawn)]


def _dealt(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Parts of at most nine, as equal as possible."""
    if len(paths) < 2:
        return []
    count = -(-len(paths) // MOST)
    return [tuple(sorted(paths[start::count])) for start in range(count)]


def _id(prompt: str, images: Sequence[Path], seed: int) -> str:
    text = "\0".join((str(seed), prompt, *map(str, images)))
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def least_sure_first(
    questions: Sequence[Question], scorer: Scorer
) -> tuple[list[Question], dict[Path, str]]:
    """The questions in the order in which a scorer is least sure of their answers.

    That is how far the probability that the first of two pictures is preferred lies from one half,
    on average over the pairs of a question. Of scorers that state no probability it is how far the
    scores lie apart.

    Args:
        questions: What is asked; those with a picture that cannot be scored come last.
        scorer: The current model.

    Returns:
        The questions, and the pictures that could not be scored with the reasons.
    """
    shown = list(dict.fromkeys((one.prompt, path) for one in questions for path in one.images))
    results = scorer.stream(
        [str(path) for _, path in shown], [prompt for prompt, _ in shown], on_error="nan"
    )
    scored = dict(zip(shown, results, strict=True))
    failed = {path: one.error for (_, path), one in scored.items() if one.error is not None}
    scale = scorer.preference_scale

    def distance(question: Question) -> float:
        found = [scored[question.prompt, path] for path in question.images]
        first, second = np.triu_indices(len(found), k=1)
        scores = np.array([one.score for one in found])
        margins = scores[first] - scores[second]
        if scale is None:
            return float(np.abs(margins).mean())
        deviation = np.array([one.uncertainty or 0.0 for one in found])
        spread = np.hypot(deviation[first], deviation[second])
        chances = preference_probability(
            torch.from_numpy(scale * margins), torch.from_numpy(scale * spread)
        )
        return float((chances - 0.5).abs().mean())

    distances = [distance(one) for one in questions]
    return [questions[place] for place in np.argsort(distances, kind="stable")], failed
