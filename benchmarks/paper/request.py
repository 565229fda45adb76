"""What `stablepref bench paper` is asked for, checked before anything slow is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from stablepref.cli.options import ScorerOptions

from .layouts import LAYOUTS
from .methods import METHODS, parse_models
from .numbers import TABLE_6

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ITEMS: Final = (*LAYOUTS, "table6", "figure4", "figure5", "figure6")
DRAWN: Final = ("figure4", "figure5", "figure6")
SIZE: Final = 100
"""Groups or prompts of the laboratory, by default."""
SHOWN: Final = 4
"""Prompts shown in Figure 6, by default."""
STYLES: Final = ("table", "markdown", "json")
_SAVED_NAME: Final = "model.safetensors"  # in a folder whose config.json names the architecture
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
"""Options of each item, besides --out and the style."""


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """A table or figure, and what to make it of, as given on the command line.

    Attributes:
        name: One of `ITEMS`.
        out: Folder for files, and for scores from which a killed run is resumed.
        style: One of `STYLES`.
        hpdv2: HPD v2's official test split, a file or folder.
        hpdv2_images: Folder that its image paths are relative to; None for that of the file.
        imagereward: ImageReward's official test split, a file or folder.
        imagereward_images: Folder that its image paths are relative to; None for that of the file.
        model: `ROW=PATH` for rows of Tables 1 to 5; `ROW=NAME`, its name in the runs, for Table 6.
        ablations: Folder of a finished run of the laboratory's ablations.
        download: Fetch data and weights that are not here.
        run: Folders of runs of `stablepref bench`.
        scorer: Scorers to show out of the runs; without runs, those that score the laboratory.
        size: Groups or prompts of the laboratory; for Figure 6 the prompts shown.
        device: Where models run; None takes an accelerator, or the CPU.
        dtype: Number type of the models' encoders; None chooses by the device.
        batch_size: Images encoded at once; None chooses.
        given: What `model` holds, by the rows' keys.

    Raises:
        ValueError: A value is unknown, two options exclude each other, or a path does not exist.
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

    def __post_init__(self) -> None:
        """Check what can be checked without work."""
        if self.name not in ITEMS:
            msg = f"{self.name!r} is not a table or figure; expected one of {', '.join(ITEMS)}"
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
            if name != "oracle":  # `judges.ORACLE`, whose module imports torch
                ScorerOptions(name, None, self.device, self.dtype)

    @property
    def real(self) -> bool:
        """Whether real test splits are given."""
        return self.hpdv2 is not None or self.imagereward is not None or self.download

    def models(self) -> dict[str, ScorerOptions]:
        """The models that `model` names for rows of Tables 1 to 5, by the rows' keys.

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
            known = f"its options are: {_typed(takes)}" if takes else "it only takes --out"
            msg = f"{self.name} does not take {_typed(foreign)}; {known}"
            raise ValueError(msg)
        if self.real and self.ablations is not None:
            msg = "--ablations is for the laboratory; leave it out with real data"
            raise ValueError(msg)
        if self.size is not None and (self.real or (self.run and self.name != "figure6")):
            msg = "--size is for the laboratory; leave it out with real data and runs"
            raise ValueError(msg)
        if self.name == "table6" and self.model and not self.run:
            msg = "--model names the rows of table6 in its runs: give the runs too, --run FOLDER"
            raise ValueError(msg)
        for name in ("hpdv2", "imagereward"):
            if getattr(self, f"{name}_images") is not None and getattr(self, name) is None:
                msg = f"--{name}-images is where the images of --{name} are: give --{name} too"
                raise ValueError(msg)

    def _check_places(self) -> None:
        if self.name in DRAWN and self.out is None:
            msg = f"{self.name} is a picture: give a folder for it, --out FOLDER"
            raise ValueError(msg)
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            msg = f"--out {self.out}: this is a file; expected a folder"
            raise ValueError(msg)
        for name in (*_DATA, "ablations"):
            path = getattr(self, name)
            if path is not None and not path.exists():
                msg = f"--{name.replace('_', '-')} {path}: this file or folder does not exist"
                raise ValueError(msg)


def _typed(options: Iterable[str]) -> str:
    """Options as they are typed."""
    return ", ".join(f"--{option.replace('_', '-')}" for option in options)


def _like(key: str, path: str) -> str | None:
    """The architecture of a checkpoint file, which its name need not show."""
    place = Path(path).expanduser()
    return METHODS[key].base if place.is_file() and place.name != _SAVED_NAME else None
