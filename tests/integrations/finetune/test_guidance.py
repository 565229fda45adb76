"""Which scale of guidance the pictures to train on have, where the settings name none."""

from typing import Any

import pytest
from diffusers import DDIMScheduler
from helpers.tiny_finetune import PROMPTS, generators, pipeline, quick
from torch import equal

from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.finetune.run import guidance_of

# The defaults of the pipelines' calls, as their documentation has them.
OWN = {
    "sd": 7.5, "sdxl": 5.0, "sd3": 7.0, "flux": 3.5, "flux2": 4.0, "qwen": 4.0, "z-image": 5.0,
    "lumina2": 4.0, "lcm": 8.5, "pixart": 4.5, "sana": 4.5,
}  # fmt: skip
EMBEDDED = ("flux", "lcm")


@pytest.mark.parametrize("kind", OWN)
def test_it_is_the_calls_own_or_the_papers(kind: str) -> None:
    pipe = pipeline(kind)
    unguided = 0.0 if kind == "z-image" else 1.0
    expected = {"draft": OWN[kind], "nft": unguided, "grpo": unguided + 3.5}
    for method, scale in expected.items():
        found = guidance_of(pipe, quick(method=method, pictures_per_prompt=2, guidance=None))
        assert found == (OWN[kind] if kind in EMBEDDED else scale)
    given = quick(method="nft", pictures_per_prompt=2, guidance=2.5)
    assert guidance_of(pipe, given) == 2.5


@pytest.mark.parametrize("kind", ["sd", "sd3", "z-image", "sana"])
def test_nft_draws_without_guidance(kind: str) -> None:
    pipe: Any = pipeline(kind)
    if kind == "sd":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    config = quick(method="nft", pictures_per_prompt=2, guidance=None)
    loop = SamplingLoop(pipe, steps=2, guidance=guidance_of(pipe, config), height=32, width=32)
    drawn = loop.sample(PROMPTS, generators(2))
    assert equal(drawn, loop.sample(PROMPTS, generators(2), guided=False))
