"""A whole benchmark: prompts, models and scorers in, a table of scores out; runs are resumed."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from stablepref.output.durable import replacing
from stablepref.output.locks import sole_writer
from stablepref.output.partial import ResumeError
from stablepref.output.text import shorten

from .contestants import check_sources, parse_contestants
from .generate import Studio
from .image_folders import finished_pictures
from .judges import load_judges
from .processes import joined_processes
from .prompt_sets import PromptSet, read_prompt_set
from .row_files import RowFiles
from .run_files import CONFIG_FILE, PROMPTS_FILE, check_key
from .score import Meanwhile, begin_scores, score_pictures
from .score_table import SCORES_FOLDER, ScoreTable, read_table

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from .contestants import Contestant
    from .judges import Judge


def bench(
    prompts: PromptSet | str | os.PathLike[str],
    models: Sequence[str | Contestant],
    scorers: Sequence[str | Judge | None],
    *,
    out: str | os.PathLike[str],
    images: int = 1,
    seed: int = 0,
    arguments: Mapping[str, object] | None = None,
    batch_size: int | None = None,
    pipeline_dtype: str | None = None,
    device: str | None = None,
    retry: bool = False,
    progress: bool | None = None,
) -> ScoreTable:
    """Make every model's images of every prompt, score them, and return the table of scores.

    Everything is on disk as soon as it exists: the same call resumes a killed run. Started by
    torchrun or accelerate, the processes share the work.

    Args:
        prompts: A set, its name, or a file of prompts, see `read_prompt_set`.
        models: Pipelines or folders of images, as text that `parse_contestant` reads, or parsed.
        scorers: Names for `stablepref.load`, or `oracle`; None is the default model; or judges of
            `load_judges`.
        out: The run's folder. Layout: `run.json` and `prompts.jsonl`, what was asked for;
            `images/MODEL/`, the images; `faults/MODEL/`, why some are missing; `scores/`, a row for
            each image.
        images: Images of each prompt. Finished pictures may be fewer.
        seed: Seed of the first image; every image has its own seed, the same for all models.
        arguments: For the call of every pipeline.
        batch_size: Images made at once, of several prompts where they can share a batch; None
            chooses by their size and the memory.
        pipeline_dtype: Number type of pipelines; None for float32.
        device: Where everything runs; None takes the process's accelerator, or the CPU.
        retry: Make and score again what failed before.
        progress: Show progress bars; None shows them in a terminal once work takes seconds.

    Returns:
        The scores of all images.

    Raises:
        ResumeError: `out` holds a run of other prompts, models, scorers or settings.
        InUseError: Another process is writing a run to `out`.
        ValueError: An argument is wrong; see also `read_prompt_set`, `parse_contestant` and
            `load_judges`.
        OSError: A pipeline, a scorer or a set cannot be loaded, or `out` cannot be written.
    """
    if images < 1:
        msg = f"images must be 1 or more, got {images}"
        raise ValueError(msg)
    chosen = prompts if isinstance(prompts, PromptSet) else read_prompt_set(prompts)
    for prompt in chosen.prompts:
        check_key(prompt.key)
    contestants = parse_contestants(models)
    check_sources(contestants)
    folder = Path(out)
    state = joined_processes()
    judges = load_judges(scorers, device=device)
    words = [one.prompt for one in chosen.prompts]
    finished = {
        one.name: finished_pictures(one.name, Path(one.source), chosen.prompts, images)
        for one in contestants
        if one.finished
    }
    settings = {judge.name: judge.settings() for judge in judges}
    config = {
        "prompts": {
            "name": chosen.name,
            "count": len(chosen.prompts),
            "digest": chosen.digest(),
        },
        "images": images,
        "seed": seed,
        "arguments": dict(arguments or {}),
        "pipeline_dtype": pipeline_dtype,
        "models": {one.name: one.row() for one in contestants},
        "scorers": settings,
    }
    with sole_writer(folder, folder=True, active=state.is_main_process):
        if state.is_main_process:
            _begin(folder, config, chosen)
        state.wait_for_everyone()
        rows = RowFiles(folder / SCORES_FOLDER)
        done = begin_scores(rows, state, settings=settings, retry=retry)
        write = partial(rows.write, state.process_index, settings)
        pictures = []
        with closing(Meanwhile(words, judges, write, done)) as meanwhile:
            for one in contestants:
                if one.finished:
                    pictures += finished[one.name]
                    continue
                studio = Studio(
                    one,
                    chosen.prompts,
                    folder=folder,
                    images=images,
                    seed=seed,
                    arguments=arguments or {},
                    dtype=pipeline_dtype,
                )
                studio.make(
                    state,
                    device=state.device if device is None else torch.device(device),
                    batch_size=batch_size,
                    retry=retry,
                    progress=progress,
                    finished=meanwhile.add,
                )
                pictures += studio.pictures()
        score_pictures(pictures, words, judges, rows, state, settings=settings, progress=progress)
    return read_table(folder)


def _begin(folder: Path, config: Mapping[str, object], prompts: PromptSet) -> None:
    """Write what was asked for, or refuse the folder of a run with other settings.

    Raises:
        ResumeError: The folder has another run; the message lists what differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CONFIG_FILE
    if path.is_file():
        try:
            before = json.loads(path.read_bytes())
        except ValueError as error:
            raise ResumeError(f"{path} is damaged ({error}): choose another output") from error
        if not isinstance(before, dict):
            raise ResumeError(f"{path} is damaged: it is not an object; choose another output")
        now = json.loads(json.dumps(config))
        if before != now:
            raise ResumeError(_difference(folder, before, now))
        return
    rows = "".join(json.dumps(asdict(one)) + "\n" for one in prompts.prompts)
    for target, text in (
        (folder / PROMPTS_FILE, rows),
        (path, json.dumps(config, indent=1) + "\n"),
    ):
        with replacing(target) as staging:
            staging.write_text(text, encoding="utf-8")


def _difference(folder: Path, before: Mapping[str, object], now: Mapping[str, object]) -> str:
    changes = [
        f"{name} was {shorten(json.dumps(before.get(name)))}, now it is "
        f"{shorten(json.dumps(now.get(name)))}"
        for name in now
        if before.get(name) != now[name]
    ]
    return (
        f"{folder} holds a run with other settings: {'; '.join(changes)}. Choose another output; "
        "images that exist can be used in it: --model NAME=FOLDER/images/NAME"
    )
