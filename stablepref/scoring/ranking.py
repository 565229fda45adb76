"""Images from best to worst, as a list that shows itself in a notebook."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, is_url, iter_sources
from stablepref.output.notebook import PICTURES, data_frame, pictures_html
from stablepref.output.tables import Table
from stablepref.scoring.stream import Scored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

_COLUMNS: Final = ("index", "name", "prompt", "score", "spread", "error")


@final
class Ranking(list[Scored]):
    """Images from best to worst, those without a score last: a list of `Scored`.

    Args:
        scored: The results, in order.
        model: Name of the scorer.
        unit: Of its scores.
        images: What was ranked, for the pictures in a notebook; kept as it is, not copied, and not
            pickled. Iterators, files that are open and URLs are not read a second time.
    """

    def __init__(
        self,
        scored: Iterable[Scored] = (),
        *,
        model: str = "",
        unit: str = "",
        images: object = None,
    ) -> None:
        super().__init__(scored)
        self.model = model
        self.unit = unit
        self._images = images if _readable_again(images) else None

    def __getstate__(self) -> dict[str, object]:
        """All but the images, which need not be picklable."""
        return {"model": self.model, "unit": self.unit, "_images": None}

    def to_pandas(self) -> pd.DataFrame:
        """One row for each image, in order: index, name, prompt, score, spread and error.

        Raises:
            ImportError: pandas is not installed; it is in the extra ``notebook``.
        """
        return data_frame([_row(one) for one in self], _COLUMNS)

    def _repr_html_(self) -> str:
        with_views = any(len(one.view_scores) > 1 for one in self)
        failed = any(one.error for one in self)
        columns = ["place", "name", "score"]
        columns += ["spread"] * with_views + ["error"] * failed
        rows = [
            [place, *(getattr(one, name) for name in columns[1:])]
            for place, one in enumerate(self, start=1)
        ]
        title = f"{self[0].prompt} ({self.model}: {self.unit})" if self else "nothing was ranked"
        table = Table(columns=columns, rows=rows, number_format=".4f")
        return pictures_html(title, self._pictures()) + table.html()

    def _pictures(self) -> Iterator[tuple[Image.Image, str]]:
        """The best ones, in order, as far as they can be read again."""
        wanted = {one.index: one for one in self[:PICTURES] if not math.isnan(one.score)}
        found: dict[int, Image.Image] = {}
        with suppress(ImageError):  # nothing is there any more
            for source in iter_sources(self._images) if wanted and self._images is not None else ():
                one = wanted.get(source.index)
                if one is not None and source.name == one.name and not is_url(one.name):
                    with suppress(ImageError):  # changed since then; the table has its score
                        found[source.index] = _picture(decode(source))
                if source.index >= max(wanted):
                    break
        for place, one in enumerate(self, start=1):
            if one.index in found:
                yield found[one.index], f"{place}: {one.score:.4f}"


def _picture(pixels: Image.Image | torch.Tensor) -> Image.Image:
    if isinstance(pixels, Image.Image):
        return pixels
    whole = (pixels * 255).round().to(torch.uint8)  # float32 in [0, 1]
    return Image.fromarray(rearrange(whole, "c h w -> h w c").cpu().numpy())


def _row(one: Scored) -> dict[str, object]:
    return {name: getattr(one, name) for name in _COLUMNS}


def _readable_again(images: object) -> bool:
    """Whether walking through it a second time finds the same images in the same places."""
    if isinstance(images, list | tuple):
        return all(map(_readable_again, images))
    if isinstance(images, str):
        return not is_url(images)
    return isinstance(images, os.PathLike | bytes | Image.Image | np.ndarray | torch.Tensor)
