"""The command of the precision benchmark."""

from pathlib import Path

import pytest
import typer

from stablepref.benchmarks.precision.__main__ import main


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="'nobody' is not one of 'shapes-clip'"):
        main(tmp_path, models=["nobody"])
