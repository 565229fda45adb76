"""Prompt sets by name, from the hub or from their files, and any other file of prompts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT

from stablepref.data.hub import dataset_rows, hub_rows
from stablepref.data.prompts import ListedPrompt, prompts_of_rows, read_prompt_file
from stablepref.weights.hub import UnavailableError
from stablepref.weights.network import first_line, require_network

from ..shapes.world.prompts import lab_prompts

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

HPDV2_STYLES: Final = ("anime", "concept-art", "paintings", "photo")

Prompts = tuple[ListedPrompt, ...]


@final
@dataclass(frozen=True)
class PromptSet:
    """Prompts under one name.

    Attributes:
        name: Of the set, or of its file.
        prompts: In the official order.
    """

    name: str
    prompts: Prompts

    def digest(self) -> str:
        """A hash of all keys, prompts and labels."""
        rows = [(one.key, one.prompt, dict(one.labels)) for one in self.prompts]
        return blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()


@final
@dataclass(frozen=True)
class _Named:
    """A published set: how many prompts it has, where they come from, who says so, its styles."""

    count: int
    fetch: Callable[[], Prompts] | None
    origin: str
    styles: tuple[str, ...] = ()


def _table(repository: str) -> Prompts:
    require_network(ENDPOINT)
    return prompts_of_rows(repository, dataset_rows(hub_rows(repository, "train")))


def _hpdv2() -> Prompts:
    """The official lists, one file a style (`zhwang/HPDv2`, folder `benchmark`)."""
    files = []
    for style in HPDV2_STYLES:
        place = ("zhwang/HPDv2", f"benchmark/{style}.json")
        found = try_to_load_from_cache(*place, repo_type="dataset")
        if not isinstance(found, str):
            require_network(ENDPOINT)
            found = hf_hub_download(*place, repo_type="dataset")
        files.append(Path(found))
    return read_prompt_file(files[0].parent, styles=HPDV2_STYLES)


def _lab() -> Prompts:
    return tuple(
        ListedPrompt(f"{place:05d}", one.prompt, {"category": one.category})
        for place, one in enumerate(lab_prompts())
    )


NAMED: Final[Mapping[str, _Named]] = {
    "drawbench": _Named(200, partial(_table, "sayakpaul/drawbench"), "Saharia et al., 2022"),
    "hpdv2": _Named(3200, _hpdv2, "Wu et al., 2023; four styles of 800", HPDV2_STYLES),
    "parti": _Named(1632, partial(_table, "nateraw/parti-prompts"), "Yu et al., 2022"),
    "geneval": _Named(553, None, "Ghosh et al., 2023; its evaluation_metadata.jsonl"),
    "imagereward": _Named(100, None, "Xu et al., 2023; its benchmark-prompts.json"),
    "lab": _Named(200, _lab, "the shapes laboratory's held-out prompts"),
}
"""The sets that are known by name."""


def read_prompt_set(
    name_or_file: str | os.PathLike[str], *, file: str | os.PathLike[str] | None = None
) -> PromptSet:
    """A set by its name, or out of any file that `read_prompt_file` reads.

    Args:
        name_or_file: One of `NAMED`, or a file.
        file: Where the named set's official file is; None fetches it.

    Returns:
        The set; its prompts keep order, repetitions and categories.

    Raises:
        ValueError: There is no such set or file, the file is not the named set (it has another
            number of prompts), or as `read_prompt_file`.
        UnavailableError: The named set cannot be downloaded.
    """
    name = str(name_or_file)
    if name in NAMED:
        return PromptSet(name, _named(name, file))
    if file is not None:
        msg = f"{file} is the file of a named set, and {name!r} is not one of {_names()}"
        raise ValueError(msg)
    path = Path(name).expanduser()
    if not path.exists():
        msg = f"{name!r} is neither a file of prompts nor one of {_names()}"
        raise ValueError(msg)
    return PromptSet(path.stem, read_prompt_file(path))


def _named(name: str, file: str | os.PathLike[str] | None) -> Prompts:
    known = NAMED[name]
    if file is not None:
        prompts = read_prompt_file(Path(file).expanduser(), styles=known.styles)
    elif known.fetch is None:
        msg = f"{name} has no place to be fetched from: name its file ({known.origin}) in --prompts"
        raise ValueError(msg)
    else:
        try:
            prompts = known.fetch()
        except OSError as error:
            msg = (
                f"{name} cannot be downloaded ({first_line(error)}): name its file in --prompts, "
                "or take the laboratory's own prompts, lab"
            )
            raise UnavailableError(msg) from error
    if len(prompts) != known.count:
        msg = (
            f"{name} has {known.count} prompts ({known.origin}), but {len(prompts)} were found"
            f"{'' if file is None else f' in {file}'}: name the file alone to use another set"
        )
        raise ValueError(msg)
    return prompts


def _names() -> str:
    return ", ".join(NAMED)
