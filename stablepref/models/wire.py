"""Images and prompts as bytes between a scorer elsewhere and the server that has its weights.

A request is one safetensors file, which holds numbers and text only and is read without running
anything. Its tensors are 8-bit pictures for a model's exact preprocessing, and float pixels, with
their weak views, for its differentiable one: the server calls the model's preprocessing with what
it would have been called with here, so that scores are equal to the last bit.

- `picture.K`, uint8 `(H, W, 3)`: an upright, opaque RGB picture.
- `pixels.K`, float `(n, 3, H, W)` in [0, 1], or uint8, which stands for value / 255; with
  `boxes.K`, float `(n, views, 4)`, and `hflip.K`, bool `(n, views)`, as `Preprocessing` has them.
- `pieces.K`, uint8 `(1, 3, H, W)`: a large picture, of which each view is made by itself.
- The metadata `request` is JSON: `prompts`, strings, and `rows`, one `[kind, K, row, view, prompt]`
  for each score that is asked for; `row` and `view` are null where they have no meaning.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from stablepref.runtime.bounded_json import loads
from stablepref.scoring.batching import views_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stablepref.scoring.contract import Preprocessing

MEDIA_TYPE: Final = "application/x-safetensors"
PICTURE: Final = "picture"
PIXELS: Final = "pixels"
PIECES: Final = "pieces"
FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@final
@dataclass(frozen=True, eq=False)
class Pixels:
    """What a preprocessing is called with: float pixels of equal size, and perhaps their views.

    Attributes:
        pixels: `(n, 3, H, W)` in [0, 1].
        boxes: `(n, views, 4)`, or None.
        hflip: Bool `(n, views)`, or None.
        pieces: Whether they are the 8-bit levels of one picture whose views are made one by one.
    """

    pixels: Tensor
    boxes: Tensor | None = None
    hflip: Tensor | None = None
    pieces: bool = False

    def count(self) -> int:
        """Pictures that a preprocessing makes of them."""
        views = [t.shape[1] for t in (self.boxes, self.hflip) if t is not None]
        return len(self.pixels) * max([1, *views])


@final
@dataclass(frozen=True, eq=False)
class Place:
    """One picture of a `Pixels`, or one view of it."""

    pixels: Pixels
    row: int
    view: int | None = None


class Row(NamedTuple):
    """One score that is asked for: of which picture or pixels, under which prompt."""

    kind: str
    number: int
    row: int | None
    view: int | None
    prompt: int


@final
@dataclass(frozen=True)
class Request:
    """A request as it arrived.

    Attributes:
        pictures: By their number.
        pixels: By their number.
        prompts: Strings.
        rows: In the order of the scores.
    """

    pictures: Mapping[int, Image.Image]
    pixels: Mapping[int, Pixels]
    prompts: Sequence[str]
    rows: Sequence[Row]

    def views(self) -> int:
        """Pictures that a preprocessing makes of all pixels, whether rows name them or not."""
        return sum(one.count() for one in self.pixels.values())

    def only(self, rows: Sequence[Row]) -> Request:
        """The request for some of its rows, with the pictures and pixels that these need."""
        needed = {(row.kind, row.number) for row in rows}
        return Request(
            {n: one for n, one in self.pictures.items() if (PICTURE, n) in needed},
            {n: one for n, one in self.pixels.items() if (PIXELS, n) in needed},
            self.prompts,
            rows,
        )


@final
class Deferred(nn.Module):
    """A preprocessing that only notes what it was called with: the server does the rest."""

    def __init__(self, protocol: str) -> None:
        super().__init__()
        self.protocol = protocol

    def exact(self, image: Image.Image) -> Image.Image:
        """The image itself."""
        return image

    def views(self, image: Image.Image, boxes: Tensor, hflip: Tensor) -> list[Place]:
        """The places of a large picture's views."""
        levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        call = Pixels(levels[None], boxes[None], hflip[None], pieces=True)
        return [Place(call, 0, view) for view in range(len(boxes))]

    def forward(
        self,
        pixels: Tensor | Sequence[Tensor],
        boxes: Tensor | None = None,
        hflip: Tensor | None = None,
    ) -> list[Any]:
        """A `Place` for each picture; with boxes or flips the list of its views' places."""
        if isinstance(pixels, Tensor):
            call = Pixels(pixels, boxes, hflip)
            calls = [(call, row) for row in range(len(pixels))]
        else:
            calls = [
                (Pixels(one[None], _row(boxes, row), _row(hflip, row)), 0)
                for row, one in enumerate(pixels)
            ]
        views = next((t.shape[1] for t in (boxes, hflip) if t is not None), None)
        if views is None:
            return [Place(call, row) for call, row in calls]
        return [[Place(call, row, view) for view in range(views)] for call, row in calls]


@final
@dataclass
class _Packed:
    """Tensors and rows of a request in the making."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)

    def number(self, part: Image.Image | Pixels) -> int:
        """The number of a picture or pixels, which are taken in once."""
        if id(part) not in self.numbers:
            number = self.numbers[id(part)] = len(self.numbers)
            if isinstance(part, Image.Image):
                levels = torch.from_numpy(np.array(part.convert("RGB")))
                self.tensors[f"{PICTURE}.{number}"] = levels
            else:
                kind = PIECES if part.pieces else PIXELS
                self.tensors[f"{kind}.{number}"] = _compact(part.pixels.detach().cpu())
                for name, tensor in (("boxes", part.boxes), ("hflip", part.hflip)):
                    if tensor is not None:
                        self.tensors[f"{name}.{number}"] = tensor.detach().cpu().clone()
        return self.numbers[id(part)]


def pack(inputs: Sequence[Image.Image | Place], prompts: Sequence[str]) -> bytes:
    """A request for the scores of inputs that `Deferred` made, each under its prompt."""
    packed = _Packed()
    distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    rows = []
    for one, prompt in zip(inputs, prompts, strict=True):
        if isinstance(one, Place):
            row = Row(PIXELS, packed.number(one.pixels), one.row, one.view, distinct[prompt])
        else:
            row = Row(PICTURE, packed.number(one), None, None, distinct[prompt])
        rows.append(row)
    request = json.dumps({"prompts": list(distinct), "rows": rows})
    return safetensors.torch.save(packed.tensors, metadata={"request": request})


def size_of(one: Image.Image | Place) -> int:
    """Bytes that an input adds to a request, at most, where nothing of it is shared."""
    if isinstance(one, Place):
        pixels = one.pixels.pixels
        return pixels.numel() * pixels.element_size()
    return 3 * one.width * one.height


def unpack(data: bytes) -> Request:
    """The request in bytes that `pack` made, or that pretend to be such.

    Raises:
        ValueError: They are not such a request; the message says what is wrong with them.
    """
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        told = loads(loads(data[8 : 8 + length])["__metadata__"]["request"])
        prompts, rows = told["prompts"], [Row(*row) for row in told["rows"]]
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError) as e:
        msg = f"the body is not a safetensors file with the metadata `request`: {e!r:.200}"
        raise ValueError(msg) from e
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        msg = "the request's `prompts` must be a list of strings"
        raise ValueError(msg)
    pictures, pixels = {}, {}
    for name, tensor in tensors.items():
        kind, _, number = name.partition(".")
        if not number.isascii() or not number.isdigit():
            msg = f"the tensor {name!r:.80} is not called KIND.NUMBER"
            raise ValueError(msg)
        if kind == PICTURE:
            pictures[int(number)] = _picture(name, tensor)
        elif kind in (PIXELS, PIECES):
            views = (tensors.get(f"boxes.{number}"), tensors.get(f"hflip.{number}"))
            found = _pixels(name, tensor, *views)
            pixels[int(number)] = found if kind == PIXELS else _in_pieces(name, found)
    for row in rows:
        _check_row(row, pictures, pixels, len(prompts))
    return Request(pictures, pixels, prompts, rows)


def prepare(request: Request, preprocess: Preprocessing, device: torch.device) -> list[Any]:
    """The model's inputs for each row; a row whose picture it cannot take has a ValueError.

    Args:
        request: What arrived.
        preprocess: The model's.
        device: Where its inputs are expected.
    """
    exact = {number: _exact(preprocess, one) for number, one in request.pictures.items()}
    soft: dict[int, Any] = {}
    for number, one in request.pixels.items():
        views = (None if t is None else t.to(device) for t in (one.boxes, one.hflip))
        if one.pieces:
            soft[number] = [_views_of(preprocess, one)]
            continue
        pixels = one.pixels.to(device)
        pixels = pixels if pixels.is_floating_point() else pixels.float() / 255
        soft[number] = preprocess(pixels, *views)
    inputs = []
    for row in request.rows:
        if row.kind == PICTURE:
            inputs.append(exact[row.number])
        else:
            assert row.row is not None
            found = soft[row.number][row.row]
            inputs.append(found if row.view is None else found[row.view])
    return inputs


def _exact(preprocess: Preprocessing, image: Image.Image) -> object:
    try:
        return preprocess.exact(image)
    except ValueError as error:
        return error


def _views_of(preprocess: Preprocessing, one: Pixels) -> Sequence[Any]:
    """The inputs of each view of a large picture, as scoring in this process makes them."""
    assert one.boxes is not None
    assert one.hflip is not None
    image = Image.fromarray(one.pixels[0].permute(1, 2, 0).contiguous().numpy())
    return views_of(preprocess, image, one.boxes[0], one.hflip[0])


def _in_pieces(name: str, found: Pixels) -> Pixels:
    """Checked pixels as those of one picture whose views are made one by one.

    Raises:
        ValueError: They are not the levels of one picture, or its views are missing.
    """
    levels = found.pixels.dtype == torch.uint8 and len(found.pixels) == 1
    if not levels or found.boxes is None or found.hflip is None:
        msg = f"{name} must be uint8 (1, 3, H, W), with boxes and hflip of its views"
        raise ValueError(msg)
    return replace(found, pieces=True)


def _compact(pixels: Tensor) -> Tensor:
    """The pixels, as 8-bit levels where they are exactly that many 255ths."""
    if pixels.dtype == torch.float32:
        levels = (pixels * 255).round().clamp(0, 255).byte()
        if torch.equal(levels.float() / 255, pixels):
            return levels.contiguous()
    return pixels.contiguous().clone()  # safetensors takes no two parts of one memory


def _picture(name: str, tensor: Tensor) -> Image.Image:
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[2] != 3 or not len(tensor):
        msg = f"{name} is {tensor.dtype} {tuple(tensor.shape)}; expected uint8 (H, W, 3)"
        raise ValueError(msg)
    if not tensor.shape[1]:
        msg = f"{name} has no pixels: {tuple(tensor.shape)}"
        raise ValueError(msg)
    return Image.fromarray(tensor.numpy())


def _pixels(name: str, pixels: Tensor, boxes: Tensor | None, hflip: Tensor | None) -> Pixels:
    """The checked arguments of one call of a preprocessing."""
    shape = tuple(pixels.shape)
    good = pixels.dtype in (torch.uint8, *FLOATS) and pixels.ndim == 4 and shape[1] == 3
    if not good or 0 in shape:
        msg = f"{name} is {pixels.dtype} {shape}; expected uint8 or float (n, 3, H, W)"
        raise ValueError(msg)
    if pixels.is_floating_point():
        low, high = (value.item() for value in torch.aminmax(pixels.float()))
        if not (low >= -1e-4 and high <= 1 + 1e-4):  # NaN is not either
            msg = f"{name} has values from {low:.6g} to {high:.6g}; expected [0, 1]"
            raise ValueError(msg)
    for what, views, rank in (("boxes", boxes, 3), ("hflip", hflip, 2)):
        if views is not None and (views.ndim != rank or len(views) != shape[0]):
            msg = f"the {what} of {name} have shape {tuple(views.shape)}"
            raise ValueError(msg)
    if boxes is not None:
        left, top, right, bottom = boxes.double().unbind(-1) if boxes.shape[2] == 4 else [boxes] * 4
        inside = (left >= 0) & (top >= 0) & (right <= 1) & (bottom <= 1)
        if boxes.shape[2] != 4 or not bool((inside & (left < right) & (top < bottom)).all()):
            msg = f"the boxes of {name} must be left < right and top < bottom in [0, 1]"
            raise ValueError(msg)
    if hflip is not None and (
        hflip.dtype != torch.bool or (boxes is not None and boxes.shape[:2] != hflip.shape)
    ):
        msg = f"the hflip of {name} must be bool, and of as many views as the boxes"
        raise ValueError(msg)
    return Pixels(pixels, boxes, hflip)


def _check_row(
    row: Row, pictures: Mapping[int, object], pixels: Mapping[int, Pixels], prompts: int
) -> None:
    """Refuse a row that points to nothing.

    Raises:
        ValueError: It does.
    """
    good = _below(row.prompt, prompts)
    if row.kind == PICTURE:
        good &= _below(row.number) and row.number in pictures
    elif row.kind == PIXELS and _below(row.number) and row.number in pixels:
        call = pixels[row.number]
        views = next((t.shape[1] for t in (call.boxes, call.hflip) if t is not None), None)
        good &= _below(row.row, len(call.pixels))
        good &= row.view is None if views is None else _below(row.view, views)
    else:
        good = False
    if not good:
        msg = f"the row {list(row)!r:.120} points to a picture, view or prompt that is not there"
        raise ValueError(msg)


def _below(number: object, end: int | None = None) -> bool:
    whole = isinstance(number, int) and not isinstance(number, bool) and number >= 0
    return whole and (end is None or number < end)  # type: ignore[operator] # it is whole


def _row(values: Tensor | None, row: int) -> Tensor | None:
    return None if values is None else values[[row]]
