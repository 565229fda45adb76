"""Draws a prompt, right and wrong: `python -m stablepref.benchmarks.shapes.render`."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from .world.drawing import render
from .world.errors import error_kinds, single_error
from .world.language import PromptError, parse

SIZE = 256


def draw_prompt(
    prompt: str, *, n: int, seed: int = 0, size: int = SIZE
) -> Iterator[tuple[str, Image.Image]]:
    """Pictures of a prompt: the first shows it, each of the others has a single error.

    The kinds of error that the scene can have take turns.

    Args:
        prompt: what to draw, in the words of the laboratory's grammar.
        n: number of pictures, 1 or more.
        seed: of places, shades, backgrounds and errors; equal seeds give equal pictures.
        size: side of each picture in pixels.

    Yields:
        The picture's label, "correct" or "wrong-..." with the kind of error, and the picture.

    Raises:
        PromptError: the grammar does not contain the prompt.
        ValueError: `n` is not positive.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more, got {n}")
    scene = parse(prompt)
    rng = random.Random(f"render {prompt} {seed}")
    kinds = error_kinds(scene)
    for number in range(n):
        label, shown = "correct", scene
        if number > 0:
            kind = kinds[(number - 1) % len(kinds)]
            label, shown = f"wrong-{kind}", single_error(scene, kind, rng)
        yield label, Image.fromarray(render(shown, seed=rng.getrandbits(48), size=size))


def main(
    prompt: Annotated[str, typer.Option(help="what to draw")],
    out: Annotated[Path, typer.Option(help="folder for the pictures")],
    n: Annotated[int, typer.Option(min=1, help="number of pictures")] = 4,
    seed: Annotated[int, typer.Option(help="seed of places, backgrounds and errors")] = 0,
    size: Annotated[int, typer.Option(min=16, help="side in pixels")] = SIZE,
) -> None:
    """Draw a prompt: one picture shows it, the others have a single error each."""
    try:
        pictures = list(draw_prompt(prompt, n=n, seed=seed, size=size))
    except PromptError as error:
        raise typer.BadParameter(str(error), param_hint="--prompt") from error
    out.mkdir(parents=True, exist_ok=True)
    for number, (label, picture) in enumerate(pictures):
        path = out / f"{number:02}-{label}.png"
        picture.save(path)
        typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
