"""Generators that are not diffusers pipelines: functions `(prompts, seeds) -> images`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, iter_sources
from stablepref.weights.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GeneratorFunction = Callable[..., Any]
"""`(prompts, seeds, **arguments) -> images`, lists of equal length."""


def is_function(generator: object) -> bool:
    """Whether it is called with prompts and seeds: it can be called and is not a pipeline."""
    is_other = isinstance(generator, type | nn.Module) or hasattr(generator, "components")
    return callable(generator) and not is_other


def check_function(
    function: GeneratorFunction, arguments: Mapping[str, object], *, named: bool
) -> None:
    """Refuse a function that cannot be called with prompts, seeds and these arguments.

    Args:
        function: The generator.
        arguments: For its call.
        named: Whether a folder has to know it again.

    Raises:
        TypeError: It takes other arguments.
        ValueError: It has no name by which a folder could know it.
    """
    try:
        inspect.signature(function).bind([], [], **arguments)
    except TypeError as error:
        msg = (
            f"{function_name(function)} cannot be called with (prompts, seeds"
            f"{''.join(f', {key}=' for key in arguments)}): {error}; expected a function "
            "(prompts, seeds) -> images, or a diffusers pipeline"
        )
        raise TypeError(msg) from error
    described = callable(getattr(function, "described", None))
    if named and not described and "<lambda>" in function_name(function):
        msg = (
            "out= records which function made the candidates, and a lambda has no name: write it "
            "with def"
        )
        raise ValueError(msg)


def made_by_function(
    function: GeneratorFunction,
    prompts: Sequence[str],
    seeds: Sequence[int],
    arguments: Mapping[str, object],
) -> list[Image.Image]:
    """A picture of each seed.

    Args:
        function: Its images may be whatever `stablepref.score` takes, in a list or in one array.
        prompts: One for each picture.
        seeds: One for each picture.
        arguments: Further arguments of the call.

    Raises:
        TypeError: It returns something else than images.
        ValueError: It returns another number of images, or one that cannot be used.
    """
    name = function_name(function)
    found = function(list(prompts), list(seeds), **arguments)
    found = getattr(found, "images", found)  # as diffusers' outputs have them
    if found is None or isinstance(found, str | bytes | dict) or not hasattr(found, "__len__"):
        msg = (
            f"{name} returned a {type(found).__name__} for {len(seeds)} seeds; expected a list of "
            f"{len(seeds)} images"
        )
        raise TypeError(msg)
    if len(found) != len(seeds):
        msg = f"{name} returned {len(found)} images for {len(seeds)} seeds; expected one for each"
        raise ValueError(msg)
    return [
        _picture(one, f"image {place} of {name} (seed {seed})")
        for place, (one, seed) in enumerate(zip(found, seeds, strict=True))
    ]


def described_function(function: GeneratorFunction) -> dict[str, object]:
    """What a folder records of a function: its qualified name, and what it says of itself.

    A function's code is not looked at: one that was changed is continued with. An object with a
    method `described()`, which returns plain values, adds these.
    """
    made: dict[str, object] = {"pipeline": function_name(function)}
    inner = function
    if isinstance(function, functools.partial):
        made["partial"] = fingerprint([list(function.args), dict(function.keywords)])
        inner = function.func
    if callable(describe := getattr(inner, "described", None)):
        made["described"] = fingerprint(describe())
    return made


def function_name(function: object) -> str:
    """A function's qualified name; of an object that can be called, its class's."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _picture(value: object, what: str) -> Image.Image:
    sources = list(iter_sources([value]))
    if value is None or len(sources) != 1:
        msg = (
            f"{what} is a {type(value).__name__}; expected an image. Return a black one for a "
            "picture that could not be made: it has no score and is never chosen"
        )
        raise TypeError(msg)
    try:
        image = decode(sources[0])
    except ImageError as error:
        msg = f"{what}: {error.reason}"
        raise ValueError(msg) from error
    if isinstance(image, torch.Tensor):
        levels = (image.detach().float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(levels.permute(1, 2, 0).numpy())
    return image
