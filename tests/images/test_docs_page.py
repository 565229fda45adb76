"""What docs/images.md shows runs, and what it promises is what the code does."""

import re
from pathlib import Path

import pytest
from helpers.places import DOCS
from PIL import Image

from stablepref.images import rgb
from stablepref.images import web as fetch

PAGE = (DOCS / "images.md").read_text()


def test_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scenes").mkdir()
    for name in ("10.png", "9.png"):
        Image.new("RGB", (5, 4)).save(tmp_path / "scenes" / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "images.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:5] == [
        "4",
        "0 scenes/9.png (5, 4)",
        "1 scenes/10.png (5, 4)",
        "2 scenes/9.png (5, 4)",
        "3 scenes/10.png (5, 4)",
    ]
    assert printed[5].startswith("image 0 (array (64, 64, 3) float64): float pixels must lie in")


def test_limits_are_those_of_the_code() -> None:
    assert f"at most {fetch.TIMEOUT:g} s from the first attempt to connect" in PAGE
    assert f"to the last byte and {fetch.LARGEST // 2**20} MiB" in PAGE
    assert f"less than {rgb.ROUNDING:.4f} outside" in PAGE
    assert Image.MAX_IMAGE_PIXELS is not None
    assert f"about {round(2 * Image.MAX_IMAGE_PIXELS / 1e6)} million" in PAGE
