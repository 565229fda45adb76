"""What results look like in a notebook: HTML that holds all it shows, and data frames."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from PIL import Image


PICTURES: Final = 12
"""As many pictures are shown."""
_SIDE: Final = 160
_QUALITY: Final = 80


def pictures_html(title: str, pictures: Iterable[tuple[Image.Image, str]]) -> str:
    """A row of pictures that wraps, under a title.

    Args:
        title: Stands above them.
        pictures: Each picture, which is made at most 160 pixels a side, with its caption.
    """
    figures = "".join(
        f'<figure style="margin:0"><img src="{_data_uri(picture)}" alt="">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for picture, caption in pictures
    )
    row = f'<div style="display:flex;flex-wrap:wrap;gap:8px">{figures}</div>' if figures else ""
    return f"<div><p><b>{escape(title)}</b></p>{row}</div>"


def data_frame(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a data frame of pandas with these columns.

    Raises:
        ImportError: pandas is not installed; it is in the extra ``notebook``.
    """
    try:
        import pandas as pd  # noqa: PLC0415 (an optional extra)
    except ImportError as error:
        raise ImportError(
            'to_pandas needs pandas, which is not installed: pip install "stablepref[notebook]"'
        ) from error
    return pd.DataFrame([dict(row) for row in rows], columns=list(columns))


def _data_uri(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
