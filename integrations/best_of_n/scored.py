"""Candidates as they are drawn and scored, batch by batch: side by side where that helps."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, cast, final

import torch

from stablepref.runtime.ahead import ahead
from stablepref.runtime.threads import one_thread

from .candidates import generate_all
from .folder import Candidate
from .functions import is_function
from .grouping import Wanted, overlaps
from .making import Generated
from .selection import in_order

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from PIL import Image

    from stablepref.scorer import Scorer

    from ..diffusion.pipelines import Pipeline
    from .folder import CandidateFolder
    from .functions import GeneratorFunction
    from .making import Unmade


@final
class Drawn:
    """The candidates of a prompt so far, and of the best ones the pictures."""

    def __init__(self, folder: CandidateFolder | None, n: int) -> None:
        self.folder = folder
        done = {} if folder is None else folder.done
        self.candidates = {index: one for index, one in done.items() if index < n}
        self.missing = [index for index in range(n) if index not in self.candidates]
        self.best: dict[int, Image.Image] = {}

    def add(self, candidate: Candidate, image: Image.Image, most: int) -> None:
        """One more; the picture goes to its folder, or is kept while it is among the best."""
        self.candidates[candidate.index] = candidate
        if self.folder is not None:
            self.folder.add(candidate, image)
            return
        self.best[candidate.index] = image
        leaders = in_order([self.candidates[index] for index in self.best])[:most]
        self.best = {one.index: self.best[one.index] for one in leaders}


def scored_batches(
    pipe: Pipeline | GeneratorFunction,
    prompts: Sequence[str],
    missing: Sequence[Sequence[int]],
    scorer: Scorer,
    *,
    seed: int,
    batch_size: int | None,
    views: int,
    prune: Mapping[float, float] | None,
    arguments: Mapping[str, object],
) -> Generator[list[tuple[int, Candidate, Image.Image]]]:
    """Batches of scored candidates, each with the place of its prompt and its picture.

    They are scored while the next ones are drawn, where that costs drawing nothing.
    """
    keys = [(place, index) for place, indices in enumerate(missing) for index in indices]
    wanted = [Wanted(key, prompts[place], seed + index) for key, (place, index) in enumerate(keys)]
    beside = not prune and not is_function(pipe) and overlaps(cast("Pipeline", pipe), arguments)

    def scored(batch: Sequence[Generated | Unmade]) -> list[tuple[int, Candidate, Image.Image]]:
        made = [one for one in batch if isinstance(one, Generated)]
        places = [keys[one.index][0] for one in made]
        rows = [(keys[one.index][1], one) for one in made]
        texts = [prompts[place] for place in places]
        with one_thread() if beside and _on_cpu(pipe) else nullcontext():
            found = list(_scored(scorer, rows, texts, seed=seed, views=views))
        return [(place, *one) for place, one in zip(places, found, strict=True)]

    batches = generate_all(
        pipe,
        wanted,
        batch_size=batch_size,
        arguments=arguments,
        prune=prune,
        score=partial(_scores, scorer, views),
    )
    return ahead(scored, batches, workers=1 if beside else 0, most=2)


def _on_cpu(pipe: object) -> bool:
    return torch.device(cast("Pipeline", pipe)._execution_device).type == "cpu"


def _scored(
    scorer: Scorer,
    batch: Sequence[tuple[int, Generated]],
    prompts: Sequence[str],
    *,
    seed: int,
    views: int,
) -> Iterator[tuple[Candidate, Image.Image]]:
    """Each candidate of a batch, by its index, with its picture; a fault has no score."""
    good = [place for place, (_, made) in enumerate(batch) if made.fault is None]
    scores = iter(
        scorer.stream(
            [batch[place][1].image for place in good],
            [prompts[place] for place in good],
            views=views,
            on_error="nan",
            progress=False,
        )
        if good
        else ()
    )
    for index, made in batch:
        score, fault = None, made.fault
        if fault is None:
            found = next(scores)
            fault = found.reason
            score = found.score if fault is None else None
        yield Candidate(index, seed + index, score, fault, made.pruned), made.image


def _scores(scorer: Scorer, views: int, prompt: str, images: Sequence[Image.Image]) -> list[float]:
    scored = scorer.stream(images, prompt, views=views, on_error="nan", progress=False)
    return [one.score for one in scored]
