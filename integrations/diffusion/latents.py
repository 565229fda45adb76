"""What an optimiser hands to a reward, latents or images of either range, to pixels in [0, 1]."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import torch
from torch import Tensor

from stablepref.images.rgb import check_unit_range
from stablepref.runtime.precision import widen

if TYPE_CHECKING:
    from collections.abc import Mapping

UNIT: Final = (0.0, 1.0)
SIGNED: Final = (-1.0, 1.0)
_BATCH_RANK = 4
_RGB = 3
_BELOW_ZERO = -0.1  # less than this is not the overshoot of a resize, but another range
_MOST_OVERSHOOT = 10.0  # decoders leave [-1, 1], but 8-bit levels go up to 255


class PictureVAE(Protocol):
    """What a reward asks of a diffusers VAE, such as `AutoencoderKL`, `-Tiny` or `-DC`."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its configuration, with what is known of the latents' scale."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""

    def decode(self, z: Tensor, *, return_dict: bool) -> tuple[Tensor, ...]:
        """Images `(batch, 3, H, W)`, first of a tuple, of latents `(batch, channels, h, w)`."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze it or not."""

    def eval(self) -> Self:
        """Put it in evaluation mode."""


def unit_pixels(
    images: Tensor, value_range: tuple[float, float], *, decoded: bool = False
) -> Tensor:
    """Pixels in [0, 1], checked and differentiable; reading their range waits for the device once.

    Args:
        images: Float `(batch, 3, H, W)` RGB.
        value_range: (0, 1); or (-1, 1), as VAEs decode, where what overshoots is cut off.
        decoded: They come from a VAE, so that their range is not in doubt.

    Returns:
        Tensor of that shape, float32 (float64 for float64 images).

    Raises:
        TypeError: `images` is not a tensor, or not of floating point.
        ValueError: The shape is another, there is NaN or infinity, or the values are of another
            range.
    """
    _check_form(images)
    seen = images.detach()
    low, *peaks = torch.cat([seen.amin()[None], seen.flatten(1).amax(1)]).tolist()
    high = math.nan if any(map(math.isnan, peaks)) else max(peaks)
    if not math.isfinite(low) or not math.isfinite(high) or value_range == UNIT:
        if -math.inf < low < _BELOW_ZERO and math.isfinite(high):
            msg = (
                f"the reward expects images in [0, 1] and got {low:.4g} to {high:.4g}; for images "
                "in [-1, 1], as a VAE decodes them, make it with value_range=(-1, 1)"
            )
            raise ValueError(msg)
        check_unit_range(low, high)
    elif max(-low, high) > _MOST_OVERSHOOT:
        msg = (
            f"the reward expects images in [-1, 1] and got {low:.4g} to {high:.4g}; divide 8-bit "
            "levels by 127.5 and subtract 1"
        )
        raise ValueError(msg)
    black = sum(peak <= value_range[0] for peak in peaks)
    if black:
        warnings.warn(
            f"{black} of {len(images)} images are entirely black: was a picture blanked by a "
            "safety checker, or did a VAE in half precision overflow? They are scored as they are",
            stacklevel=3,
        )
    if value_range == UNIT:
        return widen(images)
    if low >= 0 and not black and not decoded:
        warnings.warn(
            f"no value of these images is below 0 (they go from {low:.4g} to {high:.4g}): if they "
            "are in [0, 1], make the reward with value_range=(0, 1)",
            stacklevel=3,
        )
    return ((widen(images) + 1) / 2).clamp(0, 1)


def decode_latents(vae: PictureVAE, latents: Tensor) -> Tensor:
    """Images `(batch, 3, H, W)`, about in [-1, 1], of latents as pipelines give and take them.

    The inverse of the scaling that diffusers' pipelines apply between denoiser and VAE:
    latents x std / scaling_factor + mean where the VAE knows mean and standard deviation, else
    latents / scaling_factor + shift_factor. Differentiable.

    Args:
        vae: A diffusers VAE of pictures, such as `pipe.vae`.
        latents: Float `(batch, channels, h, w)`, what a pipeline returns for
            `output_type="latent"`. Packed ones, as Flux's, have to be unpacked first.

    Raises:
        ValueError: The shape or the number of channels is not the VAE's.
    """
    config = vae.config
    channels = config.get("latent_channels")
    if latents.ndim != _BATCH_RANK or (channels is not None and latents.shape[1] != channels):
        msg = (
            f"got latents of shape {tuple(latents.shape)}; expected (batch, "
            f"{channels or 'channels'}, h, w)"
            + (": unpack them as the pipeline does" if latents.ndim == _RGB else "")
        )
        raise ValueError(msg)
    scale = config.get("scaling_factor") or 1.0
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        shape = (1, -1, 1, 1)
        latents = latents * latents.new_tensor(std).view(shape) / scale
        latents = latents + latents.new_tensor(mean).view(shape)
    else:
        latents = latents / scale + (config.get("shift_factor") or 0.0)
    return vae.decode(latents.to(vae.dtype), return_dict=False)[0]


def encode_pictures(vae: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401 (diffusers has no types)
    """Latents `(batch, channels, h, w)` of pictures, which `decode_latents` turns back.

    The most likely ones, where the VAE gives a normal density.

    Args:
        vae: A diffusers VAE of pictures, such as `pipe.vae`.
        pixels: `(batch, 3, H, W)` in [0, 1], of the VAE's number type.
    """
    encoded = vae.encode(2 * pixels - 1)
    density = getattr(encoded, "latent_dist", None)
    return scaled_latents(vae, encoded.latent if density is None else density.mode())


def scaled_latents(vae: Any, latents: Tensor) -> Tensor:  # noqa: ANN401 (diffusers has no types)
    """Latents as a denoiser has them, of those that a VAE gives; `decode_latents` undoes it.

    Args:
        vae: A diffusers VAE, such as `pipe.vae`.
        latents: `(batch, channels, h, w)`.
    """
    config = vae.config
    scale = config.get("scaling_factor") or 1.0
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        shape = (1, -1, 1, 1)
        centred = latents - latents.new_tensor(mean).view(shape)
        return centred * scale / latents.new_tensor(std).view(shape)
    return (latents - (config.get("shift_factor") or 0.0)) * scale


def _check_form(images: object) -> None:
    if not isinstance(images, Tensor):
        msg = f"the reward takes a float tensor (batch, 3, H, W), got {type(images).__name__}"
        raise TypeError(msg)
    if not images.is_floating_point():
        msg = (
            f"the reward takes floating-point images, got {images.dtype}: no gradient flows "
            "through 8-bit levels; divide them by 255, or score them with scorer.score"
        )
        raise TypeError(msg)
    shape = tuple(images.shape)
    if images.ndim == _BATCH_RANK and shape[1] == _RGB and images.numel():
        return
    advice = ""
    if images.ndim == _BATCH_RANK and shape[-1] == _RGB:
        advice = "; the channels come last: use images.permute(0, 3, 1, 2)"
    elif images.ndim == _RGB and shape[0] == _RGB:
        advice = "; for one image use image[None]"
    elif images.numel():
        advice = "; if these are latents, make the reward with vae=pipe.vae"
    msg = f"the reward takes images (batch, 3, H, W), got {shape}{advice}"
    raise ValueError(msg)
