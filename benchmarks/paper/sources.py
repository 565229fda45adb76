"""What Tables 1 to 5 are measured with: which data and weights they need, and what is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from stablepref.cli.options import ScorerOptions
from stablepref.models.catalog import BY_NAME
from stablepref.weights.hub import is_cached

from .data import Split, where

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .ablations import Ablations
    from .layouts import Layout
    from .methods import Method

_BUNDLED: Final = {"clip-h": "shapes-clip"}
"""Models of the laboratory that are there without being made first."""


def titled(title: str, *, laboratory: bool) -> str:
    """A title that says so where the numbers are none of real data."""
    return f"{title}, on the laboratory, not the paper's data" if laboratory else title


@final
@dataclass(frozen=True)
class Sources:
    """What a table's numbers are made of.

    Attributes:
        splits: Test splits by data set, or why there is none.
        models: What was given for rows, by their keys.
        ablations: A finished run of the ablations, in the laboratory.
        download: Fetch weights that are not here.
        device: As in `stablepref.load`.
        dtype: As in `stablepref.load`.
        batch_size: As in `stablepref.evaluate`.
        scores: Folder for scores that a killed run goes on from; None keeps none.
    """

    splits: Mapping[str, Split | str]
    models: Mapping[str, ScorerOptions] = field(default_factory=dict)
    ablations: Ablations | None = None
    download: bool = False
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    scores: Path | None = None

    @property
    def laboratory(self) -> bool:
        """Whether the laboratory's data stand in; it is all of them or none."""
        return any(isinstance(one, Split) and one.laboratory for one in self.splits.values())

    def weights(self, method: Method) -> ScorerOptions | str:
        """What to load for a row, or why there is nothing."""
        if method.key in self.models:
            return self.models[method.key]
        if not self.laboratory:
            if method.published and (self.download or is_cached(BY_NAME[method.base].files)):
                return ScorerOptions(method.base, None, self.device, self.dtype)
            return _absent(method)
        if method.key in _BUNDLED and self.ablations is None:
            name = _BUNDLED[method.key]
            return ScorerOptions(name, None, self.device, self.dtype)
        if method.standin is None:
            return "the laboratory has no such model"
        return f"give --ablations FOLDER (a finished run), or --model {method.key}=PATH"


def needs(layout: Layout, sources: Sources) -> tuple[str, ...]:
    """Which data and weights a table needs, and what is there of each."""
    told = []
    for dataset in layout.datasets:
        split = sources.splits[dataset]
        if isinstance(split, str):
            told.append(f"data, {dataset}: not here; {split}")
        elif split.laboratory:
            told.append(f"data, {dataset}: not here ({where(dataset)}); {split.told} stand in")
        else:
            missing = split.missing()
            lost = f"; {missing} of {split.images()} images are not there" if missing else ""
            told.append(f"data, {dataset}: {split.told}{lost}")
    for line in {line.who: line for line in layout.lines}.values():
        if line.method is not None:
            told.append(f"weights, {line.who}: {_weights_told(line.method, sources)}")
    return tuple(told)


def _absent(method: Method) -> str:
    what = f"{method.base} is not here" if method.published else "it must be trained"
    return f"{what}: {method.where()}"


def _weights_told(method: Method, sources: Sources) -> str:
    """What a row needs; in the laboratory also what it has in its place."""
    found = sources.weights(method)
    chosen = found if isinstance(found, str) else str(found.model)
    if not sources.laboratory:
        return chosen
    here = method.published and is_cached(BY_NAME[method.base].files)
    needed = f"{method.base}, which is here" if here else _absent(method)
    if sources.ablations is not None and method.key not in sources.models and method.standin:
        chosen = "out of the ablations"
    return f"{needed}; in the laboratory: {chosen}"
