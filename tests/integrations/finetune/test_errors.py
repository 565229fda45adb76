"""What a fine-tuning cannot use is told clearly, and leaves the pipeline as it was."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DiffusionPipeline, EulerDiscreteScheduler
from helpers.brightness import Brightness
from helpers.tiny import tiny_clip
from helpers.tiny_finetune import PROMPTS, bright, pipeline, quick
from torch import Tensor

from stablepref.integrations.finetune import state as finetune_run
from stablepref.integrations.finetune.lora import remove_lora
from stablepref.integrations.finetune.run import finetune
from stablepref.integrations.reward import DifferentiableReward
from stablepref.output.locks import InUseError, sole_writer


def with_safety_checker(pipe: DiffusionPipeline) -> None:
    pipe.register_modules(safety_checker=pipe.text_encoder)  # any network: none is called


def in_half_precision(pipe: DiffusionPipeline) -> None:
    pipe.to(torch.float16)


def in_bfloat16(pipe: DiffusionPipeline) -> None:
    pipe.to(torch.bfloat16)


def without_text_encoder(pipe: DiffusionPipeline) -> None:
    pipe.text_encoder = None


def with_euler(pipe: DiffusionPipeline) -> None:
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)


def as_it_is(pipe: DiffusionPipeline) -> None:
    del pipe


@pytest.mark.parametrize(
    ("change", "prompts", "settings", "says"),
    [
        (as_it_is, [], {}, "the list of prompts is empty"),
        (as_it_is, ["a", " "], {}, "prompt 1 "),
        (with_safety_checker, PROMPTS, {}, "has a safety checker.*safety_checker = None"),
        (in_half_precision, PROMPTS, {}, "float16.*load it with (torch_)?dtype=torch.bfloat16"),
        (without_text_encoder, PROMPTS, {}, "has no text_encoder"),
        (as_it_is, ["a"], {"pictures_per_sample": 1}, "there is 1 sample, and a report needs 2"),
        (as_it_is, PROMPTS, {"sampling_steps": 1001}, "1001"),
        (with_euler, PROMPTS, {"method": "ddpo"}, "ddpo needs DDIMScheduler"),
        (in_bfloat16, PROMPTS, {"rank": 0}, "unet is in bfloat16, and rank=0 .*=torch.float32"),
    ],
)
def test_refused_before_anything_is_made(
    change: Callable[[DiffusionPipeline], None],
    prompts: Sequence[str],
    settings: dict[str, Any],
    says: str,
    tmp_path: Path,
) -> None:
    pipe = pipeline()
    change(pipe)
    with pytest.raises(ValueError, match=says):
        finetune(pipe, prompts, bright(pipe), quick(**settings), out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())
    assert not hasattr(pipe.unet, "peft_config")


def test_one_string_is_no_list_of_prompts(tmp_path: Path) -> None:
    pipe = pipeline()
    with pytest.raises(TypeError, match="expected a list of prompts"):
        finetune(pipe, "a dog", bright(pipe), quick(), out=tmp_path)


def test_the_reward_is_not_its_own_judge(tmp_path: Path) -> None:
    pipe = pipeline()
    reward = bright(pipe)
    with pytest.raises(ValueError, match="held_out bright is optimised as well"):
        finetune(pipe, PROMPTS, reward, quick(), out=tmp_path, held_out=reward.scorer)


def flat(scorer: Brightness, make: Callable[[Tensor], Tensor]) -> Brightness:
    """The scorer with something done to its image features."""
    encode = scorer.encode_inputs
    scorer.encode_inputs = lambda inputs: make(encode(inputs))  # type: ignore[method-assign]
    return scorer


def test_a_scorer_without_gradient_is_for_ddpo(tmp_path: Path) -> None:
    def reward(pipe: DiffusionPipeline) -> DifferentiableReward:
        scorer = flat(Brightness(), lambda values: (values * 255).detach().round() / 255)
        return DifferentiableReward(scorer, vae=pipe.vae)

    pipe = pipeline()
    with pytest.raises(ValueError, match=r"bright gives rewards without a gradient.*ddpo"):
        finetune(pipe, PROMPTS, reward(pipe), quick(), out=tmp_path / "a", progress=False)
    assert not hasattr(pipe.unet, "peft_config")
    config = quick(method="ddpo", steps=1)
    finetune(pipe, PROMPTS, reward(pipe), config, out=tmp_path / "b", progress=False)


@pytest.mark.parametrize("method", ["draft", pytest.param("ddpo", marks=pytest.mark.slow)])
def test_a_reward_that_is_not_finite_names_step_and_checkpoint(method: str, tmp_path: Path) -> None:
    """From the third step on."""
    pipe = pipeline()
    reward = bright(pipe)
    calls = 0
    scores = DifferentiableReward._view_scores

    def broken(self: DifferentiableReward, *given: object) -> Tensor:
        nonlocal calls
        calls += 1
        return scores(self, *given) * (torch.nan if calls > 2 else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DifferentiableReward, "_view_scores", broken)
        with pytest.raises(ValueError, match=r"step 3: .*not finite") as error:
            finetune(
                pipe,
                PROMPTS,
                reward,
                quick(method=method, steps=4, checkpoint_every=1),
                out=tmp_path,
                progress=False,
            )
    told = str(error.value)
    assert any(f"its prompts: {prompt!r}" in told for prompt in PROMPTS)
    assert f"the last good checkpoint is {tmp_path}/checkpoints/step-00000002" in told
    assert not hasattr(pipe.unet, "peft_config")
    AcceleratorState._reset_state(reset_partial_state=True)
    config = quick(method=method, steps=4, checkpoint_every=1)
    finetune(pipe, PROMPTS, reward, config, out=tmp_path, progress=False)


def test_a_gradient_that_is_not_finite_is_told(tmp_path: Path) -> None:
    def broken(values: Tensor) -> Tensor:
        if values.requires_grad:
            values.register_hook(lambda gradient: gradient * torch.nan)
        return values

    pipe = pipeline()
    reward = DifferentiableReward(flat(Brightness(), broken), vae=pipe.vae)
    with pytest.raises(FloatingPointError, match="gradient of step 1 is nan"):
        finetune(pipe, PROMPTS, reward, quick(), out=tmp_path, progress=False)


def test_many_prompts_are_named_in_part(tmp_path: Path) -> None:
    pipe = pipeline()
    broken = lambda values: values * torch.nan if values.requires_grad else values  # noqa: E731
    reward = DifferentiableReward(flat(Brightness(), broken), vae=pipe.vae)
    prompts = [f"prompt {i}" for i in range(14)]
    with pytest.raises(ValueError, match=f" and {14 - finetune_run.NAMED} more"):
        finetune(pipe, prompts, reward, quick(batch_size=14), out=tmp_path, progress=False)


def test_another_held_out_scorer_is_refused_when_going_on(tmp_path: Path) -> None:
    """Its scores do not compare with those of the first report."""
    pipe = pipeline()
    call = {"out": tmp_path, "progress": False}
    finetune(pipe, PROMPTS, bright(pipe), quick(steps=1), held_out=tiny_clip(), **call)
    remove_lora(pipe)
    with pytest.raises(ValueError, match="held_out"):
        finetune(pipe, PROMPTS, bright(pipe), quick(steps=2), **call)
    finetune(pipe, PROMPTS, bright(pipe), quick(steps=2), held_out=tiny_clip(), **call)


def test_a_folder_in_which_another_trains_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = pipeline()
    reward = bright(pipe)
    monkeypatch.setattr(type(pipe.unet), "forward", None)  # whatever draws fails
    with (
        sole_writer(tmp_path, folder=True),
        pytest.raises(InUseError, match="is being written by another process"),
    ):
        finetune(pipe, PROMPTS, reward, quick(), out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())
