"""Commands that resume in a folder are alone in it."""

from pathlib import Path

import pytest

from stablepref.benchmarks.shapes.clip import train as clip
from stablepref.benchmarks.shapes.pipeline import train as pipeline
from stablepref.benchmarks.shapes.preference import model as preference
from stablepref.output.locks import InUseError, sole_writer


@pytest.mark.parametrize("command", [clip.main, pipeline.main, preference.main])
def test_a_second_command_is_refused_before_it_works(command: object, tmp_path: Path) -> None:
    assert callable(command)
    with (
        sole_writer(tmp_path, folder=True),
        pytest.raises(InUseError, match="is being written by another process"),
    ):
        command(tmp_path)
    assert not list(tmp_path.iterdir())
