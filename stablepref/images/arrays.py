"""One array or tensor to a picture: uint8 to a PIL image, floats to a float tensor."""

import numpy as np
import torch
from PIL import Image

from stablepref.images.rgb import check_unit_range, from_levels, over_white
from stablepref.images.sources import UnusableImageError

_GREY, _RGB, _RGBA = 1, 3, 4
_CHANNELS = (_GREY, _RGB, _RGBA)
_ARRAYS = "(H, W, 3), or a batch (N, H, W, 3); 1 or 4 channels or a grey (H, W) will do too"
_TENSORS = "(3, H, W), or a batch (N, 3, H, W); 1 or 4 channels will do too"


def from_array(array: np.ndarray) -> Image.Image | torch.Tensor:
    """Read a numpy array, channels last.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, or float in [0, 1]. The fourth
            channel is alpha (not premultiplied) and is laid over white. Not modified.

    Returns:
        An RGB image for uint8; a float32 tensor (3, H, W) in [0, 1] on the CPU for floats. Both
        are copies.

    Raises:
        UnusableImageError: wrong rank, channels, size, dtype or values.
    """
    _check_dtype(str(array.dtype), is_float=array.dtype.kind == "f")
    shape = array.shape
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        message = f"a numpy image has shape {_ARRAYS}; got rank {len(shape)}, shape {shape}"
        raise UnusableImageError(message)
    if array.shape[-1] not in _CHANNELS:
        advice = ""
        if array.shape[0] in _CHANNELS:
            advice = "; its channels come first: use np.moveaxis(image, -3, -1)"
        message = f"a numpy image has shape {_ARRAYS}; got {shape}{advice}"
        raise UnusableImageError(message)
    _check_size(shape)
    if array.dtype == np.uint8:
        return _to_picture(array)
    check_unit_range(float(array.min()), float(array.max()))
    planes = np.array(np.moveaxis(array, -1, 0), dtype=np.float32, order="C")
    return _to_unit_rgb(torch.from_numpy(planes).clamp_(0, 1))


def from_tensor(tensor: torch.Tensor) -> Image.Image | torch.Tensor:
    """Read a torch tensor, channels first.

    Args:
        tensor: (1, H, W), (3, H, W) or (4, H, W) of uint8, or float in [0, 1], on any device. The
            fourth channel is alpha (not premultiplied) and is laid over white. Not modified.

    Returns:
        An RGB image for uint8; for floats a float32 tensor (3, H, W) in [0, 1] on the same
        device, without a graph, which shares the memory of `tensor` where nothing had to change.

    Raises:
        UnusableImageError: wrong rank, channels, size, dtype or values.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    _check_dtype(name, is_float=tensor.is_floating_point())
    shape = tuple(tensor.shape)
    if tensor.ndim != 3:
        advice = "; make a grey picture (1, H, W)" if tensor.ndim == 2 else ""
        message = f"a torch image has shape {_TENSORS}; got rank {tensor.ndim}, {shape}{advice}"
        raise UnusableImageError(message)
    if shape[0] not in _CHANNELS:
        advice = ""
        if shape[-1] in _CHANNELS:
            advice = "; its channels come last: use image.movedim(-1, -3)"
        message = f"a torch image has shape {_TENSORS}; got {shape}{advice}"
        raise UnusableImageError(message)
    _check_size(shape)
    tensor = tensor.detach()
    if tensor.dtype == torch.uint8:
        return _to_picture(tensor.permute(1, 2, 0).cpu().numpy())
    planes = tensor.to(torch.float32)
    low, high = torch.stack(torch.aminmax(planes)).tolist()  # one wait for the device, not two
    check_unit_range(low, high)
    return _to_unit_rgb(planes if low >= 0 and high <= 1 else planes.clamp(0, 1))


def require_tensor(pixels: object) -> None:
    """Refuse whatever is not a tensor where a differentiable batch is expected.

    Raises:
        TypeError: `pixels` is not a tensor.
    """
    if not isinstance(pixels, torch.Tensor):
        message = (
            "expected pixels as a float tensor (batch, 3, H, W), got "
            f"{type(pixels).__name__}; `score` takes images in any form"
        )
        raise TypeError(message)


def _check_dtype(name: str, *, is_float: bool) -> None:
    if name == "uint8" or is_float:
        return
    if name.startswith("complex"):
        advice = "a picture is real: take .real or .abs()"
    elif name == "bool":
        advice = "convert a mask with .astype('uint8') * 255 (numpy) or .to(torch.uint8) * 255"
    elif name == "uint16":
        advice = "convert 16-bit levels with x / 65535 (or x / 255 if they are 0..255)"
    elif name.startswith(("int", "uint")):
        advice = "if these are 0..255 convert with .astype('uint8') (numpy) or .to(torch.uint8)"
    else:
        advice = "convert it first"
    message = f"pixels must be uint8, or float in [0, 1]; got {name}: {advice}"
    raise UnusableImageError(message)


def _check_size(shape: tuple[int, ...]) -> None:
    if 0 in shape:
        message = f"it has no pixels: shape {shape}"
        raise UnusableImageError(message)


def _to_picture(array: np.ndarray) -> Image.Image:
    """Make an RGB image of uint8 levels (H, W, 1 | 3 | 4)."""
    channels = array.shape[-1]
    if channels == _GREY:
        return from_levels(array[:, :, 0])
    picture = Image.fromarray(array)
    return over_white(picture) if channels == _RGBA else picture


def _to_unit_rgb(planes: torch.Tensor) -> torch.Tensor:
    """Bring float32 planes (1 | 3 | 4, H, W) in [0, 1] to RGB."""
    if planes.shape[0] == _GREY:
        return planes.expand(_RGB, -1, -1)
    if planes.shape[0] == _RGBA:
        alpha = planes[_RGB:]
        return (planes[:_RGB] * alpha + (1 - alpha)).clamp_(0, 1)
    return planes
