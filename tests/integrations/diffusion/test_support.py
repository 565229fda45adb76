"""The table of pipelines in the documentation is what tiny ones of each of the classes do."""

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from diffusers.pipelines.z_image import pipeline_z_image as z_image
from helpers.brightness import Brightness
from helpers.pictured import with_pictures
from helpers.places import ROOT
from helpers.tiny_finetune import PROMPTS, generators, pipeline, quick
from helpers.tiny_pipelines import short_run

from stablepref.integrations.best_of_n.candidates import check_pipeline
from stablepref.integrations.best_of_n.pruning import check_prune
from stablepref.integrations.diffusion.families import FAMILIES
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.diffusion.support import support_table
from stablepref.integrations.finetune.run import check_trainable
from stablepref.integrations.guidance import RewardGuidance
from stablepref.integrations.noise_optimization import optimize_noise
from stablepref.output.tables import markdown_lines

KINDS = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "Flux2KleinPipeline": "flux2",
    "QwenImagePipeline": "qwen",
    "ZImagePipeline": "z-image",
    "Lumina2Pipeline": "lumina2",
    "LatentConsistencyModelPipeline": "lcm",
    "PixArtAlphaPipeline": "pixart-alpha",
    "PixArtSigmaPipeline": "pixart",
    "SanaPipeline": "sana",
}


@cache
def made(name: str) -> DiffusionPipeline:
    """A tiny pipeline of a class."""
    if name in KINDS:
        return pipeline(KINDS[name])
    return with_pictures(name)[0]


def passes(check: Callable[[], object]) -> bool:
    """Whether it is not refused; nothing is made to find that."""
    try:
        check()
    except (TypeError, ValueError):
        return False
    return True


def cells(name: str) -> list[str]:
    """What is refused for a pipeline and what is not, as the checks before any work say."""
    pipe: Any = made(name)
    check_pipeline(pipe, {})
    guidable = passes(lambda: RewardGuidance(pipe, "a dog", Brightness(), scale=0.1))
    callback = guidable and passes(
        lambda: RewardGuidance(pipe, "a dog", Brightness(), scale=0.1).arguments
    )
    lora = hasattr(pipe, "save_lora_weights")

    def trained() -> None:
        SamplingLoop(pipe, steps=2, height=32, width=32)
        check_trainable(pipe, quick(rank=2 if lora else 0))

    tuned = "LoRA, all weights" if lora else "all weights, `rank=0`"
    return [
        "yes",
        "yes" if passes(lambda: check_prune(pipe, {0.5: 0.5}, {})) else "no",
        "yes, callback too" if callback else "yes" if guidable else "no",
        "yes" if passes(lambda: searched(pipe)) else "no",
        tuned if passes(trained) else "no",
    ]


def searched(pipe: DiffusionPipeline) -> None:
    """Noise optimisation as far as its checks: the picture's encoder is not reached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "stablepref.integrations.noise_optimization._first_noise", lambda *given: 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            optimize_noise(pipe, "a dog", Brightness())


def test_the_page_has_the_table_as_it_is() -> None:
    heads = ["pipeline", "best of n", "prune", "guidance", "noise optimisation", "fine-tuning"]
    rows = [[f"`{name}`", *cells(name)] for name in FAMILIES if hasattr(diffusers, name)]
    table = "\n".join(markdown_lines(heads, rows, marked=True))
    assert table == support_table()
    page = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    assert table in page, f"write this into docs/pipelines.md:\n{table}"


def test_every_row_is_a_pipeline_of_diffusers() -> None:
    for name in FAMILIES:
        takes = inspect.signature(inspect.unwrap(getattr(diffusers, name).__call__)).parameters
        assert "prompt" in takes
        family = FAMILIES[name]
        assert family.pictures or family.guidance in takes
        assert {*family.arguments, *family.pictures, *family.repeated} <= set(takes)
        assert not family.packed or family.takes_pictures or family.encode


@pytest.mark.parametrize(
    ("use", "instead"),
    [
        (lambda pipe: check_prune(pipe, {0.5: 0.5}, {}), "use best of n without prune="),
        (lambda pipe: RewardGuidance(pipe, "a", Brightness(), scale=1.0), "use best of n, which"),
        (lambda pipe: optimize_noise(pipe, "a", Brightness()), "use best of n, which takes all"),
        (lambda pipe: SamplingLoop(pipe, steps=2), "train the text-to-image pipeline of the same"),
    ],
)
def test_what_is_refused_says_what_to_use(use: Callable[[object], object], instead: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"is StableDiffusionImg2Img.*; {instead}"):
        use(made("StableDiffusionImg2ImgPipeline"))


def test_what_loads_no_lora_is_refused() -> None:
    with pytest.raises(ValueError, match=r"PixArtSigmaPipeline loads no LoRA; train .* rank=0"):
        check_trainable(pipeline("pixart"), quick())
    check_trainable(pipeline("flux"), quick())


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux", "sana"])
def test_auto_pipelines_are_those_of_the_table(kind: str, tmp_path: Path) -> None:
    """What diffusers picks for a folder is the class with a row."""
    pipe = pipeline(kind)
    pipe.save_pretrained(tmp_path)
    auto: Any = AutoPipelineForText2Image.from_pretrained(tmp_path)
    assert type(auto) is type(pipe)
    assert type(auto).__name__ in FAMILIES
    size = {"height": 32, "width": 32}
    drawn = SamplingLoop(auto, steps=2, **size).sample(PROMPTS, generators(2))
    assert torch.equal(drawn, SamplingLoop(pipe, steps=2, **size).sample(PROMPTS, generators(2)))


class AskedError(Exception):
    """The call has come to the noise levels of its steps."""


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_say_whether_the_call_gives_noise_levels(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe: Any = made(name)
    given = short_run(KINDS[name]) if name in KINDS else with_pictures(name)[1]
    seen: list[object] = []

    def set_timesteps(
        self: object,
        num_inference_steps: int | None = None,
        device: object = None,
        sigmas: object = None,
        timesteps: object = None,
        mu: object = None,
        **_: object,
    ) -> None:
        seen.append(sigmas)
        raise AskedError

    monkeypatch.setattr(type(pipe.scheduler), "set_timesteps", set_timesteps)
    with pytest.raises(AskedError):
        pipe(prompt="a dog", **given)
    if name.startswith("ZImage") and not getattr(z_image, "get_default_z_image_sigmas", None):
        pytest.skip("diffusers before 0.39 gives Z-Image's scheduler none")
    assert (seen[0] is not None) == FAMILIES[name].gives_sigmas
