"""A pipeline is described by whatever changes its pictures, and by nothing else."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, FirstBlockCacheConfig
from diffusers.models.attention_processor import AttnProcessor2_0, SlicedAttnProcessor
from helpers.brightness import Brightness
from helpers.tiny_pipelines import build
from numpy.typing import NDArray
from peft import LoraConfig
from torch import Tensor

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.described import described_pipeline
from stablepref.output.partial import ResumeError

PROMPT = "a red circle"


class Louder(AttnProcessor2_0):
    """Attention of a user's own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        louder: Tensor = self.factor * super().__call__(*args, **kwargs)
        return louder


def adapted() -> DiffusionPipeline:
    """With two LoRAs, of which "a" is in use."""
    pipe, _ = build("sd")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for name in ("a", "b"):
            pipe.unet.add_adapter(
                LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]), name
            )
    pipe.set_adapters("a")
    return pipe


def picture(pipe: DiffusionPipeline) -> NDArray[np.float32]:
    pipe.set_progress_bar_config(disable=True)
    made: NDArray[np.float32] = pipe(
        "a dog", num_inference_steps=2, height=32, width=32, output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    return made


def with_token(pipe: DiffusionPipeline, value: float) -> None:
    """A textual inversion of one word."""
    embedding = torch.full((32,), value)
    pipe.load_textual_inversion({"dog</w>": embedding}, token="dog")


CHANGES: dict[str, Callable[[DiffusionPipeline], object]] = {
    "scale": lambda pipe: pipe.set_adapters("a", 0.2),
    "scale of a block": lambda pipe: pipe.set_adapters("a", {"unet": {"up": 0.5}}),
    "other adapter": lambda pipe: pipe.set_adapters("b"),
    "both adapters": lambda pipe: pipe.set_adapters(["a", "b"], [1.0, 0.5]),
    "disabled": lambda pipe: pipe.disable_lora(),
    "fused": lambda pipe: pipe.fuse_lora(lora_scale=0.5),
    "FreeU": lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4),
    "other FreeU": lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
    "scheduler": lambda pipe: setattr(
        pipe, "scheduler", DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    ),
    "scheduler's setting": lambda pipe: setattr(
        pipe, "scheduler", type(pipe.scheduler).from_config(pipe.scheduler.config, clip_sample=True)
    ),
    "weights": lambda pipe: pipe.unet.conv_out.weight.data.mul_(1.5),
    "VAE's scale": lambda pipe: pipe.vae.register_to_config(scaling_factor=0.5),
    "own attention": lambda pipe: pipe.unet.set_attn_processor(Louder(2.0)),
    "other attention": lambda pipe: pipe.unet.set_attn_processor(Louder(3.0)),
    "number type": lambda pipe: pipe.to(torch.bfloat16),
    "word": lambda pipe: with_token(pipe, 1.0),
    "other word": lambda pipe: with_token(pipe, -1.0),
}


def test_whatever_changes_pictures_changes_the_description() -> None:
    plain = adapted()
    found = {"plain": json.dumps(described_pipeline(plain))}
    before = picture(plain)
    for name, change in CHANGES.items():
        pipe = adapted()
        change(pipe)
        assert not np.array_equal(picture(pipe), before), name
        found[name] = json.dumps(described_pipeline(pipe))
    repeated = {name for name in found if list(found.values()).count(found[name]) > 1}
    assert not repeated
    assert json.dumps(described_pipeline(adapted())) == found["plain"]


NEUTRAL: dict[str, Callable[[DiffusionPipeline], object]] = {
    "used": picture,
    "compiled": lambda pipe: setattr(pipe, "unet", torch.compile(pipe.unet, backend="eager")),
    "attention slicing": lambda pipe: pipe.enable_attention_slicing(1),
    "sliced attention": lambda pipe: pipe.unet.set_attn_processor(SlicedAttnProcessor(2)),
    "VAE slicing": lambda pipe: pipe.vae.enable_slicing(),
    "progress bar": lambda pipe: pipe.set_progress_bar_config(disable=False),
    "checkpointing": lambda pipe: pipe.unet.enable_gradient_checkpointing(),
    "FreeU and back": lambda pipe: (pipe.enable_freeu(0.9, 0.2, 1.3, 1.4), pipe.disable_freeu()),
    "disabled and back": lambda pipe: (pipe.disable_lora(), pipe.enable_lora()),
    "copied": copy.deepcopy,
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_changes_rounding_alone_does_not(name: str) -> None:
    pipe = adapted()
    before = described_pipeline(pipe)
    changed = NEUTRAL[name](pipe)
    now = changed if isinstance(changed, DiffusionPipeline) else pipe
    assert described_pipeline(now) == before


def test_caches_and_tiles_count() -> None:
    pipe, _ = build("flux")
    found = [described_pipeline(pipe)]
    pipe.vae.enable_tiling()
    found.append(described_pipeline(pipe))
    for threshold in (0.1, 0.2):
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
        found.append(described_pipeline(pipe))
        pipe.transformer.disable_cache()
    assert len({json.dumps(one) for one in found}) == 4


def test_a_dropout_that_is_on_counts() -> None:
    pipe, _ = build("sd")
    before = described_pipeline(pipe)
    pipe.unet.train()
    assert described_pipeline(pipe) == before  # its dropouts have a probability of 0
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].ff.net[1].p = 0.1
    assert described_pipeline(pipe) != before


def test_best_of_n_does_not_continue_with_another_pipeline(tmp_path: Path) -> None:
    arguments = {"num_inference_steps": 2, "height": 32, "width": 32}
    best_of_n(adapted(), PROMPT, Brightness(), 1, out=tmp_path, **arguments)  # type: ignore[arg-type]
    for name in ("scale", "disabled", "FreeU", "own attention"):
        pipe = adapted()
        CHANGES[name](pipe)
        with pytest.raises(ResumeError, match="was made with"):
            best_of_n(pipe, PROMPT, Brightness(), 2, out=tmp_path, **arguments)  # type: ignore[arg-type]
    again = adapted()
    again.unet = torch.compile(again.unet, backend="eager")
    with torch.compiler.set_stance("force_eager"):
        more = best_of_n(again, PROMPT, Brightness(), 2, out=tmp_path, **arguments)  # type: ignore[arg-type]
    assert len(more.scores) == 2
