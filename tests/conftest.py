"""Fixtures that more than one test module uses."""

import os
from pathlib import Path

import pytest
from commandline import draw_pictures
from tiny import tiny_clip


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images, rankings and golden values; without it the test is skipped."""
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("STABLEPREF_TEST_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no folder of real data at {folder} (set STABLEPREF_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny scorer, for the command line."""
    folder = tmp_path_factory.mktemp("model")
    tiny_clip().save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Six picture files in the test's own folder."""
    return draw_pictures(tmp_path)
