"""A scorer as a reward that can be backpropagated through, robust to perturbations if asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stablepref.augment.views import mentions_side, weak_view_boxes
from stablepref.models.registry import not_a_model
from stablepref.scoring.batching import VIEW_SEED
from stablepref.scoring.prompts import check_prompts

from .diffusion.latents import SIGNED, UNIT, decode_latents, unit_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stablepref.scorer import Scorer

    from .diffusion.latents import PictureVAE


@final
class DifferentiableReward:
    """Rewards `(batch,)` of images or latents, with gradients to them.

    The scorer (and the VAE) is frozen and put in evaluation mode: gradients flow to the images, not
    to its weights. Autocast is off inside: the scorer computes in its own number type, so that the
    reward is what `scorer.score` gives for the same float pixels. Safe to share between threads.

    **Robust.** With `views=k` each image is scored as it is and on k weak views: crops of 85 to
    100 % of its area, mirrored by half where the prompt names no side. The reward is the mean, or
    the worst, of these k + 1 scores, so that a perturbation that a person would not see, and that a
    slight crop destroys, gains nothing.

    Attributes:
        scorer: The reward model.
        views: Number of weak views beside the image itself.

    Args:
        scorer: The reward model, on the device where the images will be.
        value_range: Of the images: (0, 1) or (-1, 1).
        views: Number of weak views; 0 scores the image alone.
        reduce: "mean" or "min" over the image and its views.
        checkpointing: Keep no activations of decoder and scorer, and compute them again in the
            backward pass, picture by picture and view by view: the memory of one, for about one
            more forward pass.
        vae: With a diffusers VAE the reward takes latents in place of images, scaled as pipelines
            give them for `output_type="latent"`.

    Raises:
        TypeError: The scorer is something else.
        ValueError: An argument has another value.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        value_range: tuple[float, float] = UNIT,
        views: int = 0,
        reduce: Literal["mean", "min"] = "mean",
        checkpointing: bool = False,
        vae: PictureVAE | None = None,
    ) -> None:
        if tuple(value_range) not in (UNIT, SIGNED):
            msg = f"value_range must be (0, 1) or (-1, 1), got {value_range}"
            raise ValueError(msg)
        if views < 0:
            msg = f"views must be 0 or more, got {views}"
            raise ValueError(msg)
        if reduce not in ("mean", "min"):
            msg = f'reduce must be "mean" or "min", got {reduce!r}'
            raise ValueError(msg)
        if not isinstance(scorer, nn.Module):  # a compiled scorer is no Scorer
            raise TypeError(not_a_model(scorer, 'a scorer, such as stablepref.load("shapes")'))
        self.scorer = scorer.requires_grad_(False).eval()
        self.value_range = SIGNED if vae is not None else value_range
        self.views = views
        self.reduce = reduce
        self.checkpointing = checkpointing
        self.vae = None if vae is None else vae.requires_grad_(False).eval()

    def __call__(self, images: Tensor, prompts: Sequence[str], *, step: int = 0) -> Tensor:
        """Score images against prompts.

        Args:
            images: Float `(batch, 3, H, W)` RGB of any size in the value range, on the scorer's
                device; with a VAE latents `(batch, channels, h, w)`.
            prompts: `batch` strings.
            step: Chooses the views, the same ones for all images: those of step 0 are those of
                `scorer.score(..., views=k)`. Count it up in an optimisation, so that no fixed set
                of crops can be learned.

        Returns:
            Rewards `(batch,)` in the scorer's unit, float32 (float64 for a float64 scorer).

        Raises:
            TypeError: The images are not a float tensor, or the prompts not a list of strings.
            ValueError: A shape, count, device or value is wrong; there is NaN or infinity in the
                images, or in the rewards, as after an overflow in half precision; or the images
                need a gradient and the scorer, such as a function, has none.
        """
        prompts = check_prompts(prompts, count=len(images))
        if images.device != self.scorer.device:
            msg = f"the images are on {images.device}, the scorer is on {self.scorer.device}"
            raise ValueError(msg)
        if self.scorer.joint and images.requires_grad and torch.is_grad_enabled():
            msg = (
                f"{self.scorer.name} has no gradient, which is asked for here; optimise it by "
                "policy gradients or by selection, or take a model as the reward"
            )
            raise ValueError(msg)
        with torch.autocast(images.device.type, enabled=False):
            if self.vae is not None:
                vae = self.vae
                images = self._by_picture(lambda z: decode_latents(vae, z), images)
            pixels = unit_pixels(images, self.value_range, decoded=self.vae is not None)
            scores = self._view_scores(pixels, prompts, step)
        rewards = scores.mean(dim=1) if self.reduce == "mean" else scores.min(dim=1).values
        if not bool(rewards.isfinite().all()):
            msg = (
                f"{self.scorer.name} in {str(self.scorer.dtype).removeprefix('torch.')} gives a "
                "reward that is not finite; if half precision overflowed, load the scorer in "
                "float32 or bfloat16"
            )
            raise ValueError(msg)
        return rewards

    def _view_scores(self, pixels: Tensor, prompts: list[str], step: int) -> Tensor:
        """Scores `(batch, 1 + views)`: of each image itself, then of its weak views."""
        preprocess = self.scorer.preprocess
        inputs = [[one] for one in preprocess(pixels)]  # of each image, then of its views
        if self.views:
            boxes, flips = weak_view_boxes(
                [0] * len(pixels), self.views, seed=VIEW_SEED, step=step, hflip=True
            )
            sided = torch.tensor([mentions_side(prompt) for prompt in prompts], device="cpu")
            of_views = preprocess(pixels, boxes, flips & ~sided[:, None])
            inputs = [[*own, *views] for own, views in zip(inputs, of_views, strict=True)]
        flat = [one for row in inputs for one in row]
        if self.scorer.joint:
            repeated = [prompt for prompt in prompts for _ in range(1 + self.views)]
            scores = self.scorer.score_inputs(flat, repeated)
            return scores.unflatten(0, (len(pixels), 1 + self.views))
        # Remembered features are inference tensors, which autograd cannot keep; a copy it can.
        features = self.scorer.cached_prompts(prompts).clone()
        features = features.repeat_interleave(1 + self.views, dim=0)
        if self.checkpointing:
            rows = zip(flat, features.split(1), strict=True)
            parts = [checkpoint(self._match, [one], row, use_reentrant=False) for one, row in rows]
            scores = torch.cat(parts)
        else:
            scores = self._match(flat, features)
        return scores.unflatten(0, (len(pixels), 1 + self.views))

    def _match(self, inputs: Sequence[Any], prompt_features: Tensor) -> Tensor:
        images = self.scorer.encode_inputs(self.scorer.collate(inputs))
        return self.scorer.match(images, prompt_features)

    def _by_picture(self, function: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
        """`function` of the latents, with checkpointing picture by picture."""
        if not self.checkpointing:
            return function(latents)
        rows = latents.split(1)
        return torch.cat([checkpoint(function, row, use_reentrant=False) for row in rows])
