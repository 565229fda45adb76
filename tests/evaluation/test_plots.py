"""Plots of evaluation reports: drawn where there is something to draw."""

import importlib
import sys
from pathlib import Path

import pytest
from helpers.shades import ShadeScorer, shades
from PIL import Image

from stablepref.evaluation.evaluate import evaluate
from stablepref.evaluation.plots import save_plots

GROUPS = [
    shades("p", (30, 20, 10), (1, 2, 3), [(1, 2, 3), (1, 2, 3), (1, 3, 2)]),
    shades("q", (30, 20), (2, 1), [(1, 2), (2, 1), (2, 1)]),
]


def test_all_three(tmp_path: Path) -> None:
    reports = [
        evaluate(ShadeScorer(name=name), GROUPS, perturbations=("hflip", "jpeg-50"))
        for name in ("one", "other")
    ]
    drawn = save_plots(reports, tmp_path / "new" / "plots")
    assert [path.name for path in drawn] == [
        "reliability.png",
        "perturbations.png",
        "agreement.png",
    ]
    for path in drawn:
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
    (_, perturbations, _) = save_plots(reports, tmp_path, suffix=".svg")
    text = perturbations.read_text()
    for label in ("hflip", "jpeg-50", "one: 75.0 % as it is"):
        assert f"<!-- {label}" in text
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".svg"] * 3


def test_what_there_is_nothing_for_is_not_drawn(tmp_path: Path) -> None:
    report = evaluate(
        ShadeScorer(preference_scale=None), [shades("p", (1, 2), (1, 2))], perturbations=()
    )
    assert report.save_plots(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    other = evaluate(ShadeScorer(), [shades("p", (1, 2), (1, 2))], perturbations=("hflip",))
    drawn = save_plots([report, other], tmp_path)
    assert [path.stem for path in drawn] == ["reliability", "perturbations"]


def test_intervals_without_room_are_drawn_too(tmp_path: Path) -> None:
    values = [(30, 20, 10, 5, 4, 3, 2)] * 3  # every resample gives the same, but for rounding
    groups = [shades("p", v, (1, 2, 4, 3, 5, 7, 6), [(1, 2, 3, 4, 5, 6, 7)] * 3) for v in values]
    report = evaluate(ShadeScorer(), groups, perturbations=("brightness-0.9",))
    assert len(report.save_plots(tmp_path)) == 3


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("stablepref.evaluation.plots", "stablepref.output.figures"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"stablepref\[bench\]"):
        importlib.import_module("stablepref.evaluation.plots")
