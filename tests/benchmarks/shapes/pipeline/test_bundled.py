"""The bundled pipeline: genuine diffusers, small, and it draws what prompts say."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from helpers.typed import refused

from stablepref.assets import PIPELINES
from stablepref.benchmarks.bench.contestants import parse_contestant
from stablepref.benchmarks.shapes.pipeline import grade
from stablepref.benchmarks.shapes.pipeline.grade import correct_shares
from stablepref.benchmarks.shapes.pipeline.sampling import sample_prompts
from stablepref.benchmarks.shapes.studies import finetune, guidance, selection
from stablepref.benchmarks.shapes.world.prompts import lab_prompts
from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.load import load_pipeline

MEGA = 1e6


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(PIPELINES["shapes"])


def test_it_is_small() -> None:
    size = sum(file.stat().st_size for file in PIPELINES["shapes"].rglob("*") if file.is_file())
    assert size <= 12 * MEGA


def test_it_draws_what_single_objects_prompts_say(pipe: StableDiffusionPipeline) -> None:
    prompts = lab_prompts(per_category=12)[:12]
    assert {one.category for one in prompts} == {"single object"}
    samples = sample_prompts(pipe, prompts, quiet=True)
    assert sum(sample.grade.correct for sample in samples) >= 6


@pytest.mark.slow  # 400 pictures
def test_it_draws_the_prompt_set(pipe: StableDiffusionPipeline) -> None:
    samples = sample_prompts(pipe, lab_prompts(), pictures=2, quiet=True)
    share = correct_shares(samples)["all"]
    assert share.value >= 0.4
    assert share.value <= 0.9, "selection and fine-tuning have nothing to gain"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (grade, ("MISSING",)),
        (selection, ("--out", "OUT", "--pipeline", "MISSING")),
        (guidance, ("--out", "OUT", "--pipeline", "MISSING")),
        (finetune, ("--out", "OUT", "--pipeline", "MISSING")),
    ],
)
def test_a_folder_of_another_pipeline_that_is_not_there_is_named(
    tmp_path: Path, command: ModuleType, arguments: tuple[str, ...]
) -> None:
    paths = {"OUT": str(tmp_path / "out"), "MISSING": str(tmp_path / "missing")}
    message = refused(command.main, *(paths.get(one, one) for one in arguments))
    assert "does not exist" in message
    assert not (tmp_path / "out").exists()


def test_its_name_is_taken_where_pipelines_are_named() -> None:
    loaded = load_pipeline("shapes", dtype="bfloat16", device=torch.device("cpu"))
    assert type(loaded) is StableDiffusionPipeline
    assert loaded.unet.dtype == torch.bfloat16
    made = parse_contestant("few=shapes,steps=10")
    assert (made.name, made.source, made.finished) == ("few", "shapes", False)
    assert made.row()["source"] == "shapes"
    assert parse_contestant("shapes").name == "shapes"


def test_equal_seeds_draw_equal_pictures(pipe: StableDiffusionPipeline) -> None:
    pipe.set_progress_bar_config(disable=True)
    one, two = (
        pipe(
            "a red circle", num_inference_steps=4, generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images
        for _ in range(2)
    )  # fmt: skip
    assert np.array_equal(one, two)


def test_each_candidate_can_be_made_again_alone(pipe: StableDiffusionPipeline) -> None:
    call = {"scorer": "shapes", "num_inference_steps": 5, "progress": False}
    together = best_of_n(pipe, "a red circle", n=4, keep=4, batch_size=4, **call)
    images = dict(zip(together.kept, together.images, strict=True))
    for index in (0, 3):
        alone = best_of_n(pipe, "a red circle", n=1, seed=together.seeds[index], **call)
        apart = np.asarray(alone.image, int) - np.asarray(images[index], int)
        assert np.abs(apart).max() <= 1
    again = best_of_n(pipe, "a red circle", n=4, keep=4, batch_size=4, **call)
    assert again.scores == together.scores
    for one, other in zip(again.images, together.images, strict=True):
        assert np.array_equal(one, other)
