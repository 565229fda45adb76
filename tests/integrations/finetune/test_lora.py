"""LoRA weights: nothing changes before they are trained, and plain diffusers loads them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.tiny_finetune import SIDE, generators, in_float64, pipeline
from numpy.typing import NDArray

from stablepref.integrations.finetune.lora import (
    ADAPTER,
    add_lora,
    check_no_adapters,
    remove_lora,
    save_lora,
)
from stablepref.integrations.finetune.weights import TrainedWeights

KINDS = ["sd", "sdxl", "sd3"]


def compiled(kind: str = "sd") -> DiffusionPipeline:
    """A pipeline whose denoiser is wrapped by `torch.compile`."""
    pipe = pipeline(kind)
    part = "transformer" if kind == "sd3" else "unet"
    setattr(pipe, part, torch.compile(getattr(pipe, part), backend="eager"))
    return pipe


def picture(pipe: DiffusionPipeline) -> NDArray[np.float32]:
    made: NDArray[np.float32] = pipe(
        prompt="a red dog",
        num_inference_steps=2,
        generator=generators(1),
        height=SIDE,
        width=SIDE,
        output_type="np",
    ).images
    return made


@torch.no_grad()
def disturb(weights: TrainedWeights) -> None:
    noise = torch.Generator().manual_seed(3)
    for weight in weights.parameters():
        weight.add_(torch.randn(weight.shape, generator=noise))


@pytest.mark.parametrize(
    "kind", [*KINDS, "flux", "flux2", "qwen", "z-image", "lumina2", "sana", "lcm"]
)
def test_saved_weights_load_in_plain_diffusers(kind: str, tmp_path: Path) -> None:
    pipe = pipeline(kind)
    before = picture(pipe)
    weights = add_lora(pipe, rank=2, seed=0)
    # Sana's linear attention sums in another order as soon as matrices are there, or were.
    rounding = 1e-6 if kind == "sana" else 0.0
    assert np.abs(picture(pipe) - before).max() <= rounding
    disturb(weights)
    trained = picture(pipe)
    assert np.abs(trained - before).max() > 0.03
    folder = tmp_path / "lora"
    save_lora(pipe, folder)
    save_lora(pipe, folder)  # in the place of what is there
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]
    assert [path.name for path in folder.iterdir()] == ["pytorch_lora_weights.safetensors"]

    plain = pipeline(kind)
    plain.load_lora_weights(folder)
    assert np.array_equal(picture(plain), trained)
    plain.unload_lora_weights()
    assert np.abs(picture(plain) - before).max() <= rounding
    remove_lora(pipe)
    assert np.abs(picture(pipe) - before).max() <= rounding
    add_lora(pipe, rank=2, seed=0)


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_the_matrices_alone_are_trained(kind: str) -> None:
    pipe = pipeline(kind)
    weights = add_lora(pipe, rank=3, seed=0)
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    trained = [w for part in modules for w in part.parameters() if w.requires_grad]
    assert {id(w) for w in trained} == {id(w) for w in weights.parameters()}
    assert len(trained) >= 14
    assert all(3 in weight.shape for weight in trained)
    state = weights.state_dict()
    assert all(value.any() == ("lora_A" in name) for name, value in state.items())


def test_weights_depend_on_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (add_lora(pipeline(), rank=2, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_they_are_of_a_type_that_keeps_small_steps(
    kind: torch.dtype, expected: torch.dtype
) -> None:
    pipe = in_float64(pipeline()) if kind == torch.float64 else pipeline().to(kind)
    weights = add_lora(pipe, rank=2, seed=0)
    assert {weight.dtype for weight in weights.parameters()} == {expected}
    assert pipe.unet.dtype == kind
    assert np.isfinite(picture(pipe)).all()


def test_adapters_that_are_there_are_refused() -> None:
    pipe = pipeline()
    check_no_adapters(pipe)
    add_lora(pipe, rank=2, seed=0)
    with pytest.raises(ValueError, match=f"adapters already: {ADAPTER}"):
        add_lora(pipe, rank=2, seed=0)


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_a_compiled_denoiser_saves_what_plain_pipelines_load(kind: str, tmp_path: Path) -> None:
    with torch.compiler.set_stance("force_eager"):  # wrapped all the same
        pipe = compiled(kind)
        weights = add_lora(pipe, rank=2, seed=0)
        expected = add_lora(pipeline(kind), rank=2, seed=0).state_dict()
        assert weights.state_dict().keys() == expected.keys()
        disturb(weights)
        save_lora(pipe, tmp_path / "lora")
        trained = picture(pipe)
        plain = pipeline(kind)
        before = picture(plain)
        plain.load_lora_weights(tmp_path / "lora")
        assert np.abs(picture(plain) - before).max() > 0.05
        assert np.array_equal(picture(plain), trained)
        with pytest.raises(ValueError, match=f"adapters already: {ADAPTER}"):
            add_lora(pipe, rank=2, seed=0)
        remove_lora(pipe)
        assert np.array_equal(picture(pipe), before)
