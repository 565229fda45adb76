"""Figures of matplotlib, which is in the extra ``bench``, and how they get onto the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("plots need matplotlib: pip install 'stablepref[bench]'") from error

from stablepref.output.durable import replacing
from stablepref.output.text import printable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Figure", "literal", "save_figure"]


def literal(text: str) -> str:
    """A name as matplotlib draws it literally: no mathematics, no escapes, no hidden label.

    Between dollars matplotlib reads mathematics, and a label that begins with an underscore is left
    out of legends.
    """
    shown = printable(text).replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


def save_figure(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write a figure whole or not at all; equal figures give equal bytes in SVG.

    Args:
        figure: What to write.
        path: The file; its suffix, such as .svg or .png, is the format. Its folder is made.
        dpi: Pixels per inch.

    Raises:
        OSError: It cannot be written.
        ValueError: matplotlib does not write this format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with (
        replacing(path) as staging,
        mpl.rc_context({"svg.hashsalt": "stablepref", "svg.fonttype": "path"}),
    ):
        form = path.suffix.removeprefix(".") or None
        figure.savefig(staging, dpi=dpi, metadata=metadata, format=form)
