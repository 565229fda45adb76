"""Pictures as a vision-language model's own processor prepares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from PIL import Image
from torch import Tensor, nn

from stablepref.images.eight_bit import eight_bit_views
from stablepref.preprocess.patches import PatchPreprocess, PatchProtocol
from stablepref.preprocess.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.models.vqa.conversation import Conversation
    from stablepref.preprocess.patches import Patches

_UTILS_TOKENS = (4, 16384)
"""Fewest and most tokens of an image in qwen_vl_utils (vision_process.py)."""


@final
class VisionPreprocess(nn.Module):
    """The image processor of a model, and for those of Qwen-VL and CLIP its differentiable form.

    Where both forms below are None, float pixels are rounded to 8 bits and no gradient passes.

    Attributes:
        protocol: The processor's class, such as "Qwen2VLImageProcessor".
        patches: The differentiable form of processors of Qwen-VL.
        square: That of CLIP's, which LLaVA has: the shortest side is resized, the centre cropped.

    Args:
        conversation: With the processor.
        resize_first: Resize by Pillow before the processor, as qwen_vl_utils does, so that the
            processor has nothing to resize; for processors of Qwen-VL.

    Raises:
        ValueError: `resize_first` is asked for with another processor.
    """

    def __init__(self, conversation: Conversation, *, resize_first: bool = False) -> None:
        super().__init__()
        processor = conversation.processor.image_processor
        self.protocol = type(processor).__name__
        self.conversation = conversation
        self.patches = _patches_of(processor, self.protocol)
        self.square = _square_of(processor, self.protocol)
        if resize_first and self.patches is None:
            msg = (
                f"the image processor is a {self.protocol}; expected that of a Qwen-VL model, for "
                "which t2v_metrics resizes pictures beforehand"
            )
            raise ValueError(msg)
        self._first = _utils_protocol(self.patches.details) if resize_first else None  # type: ignore[union-attr] # it is there

    def exact(self, image: Image.Image) -> dict[str, Tensor]:
        """The inputs of one PIL image of mode RGB, as the model's own processor makes them.

        Raises:
            ValueError: The processor cannot use the picture.
        """
        if self._first is not None:
            height, width = self._first.fit(image.height, image.width)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return self.conversation.image(image)

    def forward(
        self,
        pixels: Tensor | Sequence[Tensor],
        boxes: Tensor | None = None,
        hflip: Tensor | None = None,
    ) -> list[Any]:
        """Inputs of float pictures in [0, 1], or of views of them.

        Args:
            pixels: `(batch, 3, H, W)`, or a sequence of `(3, H_i, W_i)`.
            boxes: `(batch, views, 4)`: left, top, right and bottom of each view, as fractions.
            hflip: Bool `(batch, views)`: which views are mirrored.

        Returns:
            For each picture its inputs; with boxes or flips for each picture those of each view.

        Raises:
            TypeError: A gradient is asked for, and the processor has no differentiable form here.
            ValueError: A shape is wrong, or a picture is too long and narrow.
        """
        device = pixels[0].device
        found: Sequence[Any]
        if self.patches is not None:
            found = self.patches(pixels, boxes, hflip)
            return _each(found, lambda one: self._of_patches(one, device))
        if self.square is not None:
            squares = self.square(pixels, boxes, hflip)
            found = list(squares) if squares.ndim == 4 else [list(one) for one in squares]
            return _each(found, lambda one: self._of_square(one, device))
        if torch.is_grad_enabled() and any(picture.requires_grad for picture in pixels):
            msg = (
                f"{self.protocol} works on 8-bit pictures, so there is no gradient to the pixels; "
                "those of Qwen2-VL, Qwen2.5-VL, Qwen3-VL and LLaVA have a differentiable form here"
            )
            raise TypeError(msg)
        found = eight_bit_views(pixels, boxes, hflip)
        return _each(found, lambda one: _moved(self.conversation.image(one), device))

    def _of_square(self, square: Tensor, device: torch.device) -> dict[str, Tensor]:
        """The inputs of a prepared square: their tokens are those of any picture."""
        blank = self.conversation.image(Image.new("RGB", (square.shape[-2], square.shape[-1])))
        inputs = {name: blank[name] for name in ("ids", "types")}
        return {"pixel_values": square[None], **_moved(inputs, device)}

    def _of_patches(self, patches: Patches, device: torch.device) -> dict[str, Tensor]:
        assert self.patches is not None
        tokens = patches.rows * patches.columns // self.patches.details.merge**2
        ids, types = self.conversation.tokens_of_image(tokens)
        grid = torch.tensor([[1, patches.rows, patches.columns]])
        inputs = {"ids": ids, "types": types, "image_grid_thw": grid}
        return {"pixel_values": patches.values, **_moved(inputs, device)}


def _each(found: Sequence[Any], function: Any) -> list[Any]:  # noqa: ANN401 - one input to another
    return [list(map(function, one)) if isinstance(one, list) else function(one) for one in found]


def _moved(inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in inputs.items()}


def _patches_of(processor: Any, name: str) -> PatchPreprocess | None:  # noqa: ANN401 - transformers'
    """The differentiable form of a processor of Qwen-VL, with that processor's numbers."""
    if not name.startswith("Qwen2VLImageProcessor"):
        return None
    size = dict(processor.size)
    return PatchPreprocess(
        name,
        PatchProtocol(
            min_pixels=size["shortest_edge"],
            max_pixels=size["longest_edge"],
            patch=processor.patch_size,
            merge=processor.merge_size,
            frames=processor.temporal_patch_size,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
        ),
    )


def _square_of(processor: Any, name: str) -> Preprocess | None:  # noqa: ANN401 - transformers'
    """The differentiable form of CLIP's processor, where it makes squares of all pictures."""
    if not name.startswith("CLIPImageProcessor"):
        return None
    size, crop = dict(processor.size), dict(processor.crop_size)
    side = size.get("shortest_edge")
    steps = (processor.do_resize, processor.do_center_crop, processor.do_normalize)
    if side is None or not all(steps) or {crop.get("height"), crop.get("width")} != {side}:
        return None
    if int(processor.resample) != Image.Resampling.BICUBIC:
        return None
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    return Preprocess("pickscore", side, mean=mean, std=std)


def _utils_protocol(own: PatchProtocol) -> PatchProtocol:
    """How qwen_vl_utils sizes pictures that a processor with these patches is given."""
    fewest, most = (tokens * own.factor**2 for tokens in _UTILS_TOKENS)
    return PatchProtocol(fewest, most, patch=own.patch, merge=own.merge, rule="qwen-vl-utils")
