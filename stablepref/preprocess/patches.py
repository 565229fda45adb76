"""Pictures as the patches that a Qwen-VL vision tower reads, exact and differentiable.

Unlike the protocols for equal squares, a picture keeps its shape: both sides are rounded to whole
tokens so that their product lies within bounds, and the picture is resized to that, cut into
patches, and each patch is shown twice, as the two frames of a still film. The table of the
protocols is `PATCH_PROTOCOLS`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, Self, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from stablepref.preprocess.pictures import check_pictures, corners
from stablepref.preprocess.protocols import CLIP_MEAN, CLIP_STD
from stablepref.preprocess.resample import Axis, apply_weights, weight_matrices

MOST_RATIO = 200
"""Longest to shortest side that Qwen's code accepts."""
ROUNDING = 1e-9
"""In tokens; undoes rounding errors in the sides of fractional views."""


@final
@dataclass(frozen=True)
class PatchProtocol:
    """How pictures become patches.

    Attributes:
        min_pixels: Fewest pixels of the resized picture, but for rounding.
        max_pixels: Most pixels of the resized picture.
        patch: Side of a patch in pixels.
        merge: Patches along each side of a token.
        frames: How often each picture is shown.
        mean: Mean of each RGB channel, subtracted first.
        std: Standard deviation of each RGB channel, divided by afterwards.
        rule: "transformers" resizes once, as transformers' image processors do; "qwen-vl-utils" is
            that package's rule and then the processor's, with wide bounds: the second changes
            nothing, and refuses what is too long and narrow after the first.
    """

    min_pixels: int
    max_pixels: int
    patch: int = 14
    merge: int = 2
    frames: int = 2
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    rule: Literal["transformers", "qwen-vl-utils"] = "transformers"

    @property
    def factor(self) -> int:
        """Side of a token in pixels."""
        return self.patch * self.merge

    @property
    def width(self) -> int:
        """Numbers in a patch."""
        return 3 * self.frames * self.patch**2

    @property
    def most_tokens(self) -> int:
        """Tokens that no picture exceeds.

        A side is rounded up where a picture is enlarged. Most tokens come of a side that is a
        little longer than k tokens, for some k from that of the most extreme ratio.
        """
        enough = self.min_pixels / self.factor**2
        shortest = math.sqrt(enough / MOST_RATIO)
        enlarged = (
            (k + 1) * math.ceil(enough / max(k, shortest))
            for k in range(int(shortest), math.isqrt(math.ceil(enough)) + 1)
        )
        return max(self.max_pixels // self.factor**2, *enlarged)

    def fit(self, height: float, width: float) -> tuple[int, int]:
        """Sides in pixels to which a picture or a view of these sides is resized.

        The arithmetic is that of `smart_resize` in qwen_vl_utils (as HPSv3 1.0.0 has it) and in
        transformers, step by step, so that whole sides give the same numbers.

        Raises:
            ValueError: The picture is too long and narrow.
        """
        factor = self.factor
        if max(height, width) / min(height, width) > MOST_RATIO:
            raise ValueError(
                f"a picture of {width:g} x {height:g} is too long and narrow: the longer side may "
                f"be {MOST_RATIO} times the shorter; crop it to a shape closer to a square first"
            )
        slack = 0.0 if float(height).is_integer() and float(width).is_integer() else ROUNDING
        utils = self.rule == "qwen-vl-utils"
        rounded = [round(side / factor) * factor for side in (height, width)]
        if utils:
            rounded = [max(factor, side) for side in rounded]
        if math.prod(rounded) > self.max_pixels:
            scale = math.sqrt((height * width) / self.max_pixels)
            rounded = [
                math.floor(side / scale / factor + slack) * factor for side in (height, width)
            ]
            if not utils:
                rounded = [max(factor, side) for side in rounded]
        elif math.prod(rounded) < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (height * width))
            rounded = [
                math.ceil(side * scale / factor - slack) * factor for side in (height, width)
            ]
        if utils and max(rounded) > MOST_RATIO * min(rounded):
            raise ValueError(
                f"a picture of {width:g} x {height:g} would be resized to {rounded[1]} x "
                f"{rounded[0]}, which is too long and narrow; crop it to a shape closer to a "
                "square first"
            )
        return rounded[0], rounded[1]


PATCH_PROTOCOLS = MappingProxyType(
    {
        # hpsv3 1.0.0, dataset/utils.py and inference.py: both bounds are 256 tokens.
        "hps-v3": PatchProtocol(256 * 28 * 28, 256 * 28 * 28, rule="qwen-vl-utils"),
        # The processor of Qwen2-VL and Qwen2.5-VL by itself.
        "qwen2-vl": PatchProtocol(4 * 28 * 28, 16384 * 28 * 28),
    }
)


class Patches(NamedTuple):
    """One picture.

    Attributes:
        values: Its patches, `(rows * columns, width)`, token by token: the patches of a token
            stand together.
        rows: Patches from top to bottom.
        columns: Patches from left to right.
    """

    values: Tensor
    rows: int
    columns: int


class PatchBatch(NamedTuple):
    """Several pictures, as vision towers of transformers take them.

    Attributes:
        values: The patches of all pictures, one picture after another, `(sum, width)`.
        grid: int64 `(pictures, 3)`: 1, rows and columns of each, on the CPU.
    """

    values: Tensor
    grid: Tensor


def join_patches(pictures: Sequence[Patches]) -> PatchBatch:
    """A batch out of the patches of several pictures of any sizes."""
    grid = torch.tensor([(1, one.rows, one.columns) for one in pictures], device="cpu")
    return PatchBatch(torch.cat([one.values for one in pictures]), grid)


def cut_patches(pictures: Tensor, protocol: PatchProtocol) -> list[Patches]:
    """The patches of resized and normalised pictures `(n, 3, H, W)` of one size."""
    patch, merge = protocol.patch, protocol.merge
    rows, columns = pictures.shape[-2] // patch, pictures.shape[-1] // patch
    blocks = pictures.reshape(
        len(pictures), 3, rows // merge, merge, patch, columns // merge, merge, patch
    ).permute(0, 2, 5, 3, 6, 1, 4, 7)
    shown = blocks.unsqueeze(6).expand(*blocks.shape[:6], protocol.frames, patch, patch)
    values = shown.reshape(len(pictures), rows * columns, protocol.width)
    return [Patches(one, rows, columns) for one in values]


@final
class PatchPreprocess(nn.Module):
    """One patch protocol, in its exact and its differentiable form.

    Attributes:
        protocol: A name of `PATCH_PROTOCOLS`, or what the caller calls its own protocol.
        details: The protocol itself.
        mean: Mean of each RGB channel, subtracted first; float32 ``(3, 1, 1)``.
        std: Standard deviation of each RGB channel, divided by afterwards; as ``mean``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, protocol: str, details: PatchProtocol | None = None) -> None:
        """Choose the protocol.

        Args:
            protocol: Its name.
            details: The protocol, if it is not one of `PATCH_PROTOCOLS`.

        Raises:
            ValueError: There is no protocol of this name, and none is given.
        """
        super().__init__()
        if details is None and protocol not in PATCH_PROTOCOLS:
            known = ", ".join(sorted(PATCH_PROTOCOLS))
            raise ValueError(f"unknown patch protocol {protocol!r}; known are: {known}")
        self.protocol = protocol
        self.details = PATCH_PROTOCOLS[protocol] if details is None else details
        shape = (3, 1, 1)
        self._mean = torch.tensor(self.details.mean, dtype=torch.float32, device="cpu").view(shape)
        self._std = torch.tensor(self.details.std, dtype=torch.float32, device="cpu").view(shape)
        self.register_buffer("mean", self._mean.clone(), persistent=False)
        self.register_buffer("std", self._std.clone(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the model's device, but keep the constants exact when it turns to bf16."""
        super()._apply(fn, recurse)
        self.mean = self._mean.to(self.mean.device, copy=True)
        self.std = self._std.to(self.std.device, copy=True)
        return self

    def extra_repr(self) -> str:
        """The protocol, for the printed module tree."""
        return repr(self.protocol)

    def exact(self, image: Image.Image) -> Patches:
        """The patches of one PIL image, bit for bit as the official code's.

        Pillow resizes; values are scaled in float64, rounded to float32 and normalised there, as
        transformers' processors on Pillow do. Safe to call from many threads at once.

        Args:
            image: A PIL image of mode RGB.

        Returns:
            float32 patches, on the CPU.

        Raises:
            TypeError: If ``image`` is not a PIL image.
            ValueError: If its mode is not RGB, it has no pixels, or it is too long and narrow.
        """
        if not isinstance(image, Image.Image):
            raise TypeError(f"got {type(image).__name__}; expected a PIL image (tensors: forward)")
        if image.mode != "RGB":
            raise ValueError(f"got a PIL image of mode {image.mode}; convert it to RGB first")
        width, height = image.size
        if not width or not height:
            raise ValueError(f"got a PIL image of {width} x {height}: it has no pixels")
        rows, columns = self.details.fit(height, width)
        resized = np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))
        scaled = torch.from_numpy(
            (resized.astype(np.float64) * (1 / 255)).astype(np.float32)
        ).permute(2, 0, 1)
        return cut_patches(((scaled - self._mean) / self._std)[None], self.details)[0]

    def forward(
        self,
        pixels: Tensor | Sequence[Tensor],
        boxes: Tensor | None = None,
        hflip: Tensor | None = None,
    ) -> list[Patches] | list[list[Patches]]:
        """The patches of pictures, or of views of them; differentiable in the pixels.

        A view is a crop, mirrored or not, that then goes through the whole protocol as if it were
        the picture. Computed in float32, or in float64 for float64 pixels, autocast or not.

        Args:
            pixels: RGB in [0, 1]: a float tensor ``(batch, 3, H, W)``, or a sequence of tensors
                ``(3, H_i, W_i)`` of any sizes, of one dtype and on one device.
            boxes: Tensor ``(batch, views, 4)``: left, top, right and bottom of each view as
                fractions of the picture's width and height. No gradient flows to it.
            hflip: Bool tensor ``(batch, views)``: which views are mirrored left to right; without
                ``boxes``, each view is the whole picture.

        Returns:
            Of each picture its patches; with boxes or flips a list of those of its views.

        Raises:
            TypeError: If pixels are not floating point.
            ValueError: If a shape is wrong, there are no pictures or no pixels, a box is empty or
                leaves the picture, or a picture or view is too long and narrow.
        """
        sides = check_pictures(pixels)
        low, high = corners(sides, boxes, hflip, batch=len(sides))
        flips = torch.zeros(low.shape[:2], dtype=torch.bool, device="cpu")
        if boxes is None and hflip is None:
            if isinstance(pixels, Tensor):  # of one size: resized together
                return self._views(pixels, low[:1], high[:1], flips[:1])
            parts = [slice(i, i + 1) for i in range(len(sides))]
            return [
                self._views(picture[None], low[part], high[part], flips[part])[0]
                for part, picture in zip(parts, pixels, strict=True)
            ]
        if hflip is not None:
            flips = hflip.detach().to("cpu")
        viewed = []
        for index, picture in enumerate(pixels):
            part = slice(index, index + 1)
            viewed.append(self._views(picture[None], low[part], high[part], flips[part]))
        return viewed

    def _views(self, pixels: Tensor, low: Tensor, high: Tensor, flip: Tensor) -> list[Patches]:
        """Patches of pictures of one size in one view, or of one picture in several.

        Args:
            pixels: `(batch, 3, H, W)`; `batch` or the number of views is 1.
            low: Upper left corners, `(1, views, 2)`.
            high: Lower right corners, `(1, views, 2)`.
            flip: Which views are mirrored, `(1, views)`.
        """
        sizes: dict[tuple[int, int], list[int]] = {}
        for view, (height, width) in enumerate((high - low)[0].tolist()):
            sizes.setdefault(self.details.fit(height, width), []).append(view)
        cut: dict[int, Patches] = {}
        dtype = torch.float64 if pixels.dtype == torch.float64 else torch.float32
        never = torch.zeros_like(flip[0])
        for size, views in sizes.items():
            axes = [
                Axis(
                    low[0, views, along],
                    high[0, views, along],
                    torch.full((len(views),), size[along], dtype=torch.float64, device="cpu"),
                    torch.zeros(len(views), dtype=torch.float64, device="cpu"),
                    (flip[0] if along else never)[views],
                )
                for along in (0, 1)
            ]
            with torch.autocast(pixels.device.type, enabled=False):
                rows, columns = (
                    weight_matrices(
                        axis,
                        size[along],
                        (0, pixels.shape[2 + along]),
                        dtype=dtype,
                        device=pixels.device,
                    )[None]
                    for along, axis in enumerate(axes)
                )
                resized = apply_weights(pixels.to(dtype), rows, columns, clamp=True)
                normalised = (resized - self.mean) / self.std
            if len(views) > 1 or len(pixels) == 1:
                cut.update(zip(views, cut_patches(normalised[0], self.details), strict=True))
            else:
                return cut_patches(normalised[:, 0], self.details)
        return [cut[view] for view in range(len(cut))]
