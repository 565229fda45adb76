"""`stablepref compare`: which of two images people would prefer, or that it is a tie."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from stablepref.cli.options import AsJson, ScorerOptions, with_options
from stablepref.data.manifest import check_image
from stablepref.output.text import printable


@with_options
def compare(
    *,
    a: Annotated[str, typer.Argument(help="One image.")],
    b: Annotated[str, typer.Argument(help="The other image.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt of both images.")
    ] = None,
    scorer: ScorerOptions,
    as_json: AsJson = False,
) -> None:
    """Say which of two images people would prefer, or that it is a tie."""
    if prompt is None and scorer.needs_prompt:
        msg = "--prompt is missing: the prompt of both images"
        raise ValueError(msg)
    for image in (a, b):
        check_image(image)
    loaded = scorer.load()
    result = loaded.compare(a, b, prompt, views=scorer.views)
    if as_json:
        given = {"a": a, "b": b, "prompt": prompt, "model": loaded.name, "unit": loaded.unit}
        print(json.dumps(given | asdict(result), indent=1))
        return
    a, b = printable(a), printable(b)
    winner = {"a": a, "b": b}.get(result.preferred)
    print("tie: neither is preferred" if winner is None else f"preferred: {winner}")
    width = max(len(a), len(b))
    for name, value in ((a, result.scores[0]), (b, result.scores[1])):
        print(f"{name:{width}}  {value:.4f}")
    over = "more than" if winner is not None else "within"
    print(f"margin {result.margin:+.4f}, {over} the spread over weak views, {result.spread:.4f}")
    if result.uncertainty is not None:
        print(
            f"standard deviation of the margin, as the model predicts it: {result.uncertainty:.4f}"
        )
    if result.probability is None:
        print(f"no probability: {result.note}")
    else:
        print(f"probability that {a} is preferred: {result.probability:.3f}")
    print(f"model {loaded.name}, {loaded.unit}")
