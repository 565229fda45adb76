"""docs/pipeline_lab.md has the numbers of the code, and what it shows runs."""

import re

from helpers.places import DOCS

from stablepref.benchmarks.shapes.pipeline.autoencoder import AutoencoderConfig
from stablepref.benchmarks.shapes.pipeline.denoiser import DenoiserConfig
from stablepref.benchmarks.shapes.pipeline.parts import (
    GUIDANCE,
    Sizes,
    build_autoencoder,
    build_denoiser,
    build_text_encoder,
)
from stablepref.benchmarks.shapes.pipeline.prompt_encoder import PromptEncoderConfig
from stablepref.benchmarks.shapes.world.prompts import CATEGORIES

PAGE = (DOCS / "pipeline_lab.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())


def test_the_examples_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/pipeline_lab.md", "exec"), {"__name__": "__main__"})


def test_numbers_are_those_of_the_code() -> None:
    first, text, second = AutoencoderConfig(), PromptEncoderConfig(), DenoiserConfig()
    assert f"{first.steps:,} steps of {first.batch_size} pictures" in WORDS
    assert f"{text.steps:,} steps of {text.batch_size} prompts" in WORDS
    assert f"{second.steps:,} steps of {second.batch_size} latents" in WORDS
    assert f"latents** of {second.pictures:,} pictures" in WORDS
    assert f"guidance {GUIDANCE:g}" in WORDS
    assert ", ".join(CATEGORIES) in WORDS
    for build in (build_autoencoder, build_text_encoder, build_denoiser):
        number = sum(weight.numel() for weight in build(Sizes(), seed=0).parameters())
        assert f"{number / 1e6:.2f} million" in PAGE
