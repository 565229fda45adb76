"""Pictures of a pipeline or a function: one seed each, in batches that fit in memory."""

from __future__ import annotations

import inspect
from contextlib import closing
from functools import partial
from itertools import chain, groupby
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from torch import Tensor

from stablepref.runtime.ahead import ahead
from stablepref.runtime.threads import streams_for, threads_for

from ..diffusion.encodings import encoded_by
from ..diffusion.families import find_family
from ..diffusion.pipelines import (
    modules_of,
    require_pipeline,
    texts_encoded_once,
    texts_of_each,
    without_progress_bar,
)
from .functions import check_function, is_function, made_by_function
from .grouping import CPU_BATCH, Wanted, batch_size_for, in_groups
from .making import STREAMS, Generated, Maker, Unmade, copies_of, may_run_twice
from .pruning import Pruner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from PIL import Image

    from ..diffusion.pipelines import Pipeline
    from .functions import GeneratorFunction

FLAGGED: Final = "blanked by the pipeline's safety checker"
BLACK: Final = (
    "entirely black: blanked by a safety checker, or an overflow in half precision (decode in "
    "float32 or bfloat16)"
)

# What best_of_n sets itself, and what to use in its place.
_TAKEN: Final = {
    "prompt": "pass the prompt itself",
    "generator": "pass seed=",
    "num_images_per_prompt": "pass n= and batch_size=",
    "latents": "every candidate has noise of its own, made from its seed",
    "prompt_embeds": "pass the prompt as text: it is what the images are scored against",
    "pooled_prompt_embeds": "pass the prompt as text",
    "return_dict": "leave it out",
}


def check_pipeline(pipe: object, arguments: Mapping[str, object]) -> None:
    """Refuse what cannot make images of a prompt, before anything is made.

    Raises:
        TypeError: `pipe` is not a pipeline, or takes no text prompt.
        ValueError: The pipeline has no such argument, or best_of_n sets it itself, or the
            scheduler's noise cannot be seeded.
    """
    require_pipeline(pipe)
    known = cast("Pipeline", pipe)
    takes = inspect.signature(known.__call__).parameters
    if "prompt" not in takes:
        msg = f"{type(pipe).__name__} takes no text prompt; expected a text-to-image pipeline"
        raise TypeError(msg)
    for name in arguments:
        if name in _TAKEN:
            msg = f"{name} is set for each candidate: {_TAKEN[name]}"
            raise ValueError(msg)
        if name not in takes:  # also where **kwargs would swallow it, as Stable Diffusion's does
            msg = f"{type(pipe).__name__} takes no argument {name!r}; it takes: {', '.join(takes)}"
            raise ValueError(msg)
    config: Mapping[str, object] = getattr(known.components.get("scheduler"), "config", {})
    if config.get("stochastic_sampling"):
        msg = (
            "the scheduler has stochastic_sampling, whose noise pipelines do not draw from the "
            "generators they are given: no candidate could be made again. Set it to False, as by "
            "pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, "
            "stochastic_sampling=False)"
        )
        raise ValueError(msg)
    kind = arguments.get("output_type", "pil")
    if kind != "pil":
        msg = f"output_type is {kind!r}; leave it out: candidates are PIL images"
        raise ValueError(msg)


def check_generator(
    generator: object, arguments: Mapping[str, object], *, named: bool = False
) -> None:
    """Refuse what cannot make candidates, before anything is made.

    Args:
        generator: A pipeline, or a function `(prompts, seeds) -> images`.
        arguments: For its call.
        named: Whether a folder has to know it again.

    Raises:
        TypeError: It is neither, takes no text prompt, or a function takes other arguments.
        ValueError: The pipeline has no such argument, or best_of_n sets it itself, the scheduler's
            noise cannot be seeded, or the function has no name.
    """
    if is_function(generator):
        check_function(cast("GeneratorFunction", generator), arguments, named=named)
    else:
        check_pipeline(generator, arguments)


def generate(
    pipe: Pipeline | GeneratorFunction,
    prompt: str,
    indices: Sequence[int],
    *,
    seed: int,
    batch_size: int | None,
    arguments: Mapping[str, object],
    prune: Mapping[float, float] | None = None,
    score: Callable[[Sequence[Image.Image]], list[float]] | None = None,
) -> Iterator[list[Generated]]:
    """Make candidates of one prompt, batch by batch in order: `generate_all` with its arguments.

    Args:
        pipe: See `generate_all`.
        prompt: The prompt.
        indices: Which candidates.
        seed: Of candidate 0; candidate i has `seed + i`.
        batch_size: See `generate_all`.
        arguments: See `generate_all`.
        prune: See `generate_all`.
        score: Scores of pictures, to prune by.

    Raises:
        TypeError: The pipeline or function returns no images.
        ValueError: The function returns another number of images, or one that cannot be used.
    """
    judge = None if score is None else lambda _, images: score(images)
    wanted = [Wanted(index, prompt, seed + index) for index in indices]
    for batch in generate_all(
        pipe, wanted, batch_size=batch_size, arguments=arguments, prune=prune, score=judge
    ):
        yield [one for one in batch if isinstance(one, Generated)]


def generate_all(
    pipe: Pipeline | GeneratorFunction,
    wanted: Sequence[Wanted],
    *,
    batch_size: int | None,
    arguments: Mapping[str, object],
    prune: Mapping[float, float] | None = None,
    score: Callable[[str, Sequence[Image.Image]], list[float]] | None = None,
    keep_going: bool = False,
    streams: int | None = None,
) -> Iterator[list[Generated | Unmade]]:
    """Make pictures of any prompts, batch by batch.

    Each draws all its noise from a generator of its own, `torch.Generator().manual_seed(seed)` on
    the CPU, so that batches of any size and of any prompts make the same pictures up to rounding.
    `in_groups` says which prompts share a batch; pictures of one prompt stay in their order. A text
    is encoded once for a batch. A batch that does not fit in memory is halved, for good. One of
    several prompts in which the pipeline raises an error is made again prompt by prompt.

    Small pipelines on a CPU draw several batches side by side, each with one thread
    (`stablepref.runtime.threads.streams_for`).

    Args:
        pipe: The pipeline; its scheduler and progress bar are left as they were. Or a function,
            which gets the seeds themselves and makes of them what it does.
        wanted: The pictures.
        batch_size: Pictures made at once; None chooses, see `batch_size_for`; 4 for a function.
        arguments: For the call of the pipeline or function.
        prune: Share of the steps to share of each batch that continues from there, see
            `stablepref.integrations.best_of_n.pruning`; batches are then of one prompt.
        score: Scores of pictures of a prompt, to prune by.
        keep_going: Return what failed in place of its pictures, an `Unmade`, and continue with the
            other prompts; else the error is raised. No memory for one picture is always an error.
        streams: Batches drawn side by side, where the pipeline can; None chooses.

    Raises:
        TypeError: The pipeline or function returns no images.
        ValueError: The function returns another number of images, or one that cannot be used.
    """
    if is_function(pipe):
        function = cast("GeneratorFunction", pipe)

        def made_of(batch: Sequence[Wanted]) -> list[Generated]:
            prompts, seeds = [one.prompt for one in batch], [one.seed for one in batch]
            images = made_by_function(function, prompts, seeds, arguments)
            return [
                Generated(one.index, image, _fault(image, flagged=False))
                for one, image in zip(batch, images, strict=True)
            ]

        maker = Maker(made_of, batch_size or CPU_BATCH, keep_going=keep_going)
        yield from chain.from_iterable(map(maker.pieces, maker.batches([list(wanted)])))
        return
    known = cast("Pipeline", pipe)
    modules = modules_of(known)

    def made_by(one: Pipeline, batch: Sequence[Wanted]) -> list[Generated]:
        with threads_for(*modules):
            return _made(one, batch, arguments, prune, score)

    size = batch_size_for(known, arguments, batch_size)
    groups = in_groups(known, wanted, arguments)
    if prune:
        groups = [list(g) for group in groups for _, g in groupby(group, lambda one: one.prompt)]
    with texts_encoded_once(known), without_progress_bar(known):
        if prune or not may_run_twice(known, arguments):
            streams = 1
        if streams is None:
            streams = min(STREAMS, streams_for(*modules))
        if streams == 1:
            maker = Maker(partial(made_by, known), size, keep_going=keep_going)
            yield from chain.from_iterable(map(maker.pieces, maker.batches(groups)))
            return
        with copies_of(known, streams) as lent:

            def made_by_a_copy(batch: Sequence[Wanted]) -> list[Generated]:
                with lent() as one:
                    return made_by(one, batch)

            maker = Maker(made_by_a_copy, size, keep_going=keep_going)
            work = ahead(maker, maker.batches(groups), workers=streams, most=streams + 1)
            with closing(work):
                yield from work


def _made(
    pipe: Pipeline,
    batch: Sequence[Wanted],
    arguments: Mapping[str, object],
    prune: Mapping[float, float] | None,
    score: Callable[[str, Sequence[Image.Image]], list[float]] | None,
) -> list[Generated]:
    """The pictures of one call."""
    indices = [one.index for one in batch]
    prompts = [one.prompt for one in batch]
    generators = [torch.Generator().manual_seed(one.seed) for one in batch]

    def of(rows: Sequence[int]) -> dict[str, object]:
        chosen = [prompts[row] for row in rows]
        return _arguments(pipe, chosen, [generators[row] for row in rows], arguments)

    if not prune or score is None:
        return _in_order(indices, _call(pipe, prompts, generators, arguments), None)
    pruner = Pruner(pipe, prune, partial(score, prompts[0]), of, len(batch))
    output = pruner.run()
    return _in_order(indices, _pictures(pipe, output, len(pruner.rows)), pruner)


def _call(
    pipe: Pipeline,
    prompts: Sequence[str],
    generators: list[torch.Generator],
    arguments: Mapping[str, object],
) -> list[tuple[Image.Image, str | None]]:
    """A picture of each generator, with what is wrong with it."""
    with encoded_by(pipe, generators):
        output = pipe(**_arguments(pipe, prompts, generators, arguments))
    return _pictures(pipe, output, len(generators))


def _arguments(
    pipe: Pipeline,
    prompts: Sequence[str],
    generators: list[torch.Generator],
    arguments: Mapping[str, object],
) -> dict[str, object]:
    """Of the pipeline's call, for a picture of each generator."""
    count = len(generators)
    call: dict[str, object] = {"prompt": prompts[0], "generator": generators, **arguments}
    shared = _shared_pictures(pipe, arguments) if count > 1 else {}
    alike = len(set(prompts)) == 1
    takes_number = "num_images_per_prompt" in inspect.signature(pipe.__call__).parameters
    if alike and takes_number and not shared:
        call["num_images_per_prompt"] = count
    else:
        call |= {"prompt": list(prompts), **texts_of_each(arguments, count)}
        call |= {name: [picture] * count for name, picture in shared.items()}
    return call


def _pictures(pipe: Pipeline, output: object, count: int) -> list[tuple[Image.Image, str | None]]:
    """Each picture of a call's output, with what is wrong with it."""
    images = getattr(output, "images", None)
    if not isinstance(images, list) or len(images) != count:
        kind = type(images).__name__
        msg = f"{type(pipe).__name__} returned no list of {count} images, got {kind}"
        raise TypeError(msg)
    flags = getattr(output, "nsfw_content_detected", None) or [False] * len(images)
    return [(image, _fault(image, flag)) for image, flag in zip(images, flags, strict=True)]


def _shared_pictures(pipe: Pipeline, arguments: Mapping[str, object]) -> dict[str, object]:
    """The single pictures among the arguments that have to become lists."""
    family = find_family(pipe)
    found = {}
    for name in family.pictures if family is not None else ():
        given = arguments.get(name)
        of_nets = family is not None and family.from_noise and "controlnet" in pipe.components
        if isinstance(given, list) and len(given) == 1 and not of_nets:
            (given,) = given  # several ControlNets take a list, a picture for each
        stack = isinstance(given, Tensor | np.ndarray) and given.ndim == 4 and len(given) > 1
        if given is not None and not isinstance(given, list) and not stack:
            found[name] = given
    return found


def _in_order(
    batch: Sequence[int], made: Sequence[tuple[Image.Image, str | None]], pruner: Pruner | None
) -> list[Generated]:
    """The whole batch, with those that were pruned in their places."""
    rows = range(len(batch)) if pruner is None else pruner.rows
    places = {row: Generated(batch[row], *one) for row, one in zip(rows, made, strict=True)}
    if pruner is not None:
        for row, (image, fault) in pruner.dropped.items():
            places[row] = Generated(batch[row], image, fault, pruned=True)
    return [places[row] for row in range(len(batch))]


def _fault(image: Image.Image, flagged: bool) -> str | None:
    if flagged:
        return FLAGGED
    return None if image.convert("RGB").getbbox() else BLACK
