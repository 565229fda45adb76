"""What the laboratory's commands share."""

import json
from pathlib import Path

import pytest

from stablepref.benchmarks.shapes.world.commands import write_json


def test_numbers_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    write_json(path, {"share": 0.5})
    assert json.loads(path.read_text()) == {"share": 0.5}
    with pytest.raises(TypeError):
        write_json(path, {"share": object()})
    assert json.loads(path.read_text()) == {"share": 0.5}
    assert [one.name for one in tmp_path.iterdir()] == ["numbers.json"]
