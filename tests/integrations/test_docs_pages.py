"""The Python of the pages on the reward, best of n and guidance runs, as a reader would type it."""

from pathlib import Path

import pytest
from helpers.docs import python_blocks
from helpers.places import DOCS
from helpers.tiny_pipelines import build


@pytest.mark.parametrize("page", ["reward.md", "best_of_n.md", "guidance.md"])
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipe, _ = build("sd")
    names: dict[str, object] = {"__name__": "__main__", "pipe": pipe}
    blocks = list(python_blocks((DOCS / page).read_text()))
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    if page == "best_of_n.md":
        assert (tmp_path / "best.png").is_file()
        assert (tmp_path / "circles" / "candidates.html").is_file()
