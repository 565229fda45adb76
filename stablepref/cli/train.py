"""What `stablepref train` does once its arguments are parsed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from accelerate import PartialState
from rich.console import Console

from stablepref.cli.options import read_setting
from stablepref.data.groups import Exclusions
from stablepref.data.read import read_groups
from stablepref.recipes import TrainConfig
from stablepref.recipes import recipe as named
from stablepref.trainer import train as run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stablepref.data.groups import RankedGroup

log = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def train(
    recipe: str,
    settings: Mapping[str, str],
    *,
    data: str,
    validation: str | None,
    split: str | None,
    validation_split: str | None,
    data_format: str,
    images: Path | None,
    out: Path,
    resume: bool,
) -> None:
    """Read the data, train, and say where the models are.

    Raises:
        ValueError: A setting, the data or the folder cannot be used.
        FloatingPointError: The loss is not finite.
        OSError: A file cannot be read or written.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    config = named(
        recipe, **{k: read_setting(TrainConfig, k, text) for k, text in settings.items()}
    )
    groups = _groups(data, split, data_format, images)
    held_out = _groups(validation, validation_split, data_format, images) if validation else None
    run(groups, config, out=out, validation=held_out, resume=resume)
    if PartialState().is_main_process:
        names = ["last", "best"] if held_out else ["last"]
        log.print(f"trained: {', '.join(str(out / name) for name in names)}")


def _groups(
    source: str, split: str | None, data_format: str, images: Path | None
) -> list[RankedGroup]:
    """All usable groups; what is left out is counted on standard error."""
    left_out = Exclusions()
    groups = list(read_groups(source, data_format, images=images, split=split, exclusions=left_out))
    for reason, count in left_out.counts.items():
        log.print(f"{source}: left out {count}: {reason}")
    return groups
