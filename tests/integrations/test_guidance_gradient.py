"""What reward guidance adds is the gradient of the reward of the decoded x0 prediction."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.guided import PROMPT, made, prepared
from helpers.tiny import tiny_clip
from helpers.tiny_finetune import in_float64
from torch import Tensor

from stablepref.integrations.guidance import RewardGuidance


def hand_made_reward(
    pipe: Any,  # noqa: ANN401 - diffusers
    scorer: Any,  # noqa: ANN401 - a scorer in float64
    prompts: list[str],
    step: int,
    tensors: dict[str, Tensor],
) -> Callable[[Tensor], Tensor]:
    """The reward of the decoded prediction, spelt out for each kind of pipeline."""
    scale = pipe.guidance_scale
    t = pipe.scheduler.timesteps[step]
    text = tensors["prompt_embeds"]

    def reward(latents: Tensor) -> Tensor:
        if hasattr(pipe, "transformer"):
            double = torch.cat([latents, latents])
            pooled = tensors["pooled_prompt_embeds"]
            out = pipe.transformer(double, text, pooled, t.expand(len(double))).sample
            without, with_text = out[: len(latents)], out[len(latents) :]
            x0 = latents - t / 1000 * (without + scale * (with_text - without))
        else:
            alpha = pipe.scheduler.alphas_cumprod[int(t)].double()
            euler = "Euler" in type(pipe.scheduler).__name__
            shown = latents * alpha.sqrt() if euler else latents
            added = None
            if "add_time_ids" in tensors:
                added = {
                    "text_embeds": tensors["add_text_embeds"],
                    "time_ids": tensors["add_time_ids"],
                }
            out = pipe.unet(torch.cat([shown, shown]), t, text, added_cond_kwargs=added).sample
            without, with_text = out[: len(latents)], out[len(latents) :]
            guided = without + scale * (with_text - without)
            if pipe.scheduler.config.prediction_type == "v_prediction":
                x0 = alpha.sqrt() * shown - (1 - alpha).sqrt() * guided
            else:
                x0 = (shown - (1 - alpha).sqrt() * guided) / alpha.sqrt()
        config = pipe.vae.config
        picture = pipe.vae.decode(x0 / config.scaling_factor + (config.shift_factor or 0)).sample
        return scorer((picture / 2 + 0.5).clamp(0, 1), prompts)  # type: ignore[no-any-return] # its own

    return reward


@pytest.mark.parametrize(
    ("kind", "scheduler", "config"),
    [
        ("sd", "DDIMScheduler", {}),
        ("sd", "DDIMScheduler", {"prediction_type": "v_prediction"}),
        ("sdxl", "EulerDiscreteScheduler", {"timestep_spacing": "leading"}),
        ("sdxl", "DPMSolverMultistepScheduler", {"timestep_spacing": "leading"}),
        ("sd3", None, {}),
    ],
)
def test_what_is_added_is_the_finite_difference(
    kind: str, scheduler: str | None, config: dict[str, object]
) -> None:
    """Central differences along random directions, in float64, of a reward spelt out by hand."""
    pipe, arguments = prepared(kind, scheduler, steps=3, **config)
    in_float64(pipe)
    scorer = tiny_clip().double()
    prompts = [PROMPT, "a dog"]
    guidance = RewardGuidance(pipe, prompts, scorer, scale=0.5, normalise=False)
    checked = []

    def watched(pipe: Any, i: int, t: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
        returned = guidance(pipe, i, t, tensors)
        if i + 1 == arguments["num_inference_steps"]:
            assert returned == {}
            return returned
        assert list(returned) == ["latents"]
        latents = tensors["latents"]
        assert latents.dtype == torch.float64
        gradient = (returned["latents"] - latents) / 0.5
        reward = hand_made_reward(pipe, scorer, prompts, i + 1, tensors)
        torch.testing.assert_close(guidance.rewards[i + 1], reward(latents))
        generator = torch.Generator().manual_seed(i)
        for _ in range(2):
            direction = torch.randn(latents.shape, dtype=latents.dtype, generator=generator)
            ahead, behind = (reward(latents + s * 1e-6 * direction) for s in (1, -1))
            numeric = (ahead - behind) / 2e-6
            analytic = (gradient * direction).flatten(1).sum(1)
            torch.testing.assert_close(analytic, numeric, rtol=1e-4, atol=1e-6)
            checked.append(i)
        return returned

    made(pipe, arguments, **{**guidance.arguments, "callback_on_step_end": watched})
    assert checked == [0, 0, 1, 1]
