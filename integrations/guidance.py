"""Reward guidance: a pipeline's steps are led towards pictures that a scorer rates higher.

After a step the picture that the latents will become is predicted (x0), decoded and scored, and the
latents move along the gradient of that score. This is classifier guidance (Dhariwal and Nichol
2021) with a network that has seen no noise, on predictions of clean pictures, as in Universal
Guidance (Bansal et al. 2023) and FreeDoM (Yu et al. 2023).
"""

from __future__ import annotations

import copy
import math
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, final

import torch

from stablepref.runtime.precision import widen
from stablepref.scoring.prompts import check_prompts
from stablepref.weights.fingerprint import weights_digest

from .diffusion.call import call
from .diffusion.denoiser import denoise
from .diffusion.families import entered, family_of
from .diffusion.guidable import check_arguments, check_callback
from .diffusion.pipelines import (
    decoder_lifted,
    frozen,
    overflow_advice,
    refuse_offloading,
    require_pipeline,
    require_vae,
    texts_of_each,
    unwrapped,
)
from .diffusion.probing import Probe
from .diffusion.schedulers import use_scheduler
from .diffusion.texts import Texts
from .diffusion.x0 import check_supported, noise_level, predict_x0
from .reward import DifferentiableReward
from .sampled_rewards import as_scorer

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from stablepref.scorer import Scorer

    from .diffusion.pipelines import Pipeline


@final
class RewardGuidance:
    """Leads a pipeline's call to a higher reward.

    ```python
    guidance = RewardGuidance(pipe, "a red circle", "hps-v2.1", scale=0.02, views=4)
    image = guidance.draw(num_inference_steps=30).images[0]
    ```

    Stable Diffusion 1.x, XL and 3 can also be called by the user, with the guidance as their
    `callback_on_step_end`: `pipe(**guidance.arguments, num_inference_steps=30)`.

    Each guided step costs one more call of the denoiser, with gradients, and one of decoder and
    scorer. After the last step nothing is guided: no denoising would follow that takes away what a
    scorer likes and a person does not see. The decoder and the scorer are frozen for good, the
    other weights while a gradient is taken.

    Attributes:
        prompts: What is asked for.
        rewards: Of the last call, by the number of the step, counted from 1: the rewards `(batch,)`
            of the predicted pictures before the latents were moved.

    Args:
        pipe: A pipeline of `stablepref.integrations.diffusion.families.entered()`, with a scheduler
            of `stablepref.integrations.diffusion.x0.SCHEDULERS`, and not offloaded.
        prompt: One prompt, or several.
        scorer: The reward model, on the pipeline's device, or what `stablepref.load` takes.
        scale: How far a guided step moves the latents: with `normalise` as a share of their own
            norm, else as a factor of the gradient. 0 does nothing.
        steps: From where to where to guide, as shares of the steps: (0.2, 0.8) guides after steps
            2 to 8 of 10.
        views: Weak views beside each picture, other ones at each step, as in
            `DifferentiableReward`: what a slight crop destroys gains nothing.
        reduce: "mean" or "min" over the picture and its views.
        normalise: Use the direction of each picture's gradient alone, so that `scale` means the
            same for all scorers, steps and schedulers.
        checkpointing: Keep no activations of the scorer, and none of the decoder where latents are
            not packed; for those of the denoiser, use diffusers' own
            `enable_gradient_checkpointing()`.
        scheduler: One of `stablepref.integrations.diffusion.schedulers.NAMED`, such as "ddim", to
            put in the place of the pipeline's own; it stays there.

    Raises:
        TypeError: The pipeline, a prompt or the scorer is something else.
        ValueError: The pipeline, its scheduler or an argument is not supported.
    """

    def __init__(
        self,
        pipe: Pipeline,
        prompt: str | Sequence[str],
        scorer: Scorer | str | os.PathLike[str],
        *,
        scale: float,
        steps: tuple[float, float] = (0.0, 1.0),
        views: int = 0,
        reduce: Literal["mean", "min"] = "mean",
        normalise: bool = True,
        checkpointing: bool = False,
        scheduler: str | None = None,
    ) -> None:
        require_pipeline(pipe)
        use_scheduler(pipe, scheduler)
        check_guidable(pipe)
        if not (math.isfinite(scale) and scale >= 0):
            msg = f"scale must be a number from 0, got {scale}"
            raise ValueError(msg)
        begin, end = steps
        if not 0 <= begin <= end <= 1:
            msg = f"steps must be two shares in order, such as (0.2, 0.8), got {steps}"
            raise ValueError(msg)
        _refuse_reward(scorer)
        self._pipe: Any = pipe
        self.prompts = check_prompts([prompt] if isinstance(prompt, str) else prompt)
        self._single = isinstance(prompt, str)
        self.rewards: dict[int, Tensor] = {}
        self._scale = scale
        self._steps = begin, end
        self._normalise = normalise
        vae: Any = pipe.components["vae"]
        self._reward = DifferentiableReward(
            as_scorer(scorer, pipe._execution_device),
            vae=None if family_of(pipe).packed else vae,  # then the pipeline decodes
            views=views,
            reduce=reduce,
            checkpointing=checkpointing,
        )

    def described(self) -> dict[str, object]:
        """What guided pictures depend on beside the pipeline and its call, plain JSON values."""
        return {
            "scorer": self._reward.scorer.name,
            "weights": weights_digest(self._reward.scorer),
            "prompts": list(self.prompts),
            "scale": self._scale,
            "steps": list(self._steps),
            "views": self._reward.views,
            "reduce": self._reward.reduce,
            "normalise": self._normalise,
        }

    def draw(self, **arguments: object) -> Any:  # noqa: ANN401 (of each pipeline its own)
        """Call the pipeline, which is led after each guided step.

        The denoiser's predictions are those of further calls of the pipeline from within its own,
        of a step each, so that this works with every pipeline that is called from within.

        Args:
            arguments: Of the pipeline's call beside the prompt, such as `num_inference_steps`,
                `generator`, `negative_prompt`, or the picture of a ControlNet.

        Returns:
            What the pipeline returns; with a scale of 0 the same bit for bit.

        Raises:
            ValueError: An argument is not the pipeline's or is not supported, the pipeline's
                scheduler was replaced by one that is not, no step lies in `steps`, or a picture, a
                reward or a gradient is not finite.
        """
        pipe = self._pipe
        check_guidable(pipe)
        check_arguments(pipe, arguments)
        copied = {n: v.clone() if isinstance(v, torch.Tensor) else v for n, v in arguments.items()}
        if not self._single:
            copied = texts_of_each(copied, len(self.prompts))
        given = {"prompt": self._given_prompt(), **copied}
        self.rewards = {}
        probe = Probe(pipe, given)

        def led(scheduler: Any, done: int, latents: Tensor) -> Tensor:  # noqa: ANN401 (diffusers' schedulers share no type)
            total = len(scheduler.timesteps)
            if done == 1:
                self._check_pictures(latents, total)
            if self._scale == 0 or not self._is_guided(done - 1, total):
                return latents

            def output(x: Tensor) -> Tensor:
                return probe.output(x, scheduler.timesteps[done])

            return self._led(latents, done, scheduler, output, probe)

        texts = nullcontext() if self._scale == 0 else Texts().remembered(pipe)
        with torch.inference_mode(False), torch.no_grad(), texts, probe.kept():
            return call(pipe, given, scheduler=copy.deepcopy(pipe.scheduler), after=led)

    @property
    def arguments(self) -> dict[str, object]:
        """What the pipeline's call needs to be led as the user calls it; the others are free.

        The prompt is a text where one was given, so that `negative_prompt="..."` may be one too;
        for a list of prompts pipelines want a list of negative ones.

        Raises:
            ValueError: A callback does not reach all that the pipeline's denoiser needs.
        """
        check_callback(self._pipe)
        return {
            "prompt": self._given_prompt(),
            "callback_on_step_end": self,
            "callback_on_step_end_tensor_inputs": family_of(self._pipe).step_tensors,
        }

    def __call__(
        self, pipe: Pipeline, step: int, timestep: object, tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Called by the pipeline after each step.

        Returns:
            The latents, moved; nothing after steps that are not guided.

        Raises:
            ValueError: The pipeline is another one or does not pass what is needed, no step lies in
                `steps`, the pictures are no multiple of the prompts, or a picture, a reward or a
                gradient is not finite.
        """
        del timestep
        total = self._pipe.num_timesteps
        if step == 0:
            self._check_call(pipe, tensors)
            self._check_pictures(tensors["latents"], total)
            self.rewards = {}
        if self._scale == 0 or not self._is_guided(step, total):
            return {}
        # Within an inference mode of the caller's, copies take the place of its tensors.
        with torch.inference_mode(False):
            own = {name: value.clone() for name, value in tensors.items()}
        scheduler = self._pipe.scheduler
        time = scheduler.timesteps[step + 1]
        moved = self._led(
            own.pop("latents"), step + 1, scheduler, lambda x: denoise(self._pipe, x, time, own)
        )
        return {"latents": moved}

    def _given_prompt(self) -> str | list[str]:
        """The prompt as it was given."""
        return self.prompts[0] if self._single else list(self.prompts)

    def _check_call(self, pipe: Pipeline, tensors: Mapping[str, Tensor]) -> None:
        if pipe is not self._pipe:
            msg = f"this guidance was made for another {type(self._pipe).__name__}; make one of it"
            raise ValueError(msg)
        check_guidable(pipe)  # again: its scheduler may have been replaced
        check_callback(pipe)
        missing = [n for n in family_of(pipe).step_tensors if n not in tensors]
        if missing:
            msg = f"guidance needs {', '.join(missing)}: call pipe(**guidance.arguments, ...)"
            raise ValueError(msg)

    def _check_pictures(self, latents: Tensor, total: int) -> None:
        if not any(self._is_guided(step, total) for step in range(total)):
            msg = (
                f"none of the {total} steps is guided: steps={self._steps} holds no step but, at "
                "most, the last, after which nothing is denoised"
            )
            raise ValueError(msg)
        if len(latents) % len(self.prompts):
            msg = (
                f"the pipeline makes {len(latents)} pictures and guidance has "
                f"{len(self.prompts)} prompts: call pipe(**guidance.arguments, ...)"
            )
            raise ValueError(msg)

    def _is_guided(self, step: int, total: int) -> bool:
        begin, end = self._steps
        return step + 1 < total and begin <= (step + 1) / total <= end

    def _led(
        self,
        latents: Tensor,
        step: int,
        scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
        output: Callable[[Tensor], Tensor],
        probe: Probe | None = None,
    ) -> Tensor:
        """The latents that go into a step, counted from 0, moved along the reward's gradient."""
        try:
            rewards, gradient = self._gradient(latents, step, scheduler, output, probe)
        except ValueError as error:
            advice = overflow_advice(self._pipe)
            total = len(scheduler.timesteps)
            msg = f"guidance after step {step} of {total}: {error}{advice}"
            raise ValueError(msg) from error
        self.rewards[step] = rewards
        return self._moved(latents, gradient, step)

    def _gradient(
        self,
        given: Tensor,
        step: int,
        scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
        output: Callable[[Tensor], Tensor],
        probe: Probe | None,
    ) -> tuple[Tensor, Tensor]:
        """Rewards of the pictures predicted from latents that go into a step, and their gradient.

        Args:
            given: The latents.
            step: Which, from 0.
            scheduler: Of the call.
            output: The denoiser's, of latents as it sees them.
            probe: Decodes packed latents.
        """
        repeats = len(given) // len(self.prompts)
        prompts = [prompt for prompt in self.prompts for _ in range(repeats)]
        with torch.inference_mode(False), torch.enable_grad(), frozen(self._pipe):
            latents = given.detach().clone().requires_grad_()
            predicted = output(latents / noise_level(scheduler, step).scale)
            x0 = predict_x0(scheduler, predicted, latents, step)
            with decoder_lifted(self._pipe.vae):
                if probe is not None and family_of(self._pipe).packed:
                    x0 = probe.pictures(x0)
                rewards = self._reward(x0, prompts, step=step)
                (gradient,) = torch.autograd.grad(rewards.sum(), latents)
        if not bool(gradient.isfinite().all()):
            kind = str(latents.dtype).removeprefix("torch.")
            msg = f"the reward's gradient is not finite in {kind}"
            raise ValueError(msg)
        return rewards.detach(), gradient

    def _moved(self, latents: Tensor, gradient: Tensor, step: int) -> Tensor:
        slope = widen(gradient)
        norms = slope.flatten(1).norm(dim=1)
        if flat := int((norms == 0).sum()):
            warnings.warn(
                f"the reward of {flat} of {len(norms)} pictures has no gradient after step {step}; "
                "they stay unguided. In float16 it may have been too small: use bfloat16",
                stacklevel=3,
            )
        if self._normalise:
            own = widen(latents).flatten(1).norm(dim=1)
            factors = own / norms.where(norms > 0, 1.0)
            slope = slope * factors.view(-1, *[1] * (slope.ndim - 1))
        return latents + (self._scale * slope).to(latents.dtype)


def _refuse_reward(scorer: object) -> None:
    if isinstance(scorer, DifferentiableReward):
        msg = "scorer is a DifferentiableReward; pass its scorer, and views= and reduce= here"
        raise TypeError(msg)


def refuse_other_prompts(callback: object, prompts: Sequence[str]) -> None:
    """Refuse a guidance where each batch is for one of these prompts and the guidance for another.

    Args:
        callback: A pipeline's `callback_on_step_end`; callbacks that are not a guidance pass.
        prompts: A batch is for one of them.

    Raises:
        ValueError: The callback is a guidance, and not for exactly that one prompt.
    """
    if isinstance(callback, RewardGuidance) and any(callback.prompts != [p] for p in prompts):
        msg = (
            f"the guidance is for {callback.prompts}, the candidates are of {list(prompts)}: "
            "make a guidance for each prompt, and call once for each"
        )
        raise ValueError(msg)


def check_guidable(pipe: Pipeline) -> None:
    """Refuse what guidance is not tested for, before anything is made.

    Raises:
        TypeError: `pipe` is not a pipeline.
        ValueError: The pipeline or its scheduler is not supported, it has no VAE, is offloaded, or
            has an IP-Adapter.
    """
    require_pipeline(pipe)
    check_supported(
        pipe, what="guidance", pipelines=entered(), instead="use best of n, which takes all"
    )
    require_vae(pipe)
    config: Mapping[str, Any] = getattr(pipe.components["scheduler"], "config", {})
    unfit = {
        "thresholding": config.get("thresholding"),
        "invert_sigmas": config.get("invert_sigmas"),
        "an IP-Adapter": getattr(unwrapped(pipe.components.get("unet")), "encoder_hid_proj", None)
        is not None,
    }
    if wrong := [what for what, is_so in unfit.items() if is_so]:
        msg = f"guidance does not go with {', '.join(wrong)}"
        raise ValueError(msg)
    refuse_offloading(pipe)
