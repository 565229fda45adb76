"""The whole training with tiny networks: what it writes, and that a broken one ends the same."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from helpers.painted import painted
from helpers.tiny_lab_pipeline import TINY
from helpers.typed import refused
from PIL import Image
from safetensors.torch import load_file

from stablepref.benchmarks.shapes.clip.training_files import (
    forget_metrics,
    log_metrics,
)
from stablepref.benchmarks.shapes.oracle.grading import Grade
from stablepref.benchmarks.shapes.pipeline import train as pipeline_train
from stablepref.benchmarks.shapes.pipeline.autoencoder import AutoencoderConfig, train_autoencoder
from stablepref.benchmarks.shapes.pipeline.denoiser import DenoiserConfig
from stablepref.benchmarks.shapes.pipeline.grade import attribute_shares, correct_shares, main
from stablepref.benchmarks.shapes.pipeline.parts import build_autoencoder
from stablepref.benchmarks.shapes.pipeline.prompt_encoder import (
    PromptEncoderConfig,
    train_prompt_encoder,
)
from stablepref.benchmarks.shapes.pipeline.sampling import Sample, sample_prompts
from stablepref.benchmarks.shapes.pipeline.train import train_pipeline
from stablepref.benchmarks.shapes.world.prompts import lab_prompts
from stablepref.integrations.diffusion.load import dtype_argument

FIRST = AutoencoderConfig(sizes=TINY, steps=4, warmup=1, batch_size=2)
TEXT = PromptEncoderConfig(sizes=TINY, steps=4, warmup=1, batch_size=3)
SECOND = DenoiserConfig(sizes=TINY, pictures=10, steps=6, warmup=1, batch_size=4)
HALF: dict = {dtype_argument(): torch.float16}
WEIGHTS = [
    "vae/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
]


def run(folder: Path, **options: int) -> Path:
    """Train with checkpoints at every second step and sheets after steps 4 and 6."""
    chosen = {"checkpoint_every": 2, "visit_every": 4, "prompts_per_category": 1, **options}
    return train_pipeline(FIRST, TEXT, SECOND, folder, quiet=True, **chosen)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert run(folder) == folder / "pipeline"
    return folder


def test_it_writes_sheets_metrics_and_a_half_precision_pipeline(trained: Path) -> None:
    assert [path.name for path in sorted((trained / "samples").iterdir())] == [
        "000004.png",
        "000006.png",
        "autoencoder.png",
    ]
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [
        *(("autoencoder", step) for step in (2, 4)),
        ("reconstruction", 0),
        *(("text", step) for step in (2, 4)),
        *(("denoiser", step) for step in (2, 4, 6)),
    ]
    assert all(0 <= row["correct"] <= 1 for row in rows if row["step"] == 6)
    for name in WEIGHTS:
        tensors = load_file(trained / "pipeline" / name)
        kinds = {value.dtype for value in tensors.values() if value.is_floating_point()}
        assert kinds == {torch.float16}


def test_it_loads_as_any_pipeline_of_diffusers(trained: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(trained / "pipeline")
    assert pipe.safety_checker is None
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}
    pipe.set_progress_bar_config(disable=True)
    (picture,) = pipe("zebras at dawn", num_inference_steps=2).images
    assert picture.size == (64, 64)
    half = StableDiffusionPipeline.from_pretrained(trained / "pipeline", **HALF)
    assert half.unet.dtype == half.text_encoder.dtype == torch.float16


def test_a_training_that_is_broken_everywhere_ends_with_the_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train_autoencoder(FIRST, tmp_path, checkpoint_every=2, stop_after=2) is None
    (tmp_path / "metrics.jsonl").open("a").write('{"stage": "autoencoder", "st')
    draw = pipeline_train.draw_samples

    def stop_at(name: str) -> None:
        """Break the training where the sheet of that name would be drawn."""

        def draw_or_break(path: Path, samples: Sequence[Sample]) -> None:
            if path.name == name:
                raise KeyboardInterrupt
            draw(path, samples)

        monkeypatch.setattr(pipeline_train, "draw_samples", draw_or_break)

    for name in ("autoencoder.png", "000004.png", "000006.png"):
        stop_at(name)
        if name == "000004.png":
            assert train_prompt_encoder(TEXT, tmp_path, checkpoint_every=2, stop_after=2) is None
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    stop_at("")
    run(tmp_path)
    for name in WEIGHTS:
        one, other = (load_file(folder / "pipeline" / name) for folder in (trained, tmp_path))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)

    def numbers(folder: Path) -> list[dict]:
        rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        kept = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
        return sorted(kept, key=lambda row: (row["stage"], row["step"]))

    assert numbers(tmp_path) == numbers(trained)


def test_another_training_in_the_same_folder_is_refused(trained: Path) -> None:
    other = AutoencoderConfig(sizes=TINY, steps=5, warmup=1, batch_size=2)
    with pytest.raises(ValueError, match=r"steps was 4 and is 5\. Choose another folder"):
        train_pipeline(other, TEXT, SECOND, trained, quiet=True)
    prompts = PromptEncoderConfig(sizes=TINY, steps=4, warmup=1, batch_size=5)
    with pytest.raises(ValueError, match="batch_size was 3 and is 5"):
        train_pipeline(FIRST, prompts, SECOND, trained, quiet=True)
    denoiser = DenoiserConfig(sizes=TINY, pictures=10, steps=6, warmup=1, batch_size=4, seed=3)
    with pytest.raises(ValueError, match="seed was 0 and is 3"):
        train_pipeline(FIRST, TEXT, denoiser, trained, quiet=True)


def test_another_denoiser_is_refused_before_anything_is_trained(
    trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "denoiser.pt").write_bytes((trained / "denoiser.pt").read_bytes())
    with pytest.raises(ValueError, match=r"denoiser\.pt .* batch_size was 4 and is 5"):
        train_pipeline(
            FIRST, TEXT, DenoiserConfig(sizes=TINY, pictures=10, steps=6, warmup=1, batch_size=5),
            tmp_path, quiet=True,
        )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["denoiser.pt"]


def test_an_autoencoder_that_is_there_is_taken_as_it_is(trained: Path, tmp_path: Path) -> None:
    given = build_autoencoder(TINY, seed=7).half().float()
    options: dict = {"checkpoint_every": 2, "visit_every": 4, "prompts_per_category": 1}
    made = train_pipeline(
        FIRST, TEXT, SECOND, tmp_path, autoencoder=given, quiet=True, **options
    )  # fmt: skip
    assert not (tmp_path / "autoencoder.pt").exists()
    saved = load_file(made / "vae" / "diffusion_pytorch_model.safetensors")
    for name, value in given.state_dict().items():
        assert torch.equal(saved[name].float(), value)
    with pytest.raises(ValueError, match=r"begun with an autoencoder that was given; .*--autoenc"):
        train_pipeline(FIRST, TEXT, SECOND, tmp_path, quiet=True, **options)
    other = load_file(trained / "pipeline" / WEIGHTS[1])
    assert not all(
        torch.equal(value, other[name]) for name, value in load_file(made / WEIGHTS[1]).items()
    )


def test_metrics_past_a_step_are_forgotten(tmp_path: Path) -> None:
    forget_metrics(tmp_path, "one", 0)
    for stage in ("one", "two"):
        for step in (1, 2):
            log_metrics(tmp_path, stage, step, {"value": 0.5})
    forget_metrics(tmp_path, "two", 1)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [("one", 1), ("one", 2), ("two", 1)]


def test_pictures_depend_on_prompt_and_number_but_not_on_the_batch(trained: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(trained / "pipeline")
    prompts = lab_prompts("validation", per_category=1)[:2]
    options: dict = {"pictures": 2, "steps": 2, "quiet": True}
    whole = sample_prompts(pipe, prompts, batch_size=4, **options)
    single = sample_prompts(pipe, prompts, batch_size=1, **options)
    assert [sample.prompt for sample in whole] == [prompts[0], prompts[0], prompts[1], prompts[1]]
    for one, other in zip(whole, single, strict=True):
        assert np.abs(one.picture.astype(int) - other.picture).max() <= 1
    assert len({sample.picture.tobytes() for sample in whole}) == 4


def test_shares_by_hand() -> None:
    prompts = lab_prompts("validation", per_category=2)[:3]
    right, wrong = Grade(True, True, True), Grade(True, False, True, relation=True)
    picture = painted("#8c8c8c")
    grades = [(0, right), (0, wrong), (1, right), (1, right), (2, wrong), (2, wrong)]
    samples = [Sample(prompts[index], picture, value) for index, value in grades]
    shares = correct_shares(samples)
    assert {name: row.value for name, row in shares.items()} == {
        "all": 0.5,
        "single object": 0.75,
        "counting": 0.0,
    }
    assert (shares["all"].prompts, shares["all"].trials) == (3, 6)
    found = attribute_shares(samples)
    assert found == {"count": 1.0, "colour": 0.5, "shape": 1.0, "relation": 1.0}


def test_the_command_prints_a_table(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict = {"pictures": 2, "per_category": 1, "steps": 2, "device": "cpu"}
    out, sheet = tmp_path / "grades.json", tmp_path / "sheet.png"
    main(trained / "pipeline", out=out, sheet=sheet, threads=None, **options)
    assert "rows and columns" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["fully_correct"]["all"]["trials"] == 20
    assert len(report["fully_correct"]) == 11
    with Image.open(sheet) as picture:
        assert picture.width > picture.height
    told = refused(main, trained / "pipeline", "--split", "tests")
    assert "'tests' is not one of 'train', 'validation', 'test'" in told


def test_the_training_command_checks_its_precision(tmp_path: Path) -> None:
    told = refused(pipeline_train.main, "--out", tmp_path / "run", "--precision", "fp16")
    assert "'fp16' is not one of 'fp32', 'bf16'" in told
    told = refused(pipeline_train.main, "--out", tmp_path / "run", "--autoencoder", tmp_path / "no")
    assert "does not exist" in told
    told = refused(pipeline_train.main, "--out", tmp_path / "run", "--autoencoder", tmp_path)
    assert "cannot be loaded" in told
    AutoencoderKL(latent_channels=4).save_pretrained(tmp_path / "vae")
    told = refused(pipeline_train.main, "--out", tmp_path / "run", "--autoencoder", tmp_path)
    assert "4 channels of 64 x 64 latents, scaled by 0.18215; expected 4 of 16 x 16" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("places", [True, False])
def test_places_are_taught_unless_told_otherwise(
    places: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list = []

    def train(*given: object, **_: object) -> Path:
        seen.extend(given)
        return tmp_path

    monkeypatch.setattr(pipeline_train, "train_pipeline", train)
    pipeline_train.main(tmp_path / "run", places=places, seed=4, threads=None)
    _, prompts, denoiser, folder = seen
    assert folder == tmp_path / "run"
    assert (prompts.steps > 0) == (denoiser.places_weight > 0) == places
    assert prompts.seed == denoiser.seed == 4
