"""The figure of step 1's weight is drawn, the same every time."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs stablepref[bench]")

from stablepref.benchmarks.paper.figure4 import main


def test_the_figure_is_reproducible(tmp_path: Path) -> None:
    main([str(tmp_path / "a.svg")])
    main([str(tmp_path / "sub" / "b.svg")])
    drawn = (tmp_path / "a.svg").read_bytes()
    assert drawn == (tmp_path / "sub" / "b.svg").read_bytes()
    assert b"<svg" in drawn
    main([str(tmp_path / "c.png")])
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
