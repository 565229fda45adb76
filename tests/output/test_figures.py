"""Names in figures are drawn as they are."""

import warnings
from pathlib import Path

import pytest

from stablepref.output.figures import Figure, literal, save_figure

NAMES = ["$x_1$", "_hidden", r"a\$b", "costs 5$", r"$\frac{", "two\nlines\x1b[2J", "plain"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_mathematics_and_no_hidden_label(name: str, tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph, a label left out
        axes.plot([0, 1], label=literal(name))
        legend = axes.legend()
        save_figure(figure, tmp_path / "figure.svg")
    (text,) = legend.get_texts()
    shown, is_mathematics = text._preprocess_math(text.get_text())
    assert not is_mathematics
    expected = name.replace("\n", r"\n").replace("\x1b", r"\x1b")
    assert shown.removeprefix("\u200b") == expected
