"""Measures a shapes model: `python -m stablepref.benchmarks.shapes.evaluate`.

Retrieval among prompts, and accuracy on pairs of a correct picture and one with a single error.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from stablepref.output.tables import Table, print_table
from stablepref.zoo import load

from .world.accuracy import Accuracy, with_interval
from .world.commands import JsonOption, SplitOption, write_json
from .world.drawing import render
from .world.errors import ERROR_KINDS, GENERATOR_ERRORS, error_kinds, single_error
from .world.language import describe
from .world.scenes import Scene, Split, sample_scene

RETRIEVAL_PROMPTS = 100


Scorer = Callable[[Sequence[NDArray[np.uint8]], Sequence[str]], Tensor]
"""Scores of all pictures `(n, size, size, 3)` under all prompts: `(n, m)`."""


def model_scorer(name_or_path: str | Path) -> Scorer:
    """Scores of a model as its user gets them, through `Scorer.score_matrix` in float32."""
    model = load(name_or_path, dtype="float32")

    def score(pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> Tensor:
        return model.score_matrix(list(pictures), prompts, progress=False)

    return score


def pair_accuracy(
    scorer: Scorer,
    *,
    prompts: int,
    split: Split = "test",
    kinds: tuple[str, ...] = ERROR_KINDS,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Accuracy]:
    """How often the correct picture scores higher than one with a single error.

    For each held-out scene and each of the kinds of error that it can have, one correct and one
    wrong picture are drawn, with different places, shades and backgrounds, and scored under the
    scene's prompt. Equal scores count one half. The prompts and correct scenes are of the split;
    the wrong scenes, which no prompt here describes, may be of any. The kinds of a scene share one
    generator: the pictures of a kind depend on which kinds are measured with it.

    Args:
        scorer: What is measured.
        prompts: Number of scenes.
        split: Of the scenes.
        kinds: Of errors.
        seed: Of scenes and pictures.
        quiet: Show no progress bar.

    Raises:
        ValueError: A kind is unknown, or a score is not a number.

    Returns:
        The accuracy for each kind of error, and "all": the mean over all pairs of each prompt.
    """
    outcomes: dict[str, list[list[float]]] = defaultdict(list)
    held_out = _held_out(prompts, split, f"pairs {seed}")
    for scene, prompt, rng in track(held_out, description="pairs", disable=quiet):
        possible = error_kinds(scene, kinds)
        if not possible:
            continue
        pictures = []
        for kind in possible:
            pictures.append(render(scene, seed=rng.getrandbits(48)))
            pictures.append(render(single_error(scene, kind, rng), seed=rng.getrandbits(48)))
        scores = scorer(pictures, [prompt])[:, 0]
        decisions = [
            _decision(float(right - wrong))
            for right, wrong in zip(scores[::2], scores[1::2], strict=True)
        ]
        outcomes["all"].append(decisions)
        for kind, decision in zip(possible, decisions, strict=True):
            outcomes[kind].append([decision])
    return {kind: with_interval(outcomes[kind]) for kind in ("all", *kinds) if outcomes[kind]}


def retrieval(
    scorer: Scorer, *, rounds: int, split: Split = "test", seed: int = 0, quiet: bool = False
) -> Accuracy:
    """How often a picture's own prompt scores highest among 100 held-out prompts.

    Each round draws new prompts; `quiet` shows no progress bar.
    """
    outcomes = []
    for number in track(range(rounds), description="retrieval", disable=quiet):
        held_out = _held_out(RETRIEVAL_PROMPTS, split, f"retrieval {seed} {number}")
        pictures = [render(scene, seed=rng.getrandbits(48)) for scene, _, rng in held_out]
        best = scorer(pictures, [prompt for _, prompt, _ in held_out]).argmax(dim=1)
        outcomes += [[float(found == own)] for own, found in enumerate(best.tolist())]
    return with_interval(outcomes)


def _held_out(number: int, split: Split, name: str) -> list[tuple[Scene, str, random.Random]]:
    """Distinct scenes of a split with a prompt and a generator each."""
    rng = random.Random(name)
    scenes: dict[Scene, None] = {}
    while len(scenes) < number:
        scenes[sample_scene(rng, split)] = None
    return [
        (scene, describe(scene, rng), random.Random(f"{name} {index}"))
        for index, scene in enumerate(scenes)
    ]


def _decision(margin: float) -> float:
    if math.isnan(margin):
        raise ValueError("a score is not a number")
    return 0.5 if margin == 0 else float(margin > 0)


def main(
    model: Annotated[str, typer.Argument(help="a zoo name or a folder")] = "shapes-clip",
    prompts: Annotated[int, typer.Option(help="prompts whose pairs are measured")] = 2000,
    rounds: Annotated[int, typer.Option(help="retrieval rounds of 100 prompts")] = 10,
    split: SplitOption = "test",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="kind of error; may be repeated. The pictures depend on the kinds. If left out: "
            f"{', '.join(ERROR_KINDS)}"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of scenes and pictures")] = 0,
    out: JsonOption = None,
) -> None:
    """Print retrieval and pair accuracy of a shapes model with 95 % intervals over prompts."""
    unknown = [name for name in kind or () if name not in GENERATOR_ERRORS]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} is not one of {', '.join(GENERATOR_ERRORS)}", param_hint="--kind"
        )
    scorer = model_scorer(model)
    found = retrieval(scorer, rounds=rounds, split=split, seed=seed)
    kinds = tuple(dict.fromkeys(kind)) if kind else ERROR_KINDS
    pairs = pair_accuracy(scorer, prompts=prompts, split=split, kinds=kinds, seed=seed)
    measures = {f"retrieval, top-1 of {RETRIEVAL_PROMPTS}": found}
    measures |= {f"pairs: {name}": accuracy for name, accuracy in pairs.items()}
    rows = [(name, *accuracy.cells()) for name, accuracy in measures.items()]
    absent = [name for name in kinds if name not in pairs]  # which no scene can have
    rows += [(f"pairs: {name}", "-", "-", 0, 0) for name in absent]
    print_table(
        Table(columns=("measure", "accuracy", "95 % interval", "prompts", "decisions"), rows=rows)
    )
    if out is not None:
        report = {
            "model": model,
            "split": split,
            "kinds": kinds,
            "seed": seed,
            "retrieval_top1_of_100": asdict(found),
            "pairs": {kind: asdict(accuracy) for kind, accuracy in pairs.items()},
        }
        write_json(out, report)


if __name__ == "__main__":
    typer.run(main)
