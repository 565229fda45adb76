"""Trains the laboratory's text-to-image pipeline from nothing.

`python -m stablepref.benchmarks.shapes.pipeline.train --out runs/pipeline`, and again after a kill.
"""

import copy
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from stablepref.integrations.diffusion.load import load_vae
from stablepref.output.durable import SAVING
from stablepref.output.locks import sole_writer

from ..clip.stage import checkpoint_path
from ..clip.training_files import Precision, forget_metrics, load_checkpoint, log_metrics
from ..world.commands import DeviceOption, ThreadsOption, pipeline_folder
from ..world.drawing import IMAGE_SIZE
from ..world.prompts import lab_prompts
from .autoencoder import STAGE as AUTOENCODER_STAGE
from .autoencoder import AutoencoderConfig, finished_path, train_autoencoder
from .denoiser import STAGE as DENOISER_STAGE
from .denoiser import DenoiserConfig, settings_of, train_denoiser
from .latents import cache_latents
from .parts import LATENT_CHANNELS, LATENT_SIZE, assemble, save_pipeline
from .prompt_encoder import STAGE as TEXT_STAGE
from .prompt_encoder import PromptEncoderConfig, train_prompt_encoder
from .sampling import Sample, draw_samples, reconstruct_prompts, sample_prompts

PIPELINE_NAME = "pipeline"
CHECKPOINT_EVERY = 200
RECONSTRUCTION = "reconstruction"
LATENTS = "latents"


def train_pipeline(
    autoencoder_config: AutoencoderConfig,
    prompt_config: PromptEncoderConfig,
    denoiser_config: DenoiserConfig,
    folder: Path,
    *,
    autoencoder: AutoencoderKL | None = None,
    device: str = "cpu",
    workers: int = 0,
    checkpoint_every: int = CHECKPOINT_EVERY,
    visit_every: int = 2000,
    prompts_per_category: int = 4,
    quiet: bool = False,
) -> Path:
    """Train all parts, or resume, and save the pipeline.

    First the autoencoder, then the latents of the training pictures, then the text encoder alone,
    then denoiser and text encoder together.

    Args:
        autoencoder_config: decides the autoencoder, unless one is given, and the pictures.
        prompt_config: decides the first training of the text encoder.
        denoiser_config: decides the rest.
        folder: receives checkpoints, latents, `metrics.jsonl`, sheets of samples in `samples/`
            and the pipeline in `pipeline/`, which is there from the first sheet on.
        autoencoder: a trained one, to be used as it is.
        device: where to train.
        workers: processes that make batches ahead; 0 makes them in this one.
        checkpoint_every: steps between checkpoints.
        visit_every: steps between sheets of samples, a multiple of `checkpoint_every`.
        prompts_per_category: validation prompts of each category that are drawn and graded.
        quiet: fewer progress bars.

    Returns:
        The folder of the pipeline.

    Raises:
        ValueError: the folder holds a training with another configuration, or was begun with an
            autoencoder that is not given any more.
    """
    seed = autoencoder_config.seed
    for stage, settings in (
        (TEXT_STAGE, asdict(prompt_config)),
        (DENOISER_STAGE, settings_of(denoiser_config, seed)),
    ):
        load_checkpoint(checkpoint_path(folder, stage), settings, device="cpu")
    if autoencoder is None:
        begun = (folder / LATENTS).exists()
        if begun and not finished_path(folder).exists():
            raise ValueError(
                f"{folder} was begun with an autoencoder that was given; give it again "
                "(--autoencoder), or choose another folder"
            )
        autoencoder = train_autoencoder(
            autoencoder_config,
            folder,
            device=device,
            workers=workers,
            checkpoint_every=checkpoint_every,
        )
        assert autoencoder is not None
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    prompts = lab_prompts("validation", per_category=prompts_per_category)
    drawn_again = folder / "samples" / f"{AUTOENCODER_STAGE}.png"
    if not drawn_again.exists():
        samples = reconstruct_prompts(autoencoder, prompts)
        forget_metrics(folder, RECONSTRUCTION, -1)
        log_metrics(folder, RECONSTRUCTION, 0, {"correct": _correct(samples)})
        draw_samples(drawn_again, samples)
    latents = cache_latents(
        autoencoder, folder / LATENTS, number=denoiser_config.pictures, seed=seed, quiet=quiet
    )

    def visit(
        text: CLIPTextModel, denoiser: UNet2DConditionModel, step: int
    ) -> Mapping[str, float]:
        """Draw and grade validation prompts, and save the pipeline so far."""
        pipe = assemble(autoencoder, text, denoiser)
        samples = sample_prompts(pipe, prompts, quiet=quiet)
        draw_samples(folder / "samples" / f"{step:06}.png", samples)
        _save(autoencoder, text, denoiser, folder / PIPELINE_NAME)
        return {"correct": _correct(samples)}

    prompt_encoder = train_prompt_encoder(
        prompt_config, folder, device=device, checkpoint_every=checkpoint_every
    )
    assert prompt_encoder is not None
    trained = train_denoiser(
        denoiser_config,
        prompt_encoder,
        latents,
        folder,
        pictures_seed=seed,
        device=device,
        workers=workers,
        checkpoint_every=checkpoint_every,
        visit=visit,
        visit_every=visit_every,
    )
    assert trained is not None
    return _save(autoencoder, *trained, folder / PIPELINE_NAME)


def _correct(samples: Sequence[Sample]) -> float:
    """The share of fully correct pictures."""
    return sum(sample.grade.correct for sample in samples) / len(samples)


def _save(
    autoencoder: AutoencoderKL, text: CLIPTextModel, denoiser: UNet2DConditionModel, folder: Path
) -> Path:
    """Save the pipeline in a folder of its own, which then takes the place of the last one."""
    parts = [copy.deepcopy(part).cpu() for part in (autoencoder, text, denoiser)]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=SAVING) as name:
        staging = Path(name) / folder.name
        save_pipeline(assemble(*parts), staging)
        shutil.rmtree(folder, ignore_errors=True)
        return staging.rename(folder)


def _trained_autoencoder(folder: Path) -> AutoencoderKL:
    """The autoencoder of a pipeline, in single precision.

    Raises:
        typer.BadParameter: there is none, or its latents are not the laboratory's.
    """
    hint = "--autoencoder"
    try:
        made = load_vae(str(folder), device=torch.device("cpu"))
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error
    if not isinstance(made, AutoencoderKL):
        raise typer.BadParameter(
            f"the autoencoder of {folder} is a {type(made).__name__}; expected AutoencoderKL",
            param_hint=hint,
        )
    finer = 2 ** (len(made.config.block_out_channels) - 1)
    found = (made.config.latent_channels, IMAGE_SIZE // finer, made.config.scaling_factor)
    if found != (LATENT_CHANNELS, LATENT_SIZE, 1.0):
        raise typer.BadParameter(
            f"the autoencoder of {folder} has {found[0]} channels of {found[1]} x {found[1]} "
            f"latents, scaled by {found[2]}; expected {LATENT_CHANNELS} of {LATENT_SIZE} x "
            f"{LATENT_SIZE}, not scaled, as the laboratory's have",
            param_hint=hint,
        )
    return made


def main(  # noqa: PLR0913, PLR0917 (the arguments of a command are its options)
    out: Annotated[Path, typer.Option(help="folder for checkpoints, latents and the pipeline")],
    steps: Annotated[int, typer.Option(help="steps of the denoiser")] = DenoiserConfig.steps,
    batch_size: Annotated[
        int, typer.Option(help="latents in a step of the denoiser")
    ] = DenoiserConfig.batch_size,
    learning_rate: Annotated[
        float, typer.Option(help="peak learning rate of the denoiser")
    ] = DenoiserConfig.learning_rate,
    pictures: Annotated[
        int, typer.Option(help="pictures whose latents the denoiser learns")
    ] = DenoiserConfig.pictures,
    autoencoder_steps: Annotated[
        int, typer.Option(help="steps of the autoencoder, of 8 pictures")
    ] = AutoencoderConfig.steps,
    autoencoder: Annotated[
        Path | None,
        typer.Option(
            parser=pipeline_folder,
            help="a pipeline whose autoencoder is taken as it is, a folder or shapes; "
            "if left out one is trained",
        ),
    ] = None,
    places: Annotated[
        bool, typer.Option(help="teach the text encoder places, which the bundled one was not")
    ] = True,
    seed: Annotated[int, typer.Option(help="seed of weights and pictures")] = 0,
    precision: Annotated[
        Precision, typer.Option(help="number type; bf16 where it is fast")
    ] = "fp32",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    workers: Annotated[int, typer.Option(help="processes that make batches ahead")] = 0,
    visit_every: Annotated[int, typer.Option(min=1, help="steps between sheets of samples")] = 2000,
) -> None:
    """Train the laboratory's pipeline; run it again with the same options to resume."""
    if threads is not None:
        torch.set_num_threads(threads)
    given = None if autoencoder is None else _trained_autoencoder(autoencoder)
    with sole_writer(out, folder=True):
        saved = train_pipeline(
            AutoencoderConfig(steps=autoencoder_steps, seed=seed, precision=precision),
            PromptEncoderConfig(steps=PromptEncoderConfig.steps if places else 0, seed=seed),
            DenoiserConfig(
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                pictures=pictures,
                places_weight=DenoiserConfig.places_weight if places else 0.0,
                seed=seed,
                precision=precision,
            ),
            out,
            autoencoder=given,
            device=device,
            workers=workers,
            checkpoint_every=math.gcd(CHECKPOINT_EVERY, visit_every),
            visit_every=visit_every,
        )
    size = sum(file.stat().st_size for file in saved.rglob("*") if file.is_file())
    typer.echo(f"{saved}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
