"""What `stablepref bench paper` was asked for, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from stablepref.cli.options import ScorerOptions

from .layouts import LAYOUTS
from .methods import METHODS, parse_models
from .numbers import TABLE_6

if TYPE_CHECKING:
    from collections.abc import Mapping

ITEMS: Final = (*LAYOUTS, "table6", "figure4", "figure5", "figure6")
DRAWN: Final = ("figure4", "figure5", "figure6")
SIZE: Final = 100
"""Of the laboratory's test splits and of its prompt set, unless asked otherwise."""
SHOWN: Final = 4
"""Prompts of Figure 6, likewise."""
STYLES: Final = ("table", "markdown", "json")
_SAVED_NAME: Final = "model.safetensors"  # of a folder that says itself what it holds
_DATA: Final = ("hpdv2", "hpdv2_images", "imagereward", "imagereward_images")
_RUNNING: Final = ("device", "dtype")
_TAKES: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        LAYOUTS, (*_DATA, "model", "ablations", "download", "size", "batch_size", *_RUNNING)
    ),
    "table6": ("run", "model", "scorer", "size", *_RUNNING),
    "figure4": (),
    "figure5": ("run", "scorer", "size", *_RUNNING),
    "figure6": ("run", "scorer", "size", *_RUNNING),
}
"""Options of each, beside --out and the style."""


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """A table or figure, and what it is to be made of, as typed.

    Attributes:
        name: One of `ITEMS`.
        out: Folder for files, and for what a killed run goes on from.
        style: One of `STYLES`.
        hpdv2: HPD v2's official test split, a file or folder.
        hpdv2_images: Where its image paths start; None looks beside the file.
        imagereward: ImageReward's.
        imagereward_images: Likewise.
        model: `ROW=PATH` for rows of Tables 1 to 5; `ROW=NAME`, what runs call it, for Table 6.
        ablations: Folder of a finished run of the laboratory's ablations.
        download: Fetch data and weights that are not here.
        run: Folders of runs of `stablepref bench`.
        scorer: Which of their scorers; in the laboratory, what is loaded.
        size: Groups or prompts of the laboratory; of Figure 6 the prompts that are shown.
        device: As in `stablepref.load`.
        dtype: As in `stablepref.load`.
        batch_size: As in `stablepref.evaluate`.

    Raises:
        ValueError: Something is not one of these, does not go together, or leads nowhere.
    """

    name: str
    out: Path | None = None
    style: str = "table"
    hpdv2: Path | None = None
    hpdv2_images: Path | None = None
    imagereward: Path | None = None
    imagereward_images: Path | None = None
    model: tuple[str, ...] = ()
    ablations: Path | None = None
    download: bool = False
    run: tuple[Path, ...] = ()
    scorer: tuple[str, ...] = ()
    size: int | None = None
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    given: Mapping[str, str] = field(init=False)
    """What `model` says, by the rows' keys."""

    def __post_init__(self) -> None:
        """Check what can be checked without work."""
        if self.name not in ITEMS:
            msg = f"{self.name!r} is no table or figure here; there are: {', '.join(ITEMS)}"
            raise ValueError(msg)
        if self.style not in STYLES:
            msg = f"style is {self.style!r}; expected one of {', '.join(STYLES)}"
            raise ValueError(msg)
        self._check_options()
        self._check_places()
        if self.name in LAYOUTS:
            names: Mapping[str, tuple[str, ...]] = LAYOUTS[self.name].names()
        else:
            names = {system.name: () for system in TABLE_6}
        # A frozen dataclass sets its fields this way.
        object.__setattr__(self, "given", parse_models(self.model, names))
        if self.name in LAYOUTS:
            self.models()
        for name in self.scorer if not self.run else ():
            if name != "oracle":  # as in judges, which brings torch
                ScorerOptions(name, None, self.device, self.dtype)

    @property
    def real(self) -> bool:
        """Whether real test splits are given."""
        return self.hpdv2 is not None or self.imagereward is not None or self.download

    def models(self) -> dict[str, ScorerOptions]:
        """What `model` gives for rows of Tables 1 to 5.

        Raises:
            ValueError: One is neither a path nor a name of the zoo.
        """
        return {
            key: ScorerOptions(path, _like(key, path), self.device, self.dtype)
            for key, path in self.given.items()
        }

    def _check_options(self) -> None:
        takes = _TAKES[self.name]
        every = {option for options in _TAKES.values() for option in options}
        foreign = sorted(
            option
            for option in every - set(takes)
            if getattr(self, option) not in (None, (), False)
        )
        if foreign:
            told = ", ".join(f"--{option.replace('_', '-')}" for option in foreign)
            known = ", ".join(f"--{option.replace('_', '-')}" for option in takes) or "none of them"
            msg = f"{self.name} does not use {told}; it takes: {known}"
            raise ValueError(msg)
        if self.real and self.ablations is not None:
            msg = "--ablations is the laboratory's; leave it out beside real data"
            raise ValueError(msg)
        if self.size is not None and (self.real or (self.run and self.name != "figure6")):
            msg = "--size is the laboratory's; leave it out beside real data and runs"
            raise ValueError(msg)
        if self.name == "table6" and self.model and not self.run:
            msg = "--model says what the runs of table6 call its rows: give the runs too, --run"
            raise ValueError(msg)
        for name in ("hpdv2", "imagereward"):
            if getattr(self, f"{name}_images") is not None and getattr(self, name) is None:
                msg = f"--{name}-images says where images of --{name} are, which is not given"
                raise ValueError(msg)

    def _check_places(self) -> None:
        if self.name in DRAWN and self.out is None:
            msg = f"{self.name} is a picture: name a folder for it, --out FOLDER"
            raise ValueError(msg)
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            msg = f"--out {self.out}: this is a file; expected a folder"
            raise ValueError(msg)
        for name in (*_DATA, "ablations"):
            path = getattr(self, name)
            if path is not None and not path.exists():
                msg = f"--{name.replace('_', '-')} {path}: there is no such file or folder"
                raise ValueError(msg)


def _like(key: str, path: str) -> str | None:
    """The architecture of a checkpoint file, which its name need not tell."""
    place = Path(path).expanduser()
    return METHODS[key].base if place.is_file() and place.name != _SAVED_NAME else None
