"""Latents of pipelines that pack them: from pictures, and in the form that the call takes.

Scaling and packing are the pipeline's own functions, or those of its image-to-image sibling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .latents import encode_pictures, scaled_latents

if TYPE_CHECKING:
    from torch import Tensor


def encode_flux(pipe: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401 (diffusers has no types)
    """FLUX.1's `(batch, places, channels)`: scaled as any VAE's, then packed.

    Args:
        pipe: The pipeline.
        pixels: `(batch, 3, H, W)` in [0, 1], of the VAE's number type.
    """
    latents = encode_pictures(pipe.vae, pixels)
    packed: Tensor = pipe._pack_latents(latents, *latents.shape)
    return packed


def encode_qwen(pipe: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401 (diffusers has no types)
    """Qwen-Image's `(batch, places, channels)`: its VAE takes a picture as a video of one frame.

    Args:
        pipe: The pipeline.
        pixels: `(batch, 3, H, W)` in [0, 1], of the VAE's number type.
    """
    frames = (2 * pixels - 1).unsqueeze(2)
    latents = scaled_latents(pipe.vae, pipe.vae.encode(frames).latent_dist.mode()[:, :, 0])
    packed: Tensor = pipe._pack_latents(latents, *latents.shape)
    return packed


def encode_flux2(pipe: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401 (diffusers has no types)
    """FLUX.2's `(batch, places, channels)`: patches, by the VAE's batch norm, then packed.

    Args:
        pipe: The pipeline, which encodes the pictures that it edits in this way.
        pixels: `(batch, 3, H, W)` in [0, 1], of the VAE's number type.
    """
    packed: Tensor = pipe._pack_latents(pipe._encode_vae_image(2 * pixels - 1, generator=None))
    return packed


def flux2_call_latents(pipe: Any, latents: Tensor, places: Tensor) -> Tensor:  # noqa: ANN401 (diffusers has no types)
    """What FLUX.2's call takes as `latents=`, `(batch, channels, h, w)`, of what its loop has.

    Args:
        pipe: The pipeline.
        latents: `(batch, places, channels)`.
        places: Coordinates of the places, as `prepare_latents` returns them.
    """
    found: Tensor = pipe._unpack_latents_with_ids(latents, places)
    return found
