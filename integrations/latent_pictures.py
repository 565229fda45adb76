"""Scores of the pictures that latents stand for, decoded in common batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from .diffusion.latents import decode_latents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.scorer import Scorer


@final
class LatentPictures(nn.Module):
    """A scorer behind a VAE, for `MicroBatches`: its inputs are latents, each `(channels, h, w)`.

    Latents of one shape are decoded together, and all pictures of a batch are scored together.

    Attributes:
        name: The scorer's.

    Args:
        scorer: The model.
        vae: A diffusers VAE of pictures on the scorer's device, such as `pipe.vae`. It is frozen.
    """

    def __init__(self, scorer: Scorer, vae: Any) -> None:  # noqa: ANN401 (diffusers has no types)
        super().__init__()
        self.name = scorer.name
        self.scorer = scorer
        self.vae = vae.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """The scorer's."""
        return self.scorer.device

    def check(self, latents: object) -> Tensor:
        """Latents of one picture, `(channels, h, w)`.

        Args:
            latents: That, or a batch of one of them.

        Raises:
            ValueError: They are something else, or not finite.
        """
        channels = self.vae.config.get("latent_channels")
        one = latents[0] if isinstance(latents, Tensor) and latents.shape[:1] == (1,) else latents
        if (
            not isinstance(one, Tensor)
            or not one.is_floating_point()
            or one.ndim != 3
            or 0 in one.shape
            or (channels is not None and one.shape[0] != channels)
        ):
            shape = f"{latents.dtype} {tuple(latents.shape)}" if isinstance(latents, Tensor) else ""
            msg = (
                f"got {shape or type(latents).__name__}; expected latents of one picture, float "
                f"({channels or 'channels'}, h, w), as the VAE decodes them"
            )
            raise ValueError(msg)
        if not bool(one.isfinite().all()):
            msg = "a latent is not finite"
            raise ValueError(msg)
        return one

    def pixels(self, latents: Tensor) -> int:
        """The number of pixels of the picture that latents `(channels, h, w)` stand for."""
        config = self.vae.config
        blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels") or ()
        factor = 2 ** max(0, len(blocks) - 1)
        return int(latents.shape[1] * latents.shape[2] * factor**2)

    def score_inputs(self, inputs: Sequence[Tensor], prompts: Sequence[str]) -> Tensor:
        """Scores `(batch,)`, float32, of latents that `check` let through."""
        found: list[Any] = [None] * len(inputs)
        shapes = [tuple(one.shape) for one in inputs]
        for shape in dict.fromkeys(shapes):
            rows = [row for row, own in enumerate(shapes) if own == shape]
            latents = torch.stack([inputs[row].float() for row in rows])
            pictures = decode_latents(self.vae, latents).float()
            pixels = (pictures / 2 + 0.5).clamp(0, 1)
            for row, one in zip(rows, self.scorer.preprocess(pixels), strict=True):
                found[row] = one
        return self.scorer.score_inputs(found, prompts)
