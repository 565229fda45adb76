"""The split of prompts that a command is asked for."""

import typer

from ..world.scenes import SPLITS, Split


def known_split(given: str) -> Split:
    """The split of that name.

    Raises:
        typer.BadParameter: there is none.
    """
    for name in SPLITS:
        if name == given:
            return name
    raise typer.BadParameter(f"{given!r} is not one of {', '.join(SPLITS)}")
