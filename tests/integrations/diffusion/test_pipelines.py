"""What is done to a pipeline's weights while gradients pass is undone, whatever happens."""

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, CpuOffload, add_hook_to_module
from diffusers.hooks import apply_group_offloading
from helpers.tiny_finetune import pipeline
from helpers.tiny_pipelines import build

from stablepref.integrations.diffusion.pipelines import (
    decoder_lifted,
    frozen,
    parts_of,
    refuse_offloading,
    require_pipeline,
    require_vae,
    unwrapped,
)


def test_frozen_and_as_before() -> None:
    pipe, _ = build("sd")
    pipe.text_encoder.requires_grad_(False)
    first = next(pipe.unet.parameters()).requires_grad_(False)

    def broken() -> None:
        with frozen(pipe):
            assert not any(p.requires_grad for p in pipe.unet.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert not first.requires_grad
    assert sum(not p.requires_grad for p in pipe.unet.parameters()) == 1
    assert not any(p.requires_grad for p in pipe.text_encoder.parameters())
    assert all(p.requires_grad for p in pipe.vae.parameters())


@pytest.mark.parametrize(
    ("dtype", "upcast", "within"),
    [
        (torch.float16, True, torch.float32),
        (torch.float16, False, torch.float16),
        (torch.bfloat16, True, torch.bfloat16),
    ],
)
def test_only_decoders_that_overflow_are_lifted(
    dtype: torch.dtype, upcast: bool, within: torch.dtype
) -> None:
    vae = build("sdxl")[0].vae.to(dtype)
    vae.register_to_config(force_upcast=upcast)
    before = {name: value.clone() for name, value in vae.state_dict().items()}

    def broken() -> None:
        with decoder_lifted(vae):
            assert vae.dtype == within
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert vae.dtype == dtype
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_offloaded_weights_are_refused() -> None:
    pipe, _ = build("sd")
    refuse_offloading(pipe)
    add_hook_to_module(pipe.unet, AlignDevicesHook(execution_device="cpu"))  # of a device map
    refuse_offloading(pipe)
    add_hook_to_module(pipe.vae, CpuOffload("cpu"))
    with pytest.raises(ValueError, match=r"the pipeline's vae is offloaded.*pipe\.to\(device\)"):
        refuse_offloading(pipe)
    other, _ = build("sd")
    add_hook_to_module(other.unet.conv_in, AlignDevicesHook(execution_device="cpu", offload=True))
    with pytest.raises(ValueError, match="the pipeline's unet is offloaded"):
        refuse_offloading(other)


def test_group_offloading_is_refused() -> None:
    pipe, _ = build("sd")
    apply_group_offloading(pipe.unet, onload_device=torch.device("cpu"), offload_type="leaf_level")
    with pytest.raises(ValueError, match="the pipeline's unet is offloaded"):
        refuse_offloading(pipe)


def test_wrappers_are_taken_off() -> None:
    """Of `torch.compile`, of DataParallel, which stands in for DDP, and of one in the other."""
    inner = torch.nn.Linear(2, 2)
    compiled = torch.compile(inner, backend="eager")
    parallel = torch.nn.DataParallel(inner)
    within = torch.nn.DataParallel(compiled)
    for wrapped in (inner, compiled, parallel, within, torch.compile(parallel, backend="eager")):
        assert unwrapped(wrapped) is inner
    assert unwrapped("a tokenizer") == "a tokenizer"
    assert unwrapped(None) is None
    pipe = pipeline()
    own = dict(pipe.components)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    assert pipe.components["unet"] is not own["unet"]
    found = parts_of(pipe)
    assert all(found[name] is part for name, part in own.items())


def test_what_is_no_pipeline_or_has_no_vae_is_refused() -> None:
    pipe = pipeline()
    require_pipeline(pipe)
    require_vae(pipe)
    with pytest.raises(TypeError, match="pipe is a str; expected a diffusers"):
        require_pipeline("a folder")
    pipe.vae = None
    with pytest.raises(ValueError, match="the StableDiffusionPipeline has no VAE"):
        require_vae(pipe)
