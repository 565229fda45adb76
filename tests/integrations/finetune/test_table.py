"""Which pipeline is trained by which method: the documentation's table is what tiny ones do."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.brightness import Brightness
from helpers.places import ROOT
from helpers.tiny_finetune import PROMPTS, pipeline, quick

from stablepref.data.groups import RankedGroup
from stablepref.integrations.diffusion.denoiser import denoiser_of
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.diffusion.schedulers import use_scheduler
from stablepref.integrations.finetune import finetune
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.integrations.finetune.methods import METHODS
from stablepref.integrations.finetune.run import check_trainable
from stablepref.integrations.reward import DifferentiableReward
from stablepref.output.tables import markdown_lines

KINDS = (
    "sd", "sdxl", "sd3", "flux", "flux2", "qwen", "z-image", "lumina2", "lcm", "pixart-alpha",
    "pixart", "sana",
)  # fmt: skip
YES, DDIM, NO = "yes", "with DDIM", "no"


@cache
def made(kind: str) -> DiffusionPipeline:
    return pipeline(kind)


def config_of(pipe: DiffusionPipeline, method: str, **settings: object) -> FinetuneConfig:
    rank = 2 if hasattr(pipe, "save_lora_weights") else 0
    group = 1 if METHODS[method].gradient or METHODS[method].pairs else 2  # type: ignore[index] # of these names
    chosen = {"pictures_per_prompt": group, "height": 32, "width": 32, **settings}
    return quick(method=method, rank=rank, **chosen)


def accepted(pipe: DiffusionPipeline, method: str) -> bool:
    """Whether everything that is checked before anything is made lets it pass."""
    config = config_of(pipe, method)
    try:
        check_trainable(pipe, config)
        SamplingLoop(pipe, steps=config.sampling_steps, guidance=2.0, height=32, width=32)
    except (TypeError, ValueError):
        return False
    return True


def with_ddim(kind: str) -> DiffusionPipeline | None:
    """The pipeline with DDIM, where its scheduler has the noise levels for it."""
    pipe = pipeline(kind)
    try:
        use_scheduler(pipe, "ddim")
    except ValueError:
        return None
    return pipe


def cell(kind: str, method: str) -> str:
    if accepted(made(kind), method):
        return YES
    other = with_ddim(kind)
    return DDIM if other is not None and accepted(other, method) else NO


def test_the_page_has_the_table_as_it_is() -> None:
    rows = [
        [f"`{type(made(kind)).__name__}`", *(cell(kind, method) for method in METHODS)]
        for kind in KINDS
    ]
    table = "\n".join(markdown_lines(["pipeline", *METHODS], rows, marked=True))
    page = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    assert table in page, f"write this into docs/pipelines.md:\n{table}"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_table_says_is_done(kind: str, method: str, tmp_path: Path) -> None:
    """A step changes the weights, or nothing is made."""
    found = cell(kind, method)
    pipe = pipeline(kind)
    if found == DDIM:
        use_scheduler(pipe, "ddim")
    config = config_of(
        pipe,
        method,
        steps=1,
        batch_size=2,
        sampling_steps=3,
        samples=1,
    )
    groups = None
    if METHODS[method].pairs:  # type: ignore[index] # of these names
        noise = np.random.default_rng(0)
        pictures = [noise.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(2)]
        groups = [RankedGroup(PROMPTS[0], tuple(pictures), (1, 2))]
    prompts = None if groups else PROMPTS
    reward = DifferentiableReward(Brightness(), vae=pipe.vae)
    out = tmp_path / "run"
    if found == NO:
        with pytest.raises((TypeError, ValueError)):
            finetune(pipe, prompts, reward, config, out=out, groups=groups, progress=False)
        assert not out.exists()
        return
    network = denoiser_of(pipe)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    finetune(pipe, prompts, reward, config, out=out, groups=groups, progress=False)
    after = denoiser_of(pipe).state_dict()
    if config.rank:  # of which the second matrix begins at 0
        assert any("lora_B" in name and bool(value.any()) for name, value in after.items())
    else:
        assert any(not torch.equal(value, before[name]) for name, value in after.items())
