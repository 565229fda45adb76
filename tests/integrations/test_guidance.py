"""Reward guidance: what it gains, what it costs, and whom it moves how far."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.brightness import Brightness
from helpers.guided import PROMPT, made, prepared, same
from helpers.tiny import tiny_clip
from torch import Tensor

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.x0 import SCHEDULERS
from stablepref.integrations.guidance import RewardGuidance
from stablepref.integrations.reward import DifferentiableReward
from stablepref.output.partial import ResumeError

FLOW = "FlowMatchEulerDiscreteScheduler"
OFTEN = ("DDIMScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler")
"""One of each family of schedulers."""


def counted(pipe: DiffusionPipeline) -> list[int]:
    """Rows of each call of the denoiser, from now on."""
    rows: list[int] = []
    denoiser = pipe.components.get("unet") or pipe.components["transformer"]

    def note(_: object, inputs: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        rows.append(len(inputs[0]) if inputs else len(kwargs["hidden_states"]))

    denoiser.register_forward_pre_hook(note, with_kwargs=True)
    return rows


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3"])
def test_scale_zero_changes_no_bit_and_costs_nothing(kind: str) -> None:
    pipe, arguments = prepared(kind)
    plain = made(pipe, arguments, prompt=[PROMPT])
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0)
    rows = counted(pipe)
    assert same(made(pipe, arguments, **guidance.arguments), plain)
    assert len(rows) == 4
    assert guidance.rewards == {}


@pytest.mark.parametrize(
    ("kind", "scheduler", "views"),
    [
        *(("sd", name, 0) for name in OFTEN),
        *(  # whose predictions of finished pictures test_x0 compares by default
            pytest.param("sd", name, 0, marks=pytest.mark.slow)
            for name in SCHEDULERS
            if name not in (FLOW, *OFTEN)
        ),
        ("sdxl", "EulerDiscreteScheduler", 2),
        ("sd3", FLOW, 0),
    ],
)
def test_the_picture_scores_higher(kind: str, scheduler: str, views: int) -> None:
    pipe, arguments = prepared(kind, scheduler)
    scorer = tiny_clip()
    before = scorer.score(made(pipe, arguments, prompt=[PROMPT]), PROMPT).item()
    guidance = RewardGuidance(pipe, PROMPT, scorer, scale=0.05, views=views)
    after = scorer.score(made(pipe, arguments, **guidance.arguments), PROMPT).item()
    assert after > before + 0.5
    assert list(guidance.rewards) == [1, 2, 3]
    if not views:
        assert guidance.rewards[1] < guidance.rewards[2] < guidance.rewards[3] < after


@pytest.mark.parametrize(
    ("steps", "guided"),
    [
        ((0.0, 1.0), [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ((0.3, 0.5), [3, 4, 5]),
        ((0.7, 0.7), [7]),
        ((0.85, 1.0), [9]),
    ],
)
def test_steps_that_are_guided_cost_a_call_each(
    steps: tuple[float, float], guided: list[int]
) -> None:
    pipe, arguments = prepared("sd", steps=10)
    rows = counted(pipe)
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1, steps=steps)
    made(pipe, arguments, **guidance.arguments)
    assert list(guidance.rewards) == guided
    assert rows == [2] * (10 + len(guided))


def moves(guidance: RewardGuidance, pipe: DiffusionPipeline, arguments: dict[str, Any]) -> Tensor:
    """How far the latents were moved after each guided step, as shares of their norms."""
    shares = []

    def watched(pipe: Any, i: int, t: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
        returned = guidance(pipe, i, t, tensors)
        if returned:
            before, after = tensors["latents"].flatten(1), returned["latents"].flatten(1)
            shares.append((after - before).norm(dim=1) / before.norm(dim=1))
        return returned

    made(pipe, arguments, **{**guidance.arguments, "callback_on_step_end": watched})
    return torch.stack(shares)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_normalised_moves_are_shares_of_the_norm_for_any_unit(scheduler: str) -> None:
    pipe, arguments = prepared("sd", scheduler, steps=3)
    for unit in (1.0, 1000.0):
        guidance = RewardGuidance(pipe, [PROMPT, "a dog"], Brightness(unit), scale=0.03)
        shares = moves(guidance, pipe, arguments)
        torch.testing.assert_close(shares, torch.full((2, 2), 0.03), rtol=1e-4, atol=1e-6)
    plain = [
        moves(
            RewardGuidance(pipe, PROMPT, Brightness(unit), scale=1.0, normalise=False),
            pipe,
            arguments,
        )
        for unit in (1.0, 10.0)  # the first move alone: later latents differ
    ]
    torch.testing.assert_close(plain[1][0], 10 * plain[0][0])


def test_each_picture_is_led_to_its_own_prompt() -> None:
    """Prompts are repeated as pipelines repeat them, and no picture moves another."""
    pipe, arguments = prepared("sd")
    prompts = ["red", "blue"]
    shared = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    guidance = RewardGuidance(pipe, prompts, Brightness(), scale=0.2)
    four = made(
        pipe,
        arguments,
        **guidance.arguments,
        num_images_per_prompt=2,
        latents=shared.repeat(4, 1, 1, 1),
    )
    for prompt, pictures in zip(prompts, (four[:2], four[2:]), strict=True):
        single = RewardGuidance(pipe, prompt, Brightness(), scale=0.2)
        (alone,) = made(pipe, arguments, **single.arguments, latents=shared)
        for picture in pictures:
            gap = np.abs(np.asarray(picture).astype(int) - np.asarray(alone))
            assert gap.max() <= 1
    assert not np.array_equal(four[0], four[2])


def test_views_are_other_ones_at_each_step() -> None:
    """Rewards are the robust ones of `DifferentiableReward` at the number of the step."""
    pipe, arguments = prepared("sd")
    scorer = tiny_clip()
    seen = []

    class Watched:
        """Stands in for the reward and keeps its calls."""

        def __init__(self, reward: DifferentiableReward) -> None:
            self.reward = reward

        def __call__(self, x0: Tensor, prompts: list[str], *, step: int) -> Tensor:
            seen.append((x0.detach(), step))
            return self.reward(x0, prompts, step=step)

    guidance = RewardGuidance(pipe, PROMPT, scorer, scale=0.02, views=3, reduce="min")
    guidance._reward = Watched(guidance._reward)  # type: ignore[assignment] # hands on
    made(pipe, arguments, **guidance.arguments)
    assert [step for _, step in seen] == [1, 2, 3]
    reward = DifferentiableReward(scorer, vae=pipe.vae, views=3, reduce="min")
    for x0, step in seen:
        expected = reward(x0, [PROMPT], step=step)
        torch.testing.assert_close(guidance.rewards[step], expected)


def test_checkpointing_and_inference_mode_change_nothing() -> None:
    pipe, arguments = prepared("sdxl", steps=2)
    plain = RewardGuidance(pipe, PROMPT, tiny_clip(), scale=0.05)
    pictures = made(pipe, arguments, **plain.arguments)
    light = RewardGuidance(pipe, PROMPT, tiny_clip(), scale=0.05, checkpointing=True)
    assert same(made(pipe, arguments, **light.arguments), pictures)
    with torch.inference_mode():
        assert same(made(pipe, arguments, **plain.arguments), pictures)


def test_weights_are_left_as_they_were() -> None:
    pipe, arguments = prepared("sd")
    before = {name: weight.clone() for name, weight in pipe.unet.state_dict().items()}
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    made(pipe, arguments, **guidance.arguments)
    for part in (pipe.unet, pipe.text_encoder):
        assert all(p.requires_grad and p.grad is None for p in part.parameters())
    assert all(torch.equal(w, before[name]) for name, w in pipe.unet.state_dict().items())


def test_candidates_of_best_of_n_are_guided() -> None:
    pipe, arguments = prepared("sd")
    scorer = Brightness()
    plain = best_of_n(pipe, PROMPT, scorer, 3, batch_size=2, **arguments)
    guidance = RewardGuidance(pipe, PROMPT, scorer, scale=0.1)
    guided = best_of_n(pipe, scorer=scorer, n=3, batch_size=2, **guidance.arguments, **arguments)
    assert all(a > b for a, b in zip(guided.scores, plain.scores, strict=True))


def test_a_folder_takes_no_candidates_of_another_guidance(tmp_path: Path) -> None:
    pipe, arguments = prepared("sd")
    scorer = Brightness()

    def continued(n: int, **settings: Any) -> None:  # noqa: ANN401 (those of the guidance)
        given: dict[str, Any] = {"scale": 0.1, **settings}
        guidance = RewardGuidance(pipe, PROMPT, scorer, **given)
        call = {"n": n, "out": tmp_path, **guidance.arguments, **arguments}
        best_of_n(pipe, scorer=scorer, **call)

    for n in (1, 2):
        continued(n)
    changes: tuple[dict[str, Any], ...] = (
        {"scale": 0.3}, {"views": 1}, {"steps": (0.0, 0.5)}, {"normalise": False},
        {"reduce": "min"},
    )  # fmt: skip
    for change in changes:
        with pytest.raises(ResumeError, match="callback_on_step_end"):
            continued(3, **change)


@pytest.mark.parametrize(
    ("guided", "asked"),
    [
        ([PROMPT], "a dog"),
        ([PROMPT], [PROMPT, "a dog"]),
        ([PROMPT, "a dog"], [PROMPT, "a dog"]),  # each batch would be taken for a half of each
        ([PROMPT, PROMPT], PROMPT),
    ],
)
def test_candidates_of_other_prompts_are_refused(guided: list[str], asked: str | list[str]) -> None:
    pipe, arguments = prepared("sd")
    guidance = RewardGuidance(pipe, guided, Brightness(), scale=0.1)
    given = guidance.arguments | {"prompt": asked} | arguments
    with pytest.raises(ValueError, match=r"the guidance is for .* make a guidance for each prompt"):
        best_of_n(pipe, scorer=Brightness(), n=2, **given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """SDXL in float16 has a decoder that overflows: it is lifted, and put back."""
    pipe, arguments = prepared("sdxl", steps=3)
    pipe.to(dtype)
    pipe.vae.register_to_config(force_upcast=True)
    scorer = tiny_clip()
    before = scorer.score(made(pipe, arguments, prompt=[PROMPT]), PROMPT).item()
    guidance = RewardGuidance(pipe, PROMPT, scorer, scale=0.05)
    after = scorer.score(made(pipe, arguments, **guidance.arguments), PROMPT).item()
    assert after > before + 0.5
    assert pipe.vae.dtype == dtype
