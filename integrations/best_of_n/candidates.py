"""Candidates of a pipeline or a function: one seed each, in batches that fit in memory."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast, final

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from PIL import Image
from torch import Tensor

from stablepref.runtime.threads import threads_for

from ..diffusion.families import find_family
from ..diffusion.pipelines import (
    modules_of,
    require_pipeline,
    texts_encoded_once,
    texts_of_each,
    without_progress_bar,
)
from .functions import check_function, is_function, made_by_function
from .pruning import Pruner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..diffusion.pipelines import Pipeline
    from .functions import GeneratorFunction

CPU_BATCH: Final = 4
ACCELERATOR_BATCH: Final = 8
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


@final
@dataclass(frozen=True)
class Generated:
    """One candidate's picture.

    Attributes:
        index: Position among the candidates.
        image: RGB.
        fault: Why it cannot be chosen, such as a blanked picture; None if it can.
        pruned: Whether it was dropped on the way; its picture is then a prediction.
    """

    index: int
    image: Image.Image
    fault: str | None
    pruned: bool = False


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
    """Make candidates, batch by batch in order.

    Candidate i draws all its noise from a generator of its own, `torch.Generator().manual_seed(
    seed + i)` on the CPU, so that batches of any size make the same pictures up to rounding. The
    text is encoded once. A batch that does not fit in memory is halved, for good.

    Args:
        pipe: The pipeline; its scheduler and progress bar are left as they were. Or a function,
            which gets `seed + i` itself and makes of it what it does.
        prompt: The prompt.
        indices: Which candidates.
        seed: Of candidate 0.
        batch_size: Pictures made at once; None for 4 on a CPU and 8 on an accelerator.
        arguments: For the call of the pipeline or function.
        prune: Share of the steps to share of each batch that continues from there, see
            `stablepref.integrations.best_of_n.pruning`.
        score: Scores of pictures, to prune by.

    Raises:
        TypeError: The pipeline or function returns no images.
        ValueError: The function returns another number of images, or one that cannot be used.
    """
    if is_function(pipe):
        function = cast("GeneratorFunction", pipe)

        def made_of(batch: Sequence[int]) -> list[Generated]:
            seeds = [seed + index for index in batch]
            images = made_by_function(function, prompt, seeds, arguments)
            return [
                Generated(index, image, _fault(image, flagged=False))
                for index, image in zip(batch, images, strict=True)
            ]

        yield from _in_batches(indices, batch_size or CPU_BATCH, made_of)
        return
    known = cast("Pipeline", pipe)

    modules = modules_of(known)

    def made_by(batch: Sequence[int]) -> list[Generated]:
        with threads_for(*modules):
            return made_here(batch)

    def made_here(batch: Sequence[int]) -> list[Generated]:
        generators = [torch.Generator().manual_seed(seed + index) for index in batch]
        if not prune or score is None:
            return _in_order(batch, _call(known, prompt, generators, arguments), None)
        pruner = Pruner(known, prune, score, generators)
        with pruner.watching() as watched:
            made = _call(known, prompt, generators, {**arguments, **watched})
        return _in_order(batch, made, pruner)

    if _must_be_alone(known, arguments):
        batch_size = 1
    elif batch_size is None:
        on_cpu = torch.device(known._execution_device).type == "cpu"
        batch_size = CPU_BATCH if on_cpu else ACCELERATOR_BATCH
    with texts_encoded_once(known), without_progress_bar(known):
        yield from _in_batches(indices, batch_size, made_by)


def _in_batches(
    indices: Sequence[int], batch_size: int, make: Callable[[Sequence[int]], list[Generated]]
) -> Iterator[list[Generated]]:
    """What `make` makes of each batch; one that does not fit in memory is halved, for good."""
    todo = list(indices)
    while todo:
        batch = todo[:batch_size]
        try:
            made = make(batch)
        except RuntimeError as error:
            if len(batch) == 1 or not should_reduce_batch_size(error):
                raise
            batch_size = len(batch) // 2
        else:
            yield made
            todo = todo[len(batch) :]
            continue
        clear_device_cache(garbage_collection=True)


def _call(
    pipe: Pipeline,
    prompt: str,
    generators: list[torch.Generator],
    arguments: Mapping[str, object],
) -> list[tuple[Image.Image, str | None]]:
    """A picture of each generator that is left at the end, with what is wrong with it."""
    count = len(generators)
    call: dict[str, object] = {"prompt": prompt, "generator": generators, **arguments}
    shared = _shared_pictures(pipe, arguments) if count > 1 else {}
    if "num_images_per_prompt" in inspect.signature(pipe.__call__).parameters and not shared:
        call["num_images_per_prompt"] = count
    else:
        call |= {"prompt": [prompt] * count, **texts_of_each(arguments, count)}
        call |= {name: [picture] * count for name, picture in shared.items()}
    output = pipe(**call)
    images = getattr(output, "images", None)
    if not isinstance(images, list) or len(images) != len(generators):
        kind = type(images).__name__
        msg = f"{type(pipe).__name__} returned no list of {len(generators)} images, got {kind}"
        raise TypeError(msg)
    flags = getattr(output, "nsfw_content_detected", None) or [False] * len(images)
    return [(image, _fault(image, flag)) for image, flag in zip(images, flags, strict=True)]


def _must_be_alone(pipe: Pipeline, arguments: Mapping[str, object]) -> bool:
    """Whether in a batch a candidate may depend on its place there.

    That is where a pipeline takes pictures and is not known, or takes no list of them.
    """
    unknown = find_family(pipe) is None and any(map(_holds_picture, arguments.values()))
    return unknown or arguments.get("padding_mask_crop") is not None


def _shared_pictures(pipe: Pipeline, arguments: Mapping[str, object]) -> dict[str, object]:
    """The single pictures among the arguments that have to become lists."""
    family = find_family(pipe)
    found = {}
    for name in family.pictures if family is not None else ():
        given = arguments.get(name)
        if isinstance(given, list) and len(given) == 1 and "controlnet" not in pipe.components:
            (given,) = given  # several ControlNets take a list, a picture for each
        stack = isinstance(given, Tensor | np.ndarray) and given.ndim == 4 and len(given) > 1
        if given is not None and not isinstance(given, list) and not stack:
            found[name] = given
    return found


def _holds_picture(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_picture, value))
    return isinstance(value, Image.Image | Tensor | np.ndarray)


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
