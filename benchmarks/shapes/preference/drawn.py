"""Groups that a pipeline drew, ranked by the laboratory's people: the errors of real generation.

Run ``python -m stablepref.benchmarks.shapes.preference.drawn --out drawn``; run it again to resume.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import StableDiffusionPipeline
from PIL import Image

from stablepref.assets import PIPELINES
from stablepref.data.groups import RankedGroup
from stablepref.data.write import write_jsonl
from stablepref.evaluation.means import Array
from stablepref.integrations.diffusion.described import pipeline_digests
from stablepref.output.durable import replacing
from stablepref.output.locks import sole_writer
from stablepref.output.progress import progress_bar

from ..oracle.mistakes import seen_mistakes
from ..oracle.reading import read_picture
from ..people.collect import asked, crowd, distinct_scenes
from ..people.dataset import claim, is_complete
from ..people.settings import HPDV2, Setting
from ..people.utility import TERMS, true_utility
from ..pipeline.parts import open_pipeline
from ..world.commands import DeviceOption, PipelineOption, SplitOption, ThreadsOption
from ..world.language import describe
from ..world.scenes import Scene, Split

SIZE = 9
"""Pictures of a group."""
STEPS = 10
"""Denoising steps of each, fewer than the pipeline's own, for time."""
ANNOTATORS = 10
"""People who rank a group, in every split. Pictures of one pipeline differ less than those of
several generators, and what a single person says of them is mostly noise."""
_IMAGES = "images"


@dataclass(frozen=True)
class _Asked:
    """A prompt, and the picture files that answer it."""

    name: str
    scene: Scene
    prompt: str
    files: tuple[Path, ...]


def write_drawn(
    out: Path,
    pipe: StableDiffusionPipeline,
    groups: int,
    *,
    split: Split = "train",
    size: int = SIZE,
    steps: int = STEPS,
    guidance: float = 1.0,
    seed: int = 0,
    setting: Setting = HPDV2,
    annotators: int = ANNOTATORS,
    batch_size: int = 45,
    progress: bool | None = None,
) -> Path:
    """Draw groups of pictures and have them ranked; write ``SPLIT.jsonl`` and the pictures.

    Utility has the mistakes that the oracle reads from the pixels (`seen_mistakes`); it knows no
    faults of drawing, so that fidelity counts for nothing. A killed run is resumed by the same
    call: pictures that are there are not drawn again, and a file of as many groups is kept.

    Args:
        out: Folder.
        pipe: Draws 64 x 64 pictures, on the device where it runs.
        groups: How many groups; fewer are the first of more.
        split: Where the prompts' scenes are from.
        size: Pictures of a group.
        steps: Denoising steps of a picture.
        guidance: Scale of classifier-free guidance; 1 for none.
        seed: Of scenes, words, noises and people: the people are those of `people.collect`.
        setting: Who ranks, and how noisily.
        annotators: How many of them rank each group.
        batch_size: Pictures drawn together; changes nothing but rounding.
        progress: Show a bar; None shows one in a terminal.

    Returns:
        The file.

    Raises:
        ValueError: The folder holds groups of other settings.
    """
    recipe = {
        "pipeline": pipeline_digests(pipe),
        "size": size,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "setting": setting.name,
        "annotators": annotators,
    }
    path = out / f"{split}.jsonl"
    with sole_writer(out, folder=True):
        claim(out, recipe)
        if is_complete(path, groups):
            return path
        wanted = list(islice(_asked(out, split, size, seed), groups))
        _draw(pipe, wanted, steps, guidance, seed, batch_size, progress)
        rng = random.Random(f"ranks {seed} {split}")
        tastes = crowd(setting, seed)
        write_jsonl(path, (_ranked(one, setting, tastes, annotators, rng) for one in wanted))
    return path


def _asked(out: Path, split: Split, size: int, seed: int) -> Iterator[_Asked]:
    rng = random.Random(f"drawn {seed} {split}")
    for index, scene in enumerate(distinct_scenes(split, rng)):
        name = f"drawn-{seed}-{split}-{index:06}"
        files = tuple(out / _IMAGES / f"{name}-{number:03}.png" for number in range(size))
        yield _Asked(name, scene, describe(scene, random.Random(f"words {name}")), files)


def _draw(
    pipe: StableDiffusionPipeline,
    wanted: list[_Asked],
    steps: int,
    guidance: float,
    seed: int,
    batch_size: int,
    progress: bool | None,
) -> None:
    """Draw the pictures that are not there yet."""
    pipe.set_progress_bar_config(disable=True)
    jobs = [(one.prompt, file) for one in wanted for file in one.files if not file.exists()]
    with progress_bar("pictures", total=len(jobs), show=progress) as advance:
        for start in range(0, len(jobs), batch_size):
            batch = jobs[start : start + batch_size]
            noise = [
                torch.Generator().manual_seed(random.Random(f"{seed} {file.stem}").getrandbits(63))
                for _, file in batch
            ]
            images = pipe(
                [prompt for prompt, _ in batch],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=noise,
            ).images
            for image, (_, file) in zip(images, batch, strict=True):
                file.parent.mkdir(parents=True, exist_ok=True)
                with replacing(file) as staging:
                    image.save(staging, format="PNG")
            advance(len(batch))


def _ranked(
    one: _Asked, setting: Setting, tastes: Array, annotators: int, rng: random.Random
) -> RankedGroup:
    """A group with the ranks of some people."""
    found = []
    for file in one.files:
        with Image.open(file) as image:
            found.append(seen_mistakes(read_picture(np.asarray(image.convert("RGB"))), one.scene))
    terms = np.array([[mistakes.get(term, 0) for term in TERMS] for mistakes in found], dtype=float)
    people, annotations = asked(terms, setting, tastes, annotators, rng)
    return RankedGroup(
        one.prompt,
        one.files,
        tuple(annotations.mean(axis=0).tolist()),
        id=one.name,
        annotations=tuple(map(tuple, annotations.tolist())),
        annotators=tuple(f"person-{number:03}" for number in people),
        metadata={
            "utilities": (true_utility(terms) + 0.0).tolist(),
            "mistakes": [{k: v for k, v in each.items() if v} for each in found],
        },
    )


def main(
    out: Annotated[Path, typer.Option(help="folder for the data")],
    groups: Annotated[int, typer.Option(min=1, help="groups of pictures")] = 300,
    split: SplitOption = "train",
    size: Annotated[int, typer.Option(min=2, help="pictures of a group")] = SIZE,
    pipeline: PipelineOption = PIPELINES["shapes"],
    steps: Annotated[int, typer.Option(min=1, help="denoising steps of a picture")] = STEPS,
    guidance: Annotated[
        float, typer.Option(help="scale of classifier-free guidance; 1 for none")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="of prompts, noises and people")] = 0,
    annotators: Annotated[int, typer.Option(min=1, help="people who rank each group")] = ANNOTATORS,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Draw groups with a pipeline and have them ranked: OUT/SPLIT.jsonl and pictures."""
    if threads is not None:
        torch.set_num_threads(threads)
    pipe = open_pipeline(pipeline, device)
    try:
        path = write_drawn(
            out,
            pipe,
            groups,
            split=split,
            size=size,
            steps=steps,
            guidance=guidance,
            seed=seed,
            annotators=annotators,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from error
    typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
