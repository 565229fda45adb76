"""Denoisers in the wrappers of torch.compile and DDP: looked at, called and trained as they are."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DiffusionPipeline
from helpers.brightness import Brightness
from helpers.tiny_finetune import PROMPTS, SIDE, bright, disturb, generators, pipeline, quick
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stablepref.data.groups import RankedGroup
from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.described import described_pipeline
from stablepref.integrations.diffusion.pipelines import unwrapped
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.finetune.methods import METHODS
from stablepref.integrations.finetune.run import finetune
from stablepref.integrations.guidance import RewardGuidance
from stablepref.integrations.noise_optimization import optimize_noise

WAYS = ("compiled", "ddp", "compiled ddp")
CALL: dict[str, Any] = {"height": SIDE, "width": SIDE, "num_inference_steps": 3}


@pytest.fixture
def one_process() -> Iterator[None]:
    """A group of this process alone, as DDP wants one."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    if torch.distributed.is_initialized():  # a training ends the group
        torch.distributed.destroy_process_group()


def wrapped(way: str) -> DiffusionPipeline:
    """A tiny pipeline with its denoiser wrapped."""
    pipe = pipeline()
    if "compiled" in way:
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    if "ddp" in way:
        pipe.unet = DistributedDataParallel(pipe.unet)
    return pipe


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("way", WAYS)
def test_fingerprints_and_pictures_do_not_depend_on_wrappers(way: str) -> None:
    plain, pipe = pipeline(), wrapped(way)
    assert described_pipeline(pipe) == described_pipeline(plain)
    size = {"height": SIDE, "width": SIDE}
    with torch.compiler.set_stance("force_eager"):
        found = SamplingLoop(pipe, steps=2, **size).sample(PROMPTS, generators(2))
        guidance = RewardGuidance(pipe, "a dog", Brightness(), scale=0.1)
        led = guidance.draw(**CALL, generator=generators(1), output_type="pt").images
    assert torch.equal(found, SamplingLoop(plain, steps=2, **size).sample(PROMPTS, generators(2)))
    guidance = RewardGuidance(plain, "a dog", Brightness(), scale=0.1)
    assert torch.equal(led, guidance.draw(**CALL, generator=generators(1), output_type="pt").images)
    assert type(pipe.unet) is type(wrapped(way).unet)


@pytest.mark.parametrize("also", ["", "mixed", "compiled"])
def test_fingerprints_and_pictures_do_not_depend_on_pefts_wrapper(also: str) -> None:
    """An adapter within `PeftModel` is the same adapter that diffusers puts in."""
    adapter = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")
    plain, pipe = pipeline(), pipeline()
    plain.unet.add_adapter(adapter)
    disturb(plain.unet)
    pipe.unet = get_peft_model(pipe.unet, adapter, mixed=also == "mixed")
    unwrapped(pipe.unet).load_state_dict(plain.unet.state_dict())
    if also == "compiled":
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    found, expected = described_pipeline(pipe), described_pipeline(plain)
    assert found == expected
    size = {"height": SIDE, "width": SIDE}
    with torch.compiler.set_stance("force_eager"):
        drawn = SamplingLoop(pipe, steps=2, **size).sample(PROMPTS, generators(2))
    assert torch.equal(drawn, SamplingLoop(plain, steps=2, **size).sample(PROMPTS, generators(2)))


def picture(pipe: DiffusionPipeline) -> Any:  # noqa: ANN401 (an array)
    return pipe(prompt="a red dog", generator=generators(1), output_type="np", **CALL).images


@pytest.mark.parametrize(
    ("way", "stance"),
    [
        *((way, "force_eager") for way in WAYS),
        pytest.param("compiled", "default", marks=pytest.mark.slow),  # traced by dynamo
    ],
)
def test_what_is_trained_in_a_wrapper_draws_the_same_without(
    way: str,
    stance: str,
    tmp_path: Path,
    alone: tuple[Any, Any],
    one_process: None,
) -> None:
    """By plain diffusers, from the folder of the training."""
    with torch.compiler.set_stance(stance):  # type: ignore[arg-type] # names that torch knows
        compare_training(way, tmp_path, alone)


def trained(pipe: DiffusionPipeline, out: Path, **settings: Any) -> Path:  # noqa: ANN401 (of many types)
    """The matrices of a short training."""
    chosen = {"steps": 2, "batch_size": 2, "learning_rate": 0.1, "samples": 2, **settings}
    pairs = settings.get("method") == "dpo"
    result = finetune(
        pipe,
        None if pairs else PROMPTS,
        bright(pipe),
        quick(**chosen),
        out=out,
        groups=ranked() if pairs else None,
        progress=False,
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    return result.lora


def ranked() -> list[RankedGroup]:
    """Two pictures of noise, one better than the other."""
    noise = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    return [RankedGroup(PROMPTS[0], tuple(noise), (1, 2))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Pictures of a pipeline without a wrapper before its training and after it."""
    pipe = pipeline()
    before = picture(pipe)
    trained(pipe, tmp_path_factory.mktemp("alone"))
    return before, picture(pipe)


def compare_training(way: str, tmp_path: Path, alone: tuple[Any, Any]) -> None:
    pipe, plain = wrapped(way), pipeline()
    before, expected = alone
    plain.load_lora_weights(trained(pipe, tmp_path / "run"))
    drawn = picture(plain)
    assert np.abs(drawn - before).max() > 0.01
    if way == "compiled":  # diffusers does not draw with DDP around a denoiser
        assert np.array_equal(picture(pipe), drawn)
    np.testing.assert_allclose(expected, drawn, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        "nft",
        *(
            pytest.param(method, marks=pytest.mark.slow)
            for method in METHODS
            if method not in {"draft", "nft"}
        ),
    ],
)
def test_every_method_trains_a_compiled_denoiser_as_a_plain_one(
    method: str, tmp_path: Path
) -> None:
    settings = {"method": method, "pictures_per_prompt": 2, "guidance": 1.0}
    plain, pipe, alone = pipeline(), wrapped("compiled"), pipeline()
    before = picture(plain)
    with torch.compiler.set_stance("force_eager"):
        plain.load_lora_weights(trained(pipe, tmp_path / "compiled", **settings))
        drawn = picture(plain)
        assert np.array_equal(picture(pipe), drawn)
    assert np.abs(drawn - before).max() > 0.01
    trained(alone, tmp_path / "alone", **settings)
    np.testing.assert_allclose(picture(alone), drawn, rtol=0, atol=1e-4)


def test_no_module_is_asked_whether_it_is_true(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrapped module may have a length, and then be false."""

    def asked(self: nn.Module) -> bool:
        by = sys._getframe(1).f_globals.get("__name__", "")
        assert not by.startswith("stablepref"), f"{by} asks whether a {type(self)} is true"
        return not hasattr(type(self), "__len__") or len(self) > 0

    monkeypatch.setattr(nn.Module, "__bool__", asked, raising=False)
    pipe = pipeline()
    with pytest.raises(AssertionError, match="asks whether"):
        eval("1 if unet else 0", {"unet": pipe.unet, "__name__": "stablepref.module"})
    best_of_n(pipe, "a dog", Brightness(), 2, prune={0.5: 0.5}, out=tmp_path / "n", **CALL)
    RewardGuidance(pipe, "a dog", Brightness(), scale=0.1).draw(**CALL)
    optimize_noise(pipe, "a dog", Brightness(), iterations=1, **CALL)
    for method in METHODS:
        config = quick(method=method, steps=1, pictures_per_prompt=2)
        pairs = method == "dpo"
        finetune(
            pipe, None if pairs else PROMPTS, bright(pipe), config, out=tmp_path / method,
            groups=ranked() if pairs else None, held_out=Brightness(2.0, name="other"),
            progress=False,
        )  # fmt: skip
        AcceleratorState._reset_state(reset_partial_state=True)
        pipe = pipeline()
