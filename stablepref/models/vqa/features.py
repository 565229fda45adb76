"""What a vision tower made of images, as one tensor, and back.

Each image is a row of positions of the conversation up to and with the image: token ids, their
types, and where a token stands for a part of the image the features that take its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, final

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

HEADER = 1
"""Rows of an image's block before its positions."""


@final
@dataclass(frozen=True)
class EncodedImage:
    """One image as a model reads it.

    Attributes:
        ids: Token ids `(positions,)` of the conversation up to the image's last token.
        types: The type of each, `(positions,)`: 1 for parts of the image where the model asks.
        grid: Frames, rows and columns of patches, `(3,)`, all 0 for models without such a grid.
        levels: Features of the image's tokens `(tokens, width)`: what the vision tower gives
            first, then what goes to inner layers (DeepStack), if anything does.
    """

    ids: Tensor
    types: Tensor
    grid: Tensor
    levels: tuple[Tensor, ...]


def pack(images: Sequence[EncodedImage], image_token: int) -> Tensor:
    """Images as one tensor `(batch, 1 + positions, 2 + levels x width)`, shorter ones padded.

    float32 (float64 for float64 features), in which token ids and features of 16 bits are exact.
    """
    dtype = torch.float64 if images[0].levels[0].dtype == torch.float64 else torch.float32
    longest = max(len(image.ids) for image in images)
    blocks = []
    for image in images:
        values = torch.cat(image.levels, dim=-1).to(dtype)
        own = image.ids == image_token
        columns = torch.stack([image.ids, image.types], dim=1).to(dtype)
        spread = values.new_zeros(len(own), values.shape[1]).index_put(
            (own.nonzero()[:, 0],), values
        )
        rows = torch.cat([columns, spread], dim=1)
        header = rows.new_zeros(HEADER, rows.shape[1])
        header[0, :4] = torch.tensor([len(own), *image.grid.tolist()], dtype=dtype)
        blocks.append(functional.pad(torch.cat([header, rows]), (0, 0, 0, longest - len(own))))
    return torch.stack(blocks)


def unpack(features: Tensor, image_token: int, levels: int) -> list[EncodedImage]:
    """The images of `pack`."""
    images = []
    for block in features:
        count, *grid = block[0, :4].long().tolist()
        rows = block[HEADER : HEADER + count]
        ids, types = rows[:, 0].long(), rows[:, 1].long()
        values = rows[ids == image_token, 2:]
        images.append(
            EncodedImage(ids, types, torch.tensor(grid), tuple(values.chunk(levels, dim=1)))
        )
    return images


@final
class Encoded:
    """What stands for pixels where a model's features are there already; see `takes_encoded`."""

    def __init__(self, images: Sequence[EncodedImage], dtype: torch.dtype) -> None:
        first, *deep = zip(*(image.levels for image in images), strict=True)
        self.output = SimpleNamespace(
            pooler_output=[one.to(dtype) for one in first],
            deepstack_features=[[one.to(dtype) for one in level] for level in deep],
        )


def takes_encoded(
    own: Callable[..., Any],
    pixel_values: object,
    *args: object,
    **kwargs: object,
) -> Any:  # noqa: ANN401 - transformers' output, or what stands for it
    """A model's `get_image_features`, which gives back features that are there already."""
    return (
        pixel_values.output
        if isinstance(pixel_values, Encoded)
        else own(pixel_values, *args, **kwargs)
    )
