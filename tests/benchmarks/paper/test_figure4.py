"""Figure 4: the weights beside its formula, and a picture that is the same every time."""

import json
from pathlib import Path

import pytest
from helpers.paper_case import paper

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


def test_figure_4_beside_its_formula(tmp_path: Path) -> None:
    done = paper("figure4", "--out", tmp_path / "o", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert not found["laboratory"]
    # 1 / (1 + e^-2) and 1 / (1 + e^2), to four places.
    weights = {row["ΔS"]: row["cells"][0] for row in found["rows"]}
    for margin, expected in (("+0.0", 0.8808), ("+0.1", 0.5), ("+0.2", 0.1192)):
        assert weights[margin]["published"] == pytest.approx(expected, abs=5e-5)
        assert weights[margin]["ours"]["value"] == pytest.approx(expected, abs=5e-5)
    assert any("0.818" in note for note in found["notes"])
    assert (tmp_path / "o" / "figure4.png").read_bytes().startswith(b"\x89PNG")
