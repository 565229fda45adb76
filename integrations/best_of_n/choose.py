"""Best of n: make many candidates with a pipeline or a function, keep those that score highest."""

from __future__ import annotations

import os
import warnings
from contextlib import closing, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

from PIL import Image

from stablepref.output.locks import sole_writer
from stablepref.output.progress import progress_bar
from stablepref.scoring.prompts import check_prompts
from stablepref.weights.fingerprint import fingerprint, weights_digest

from ..diffusion.described import described_pipeline
from ..diffusion.load import load_pipeline
from ..diffusion.named import check_pipeline
from ..diffusion.pipelines import require_pipeline
from ..diffusion.schedulers import use_scheduler
from ..guidance import refuse_other_prompts
from ..sampled_rewards import as_scorer
from .candidates import check_generator
from .folder import CandidateFolder
from .functions import described_function, is_function
from .pruning import check_prune
from .scored import Drawn, scored_batches
from .selection import Selection, in_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stablepref.scorer import Scorer

    from ..diffusion.pipelines import Pipeline
    from .folder import Candidate
    from .functions import GeneratorFunction

RUNNER_UP = 2  # candidates that a margin takes


@overload
def best_of_n(
    pipe: Pipeline | GeneratorFunction | str | os.PathLike[str],
    prompt: str,
    scorer: Scorer | str | os.PathLike[str],
    n: int = 100,
    *,
    keep: int = 1,
    batch_size: int | None = None,
    seed: int = 0,
    views: int = 0,
    prune: Mapping[float, float] | None = None,
    scheduler: str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **pipe_kwargs: object,
) -> Selection: ...


@overload
def best_of_n(
    pipe: Pipeline | GeneratorFunction | str | os.PathLike[str],
    prompt: list[str] | tuple[str, ...],
    scorer: Scorer | str | os.PathLike[str],
    n: int = 100,
    *,
    keep: int = 1,
    batch_size: int | None = None,
    seed: int = 0,
    views: int = 0,
    prune: Mapping[float, float] | None = None,
    scheduler: str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **pipe_kwargs: object,
) -> list[Selection]: ...


def best_of_n(
    pipe: Pipeline | GeneratorFunction | str | os.PathLike[str],
    prompt: str | list[str] | tuple[str, ...],
    scorer: Scorer | str | os.PathLike[str],
    n: int = 100,
    *,
    keep: int = 1,
    batch_size: int | None = None,
    seed: int = 0,
    views: int = 0,
    prune: Mapping[float, float] | None = None,
    scheduler: str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **pipe_kwargs: object,
) -> Selection | list[Selection]:
    """Generate n candidates for a prompt and keep the best.

    Candidate i is what the pipeline makes with the seed `seed + i`, whatever the batch size, up to
    rounding; `n=1, seed=...` makes it again alone. Losers are dropped as they lose, so that
    memory does not grow with n.

    Args:
        pipe: A diffusers pipeline that makes images of a text prompt; image-to-image and ControlNet
            pipelines too, with their images in `pipe_kwargs`. Or what `stablepref select` takes:
            the name of a bundled pipeline ("shapes"), a folder or a hub repository, which is loaded
            onto the scorer's device in float32. Or any other generator, as a function
            `(prompts, seeds) -> images`: lists of equal length, the images whatever
            `stablepref.score` takes. Candidate i is what it makes of the seed `seed + i`, and `out`
            knows it by its qualified name, or by what its method `described()` returns.
        prompt: One prompt, or several, whose candidates then have the same seeds.
        scorer: The reward model, or what `stablepref.load` takes.
        n: Number of candidates for each prompt.
        keep: How many of the best to keep, in order.
        batch_size: Candidates generated at once, of several prompts where `in_groups` lets them
            share; None chooses by the size of the pictures and the memory, see `batch_size_for`.
            Halved when memory runs out.
        seed: Of the first candidate.
        views: Score each candidate as the mean over itself and this many weak views.
        prune: Drop losers while they are made: {0.4: 0.5} scores the predicted pictures of each
            batch after 40 % of the steps and continues with the better half. For the pipelines of
            `stablepref.integrations.diffusion.families.entered()` with the schedulers of
            `stablepref.integrations.diffusion.x0.SCHEDULERS`.
        scheduler: One of `stablepref.integrations.diffusion.schedulers.NAMED`, such as "ddim", to
            put in the place of the pipeline's own; it stays there.
        out: A folder for all candidates, with a contact sheet and a page of them
            (`Selection.save`); after a kill the same call continues there. Several prompts get a
            folder each in it.
        progress: Show a progress bar; None shows one in a terminal once work takes seconds.
        pipe_kwargs: For the call of the pipeline or function, such as `num_inference_steps`.

    Returns:
        A `Selection`, or a list of them for several prompts.

    Raises:
        TypeError: `pipe` is neither a pipeline with a text prompt nor a function of prompts and
            seeds, a function returns something else than images, or a prompt is not a string.
        ValueError: n, keep, views or batch_size is out of range, a prompt is empty, the pipeline
            has no such argument, `prune` is not for this pipeline or scheduler, a `RewardGuidance`
            among the arguments is for other prompts, a function does not return a usable image of
            each seed, or is a lambda where `out` has to know it, or no candidate of a prompt is
            usable, as when a safety checker blanks all of them; or nothing is called as `pipe` is.
        OSError: A named pipeline cannot be loaded.
        ImportError: A pipeline is named, and diffusers is not installed.
        ResumeError: `out` holds candidates of other settings.
        InUseError: Another process is writing candidates to `out`.
    """
    _check_counts(n=n, keep=keep, batch_size=batch_size, views=views)
    prompts = check_prompts([prompt] if isinstance(prompt, str) else prompt)
    if isinstance(pipe, str | os.PathLike):
        check_pipeline(os.fspath(pipe))
        scorer = as_scorer(scorer)
        pipe = load_pipeline(os.fspath(pipe), dtype=None, device=scorer.device)
    if scheduler is not None:
        require_pipeline(pipe)
        use_scheduler(cast("Pipeline", pipe), scheduler)
    check_generator(pipe, pipe_kwargs, named=out is not None)
    refuse_other_prompts(pipe_kwargs.get("callback_on_step_end"), prompts)
    if prune is not None:
        _check_pruning(pipe, prune, pipe_kwargs, batch_size)
    judge = as_scorer(scorer)
    with nullcontext() if out is None else sole_writer(Path(out), folder=True):
        folders: list[CandidateFolder | None] = [None] * len(prompts)
        if out is not None:
            places = [Path(out)]
            if not isinstance(prompt, str):
                places = [Path(out, f"{i:03d}") for i in range(len(prompts))]
            shared = _settings(pipe, judge, views, prune, pipe_kwargs)
            folders = [
                CandidateFolder(place, seed=seed, settings={"prompt": text, **shared})
                for place, text in zip(places, prompts, strict=True)
            ]
        drawn = [Drawn(folder, n) for folder in folders]
        selections: dict[int, Selection] = {}
        shown = progress_bar("generating", total=n * len(prompts), show=progress)
        work = scored_batches(
            pipe,
            prompts,
            [one.missing for one in drawn],
            judge,
            seed=seed,
            batch_size=batch_size,
            views=views,
            prune=prune,
            arguments=pipe_kwargs,
        )
        with shown as advance, closing(work):
            advance(sum(len(one.candidates) for one in drawn))
            for batch in chain([[]], work):  # before the first what is complete already
                for place, candidate, image in batch:
                    drawn[place].add(candidate, image, max(keep, RUNNER_UP))
                advance(len(batch))
                for place, one in enumerate(drawn):
                    if len(one.candidates) < n or place in selections:
                        continue
                    listed = [one.candidates[i] for i in range(n)]
                    text, folder = prompts[place], one.folder
                    chosen = _select(judge, text, listed, one.best, folder, keep=keep, views=views)
                    if folder is not None:
                        chosen.save(folder.folder)
                    selections[place] = chosen
                    one.best = {}
    found = [selections[place] for place in range(len(prompts))]
    return found[0] if isinstance(prompt, str) else found


def _select(
    scorer: Scorer,
    prompt: str,
    candidates: list[Candidate],
    best: Mapping[int, Image.Image],
    folder: CandidateFolder | None,
    *,
    keep: int,
    views: int,
) -> Selection:
    order = in_order(candidates)
    faults = [c.fault for c in candidates if c.fault and not c.pruned]
    if not order:
        msg = f"none of the {len(candidates)} candidates of {prompt!r} is usable: {faults[0]}"
        raise ValueError(msg)
    if faults:
        warnings.warn(
            f"{len(faults)} of {len(candidates)} candidates of {prompt!r} are left out; the first: "
            f"{faults[0]}",
            stacklevel=3,
        )
    pictures = {}
    if folder is not None:
        pictures = {candidate.index: folder.picture(candidate) for candidate in candidates}
        best = {c.index: _read(pictures[c.index]) for c in order[: max(keep, RUNNER_UP)]}
    margin = spread = None
    tie = False
    if len(order) >= RUNNER_UP:
        first, second = (best[candidate.index] for candidate in order[:RUNNER_UP])
        choice = scorer.compare(first, second, prompt, views=views)
        margin, spread, tie = choice.margin, choice.spread, choice.preferred == "tie"
    return Selection(
        prompt=prompt,
        images=[best[candidate.index] for candidate in order[:keep]],
        kept=[candidate.index for candidate in order[:keep]],
        candidates=candidates,
        margin=margin,
        spread=spread,
        tie=tie,
        model=scorer.name,
        unit=scorer.unit,
        pictures=pictures,
    )


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _settings(
    pipe: Pipeline | GeneratorFunction,
    scorer: Scorer,
    views: int,
    prune: Mapping[float, float] | None,
    arguments: Mapping[str, object],
) -> dict[str, object]:
    """What candidates depend on beside prompt and seed; not their number, which may be raised."""
    described = (
        described_function(cast("GeneratorFunction", pipe))
        if is_function(pipe)
        else described_pipeline(cast("Pipeline", pipe))
    )
    return {
        **described,
        "arguments": fingerprint(dict(arguments)),
        "model": scorer.name,
        "scorer": weights_digest(scorer),
        "dtype": str(scorer.dtype).removeprefix("torch."),
        "views": views,
        "prune": fingerprint(None if prune is None else dict(prune)),
    }


def _check_pruning(
    pipe: Pipeline | GeneratorFunction,
    prune: Mapping[float, float],
    arguments: Mapping[str, object],
    batch_size: int | None,
) -> None:
    if is_function(pipe):
        msg = "prune looks into the steps of a diffusers pipeline; a function has none: drop it"
        raise ValueError(msg)
    check_prune(cast("Pipeline", pipe), prune, arguments)
    if batch_size == 1:
        msg = "prune compares the candidates of a batch, and batch_size is 1: make it larger"
        raise ValueError(msg)


def _check_counts(*, n: int, keep: int, batch_size: int | None, views: int) -> None:
    if n < 1:
        msg = f"n must be 1 or more, got {n}"
        raise ValueError(msg)
    if not 1 <= keep <= n:
        msg = f"keep must be from 1 to n ({n}), got {keep}"
        raise ValueError(msg)
    if batch_size is not None and batch_size < 1:
        msg = f"batch_size must be 1 or more, got {batch_size}"
        raise ValueError(msg)
    if views < 0:
        msg = f"views must be 0 or more, got {views}"
        raise ValueError(msg)
