"""What Tables 1 to 5 are measured with: the data and weights they need, and those that are here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from stablepref.cli.options import ScorerOptions
from stablepref.models.catalog import BY_NAME
from stablepref.weights.cache import is_cached

from .data import Split, where

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .ablations import Ablations
    from .layouts import Layout
    from .methods import Method

_BUNDLED: Final = {"clip-h": "shapes-clip"}
"""Bundled models of the laboratory that stand in for rows."""


def titled(title: str, *, laboratory: bool) -> str:
    """A title that says so where the numbers are not from the paper's data."""
    return f"{title}, on the laboratory, not the paper's data" if laboratory else title


@final
@dataclass(frozen=True)
class Sources:
    """The data and models that a table's numbers come from.

    Attributes:
        splits: Test splits by data set, or the reason why there is none.
        models: Models given for rows, by the rows' keys.
        ablations: A finished run of the ablations, in the laboratory.
        download: Fetch weights that are not here.
        device: Where models run; None takes an accelerator, or the CPU.
        dtype: Number type of the models' encoders; None chooses by the device.
        batch_size: Images encoded at once; None chooses.
        scores: Folder for scores from which a killed run is resumed; None keeps no scores.
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
        """Whether the laboratory's data stand in, for all data sets or for none."""
        return any(isinstance(one, Split) and one.laboratory for one in self.splits.values())

    def weights(self, method: Method) -> ScorerOptions | str:
        """The model to load for a row, or the reason why there is none."""
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
            return "the laboratory has no counterpart"
        return f"give --ablations FOLDER (a finished run), or --model {method.key}=PATH"


def needs(layout: Layout, sources: Sources) -> tuple[str, ...]:
    """The data and weights that a table needs, and whether each is here."""
    found = []
    for dataset in layout.datasets:
        split = sources.splits[dataset]
        if isinstance(split, str):
            found.append(f"data, {dataset}: not here; {split}")
        elif split.laboratory:
            found.append(
                f"data, {dataset}: not here ({where(dataset)}); {split.description} stand in"
            )
        else:
            missing = split.missing()
            lost = f"; {missing} of {split.images()} images are missing" if missing else ""
            found.append(f"data, {dataset}: {split.description}{lost}")
    for line in {line.who: line for line in layout.lines}.values():
        if line.method is not None:
            found.append(f"weights, {line.who}: {_weights_described(line.method, sources)}")
    return tuple(found)


def _absent(method: Method) -> str:
    what = f"{method.base} is not here" if method.published else "it must be trained"
    return f"{what}: {method.where()}"


def _weights_described(method: Method, sources: Sources) -> str:
    """The weights that a row needs; in the laboratory also what stands in for them."""
    found = sources.weights(method)
    chosen = found if isinstance(found, str) else str(found.model)
    if not sources.laboratory:
        return chosen
    here = method.published and is_cached(BY_NAME[method.base].files)
    needed = f"{method.base}, which is here" if here else _absent(method)
    if sources.ablations is not None and method.key not in sources.models and method.standin:
        chosen = "out of the ablations"
    return f"{needed}; in the laboratory: {chosen}"
