"""Scoring at the user's edge: one image or a million, against one prompt or one each."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, final

import torch
from accelerate.utils import send_to_device
from einops import rearrange, repeat
from torch import Tensor

from stablepref.images.sources import ImageError, count_sources, iter_sources
from stablepref.output.progress import progress_bar
from stablepref.output.text import shorten
from stablepref.scoring.batching import (
    BatchLimit,
    Prepared,
    WeakViews,
    computed_rows,
    encode_prepared,
    is_whole,
    of_equal_size,
    prepared_inputs,
)
from stablepref.scoring.contract import FailedInputsError
from stablepref.scoring.prompts import check_prompts, pair_prompts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stablepref.scoring.contract import BatchScorer, ScoreOptions

MATCH_ELEMENTS = 2**24  # image features repeated per prompt at once: 64 MB in float32


@final
@dataclass(frozen=True)
class Scored:
    """One image's result.

    Attributes:
        index: Position in the flat sequence of images.
        name: The whole path or URL, or a short description of an image in memory.
        prompt: What it was scored against; empty where a scorer that needs none got none.
        score: In the model's unit; NaN if the image could not be scored. With views, the mean over
            the image and its views.
        view_scores: Scores of the image itself and then of each view.
        error: Why the image could not be scored, else None.
        view_uncertainties: Standard deviation of each of `view_scores`, by models that predict
            them; else empty.
    """

    index: int
    name: str
    prompt: str
    score: float
    view_scores: tuple[float, ...]
    error: str | None = None
    view_uncertainties: tuple[float, ...] = ()

    @property
    def uncertainty(self) -> float | None:
        """The score's standard deviation as the model predicts it; None where it predicts none.

        With views, the mean over the image and its views: what they share does not average out.
        """
        count = len(self.view_uncertainties)
        return sum(self.view_uncertainties) / count if count else None

    @property
    def reason(self) -> str | None:
        """The error without the image's place and name, which are attributes of their own."""
        start = f"image {self.index} ({shorten(self.name)}): "
        return None if self.error is None else self.error.removeprefix(start)

    @property
    def spread(self) -> float:
        """Largest minus smallest of `view_scores`, as in the paper's equation 6."""
        return max(self.view_scores) - min(self.view_scores)


def score(
    scorer: BatchScorer,
    images: object,
    prompt: str | Iterable[str | None] | None = None,
    **options: Unpack[ScoreOptions],
) -> Tensor:
    """Scores `(n,)` of images, float32, on the CPU; see `Scorer.score`."""
    scores: list[float] = []
    bad: list[str] = []
    for item in stream(scorer, images, prompt, **options):
        scores.append(item.score)
        if item.error is not None:
            bad.append(item.error)
    warn_of_nan(bad, len(scores))
    return _on_cpu(scores)


def stream(
    scorer: BatchScorer,
    images: object,
    prompt: str | Iterable[str | None] | None = None,
    *,
    batch_size: int | None = None,
    on_error: str | None = None,
    views: int = 0,
    progress: bool | None = None,
) -> Iterator[Scored]:
    """One result after another; see `Scorer.stream`.

    Arguments are checked at once, images are read as results are taken.
    """
    total = count_sources(images)
    on_error = error_mode(on_error, total)
    if not is_whole(views) or views < 0:
        msg = f"views must be a whole number, 0 or more, got {views!r}"
        raise ValueError(msg)
    limit = BatchLimit.of(scorer, batch_size)
    weak_views = WeakViews.first(views)
    pairs = pair_prompts(iter_sources(images), prompt, count=total, needed=scorer.needs_prompt)

    def results() -> Iterator[Scored]:
        before: list[float] = []  # for the error that ends a list
        with progress_bar("scoring", total=total, show=progress) as advance:
            for item, row in computed_rows(
                scorer,
                pairs,
                limit=limit,
                function=lambda items: _view_scores(scorer, items, weak_views),
                views=weak_views,
                encodes=1 + views,
            ):
                scores, deviations = _parts(scorer, row)
                error = item.error or _not_finite(item, scores)
                if error is not None and on_error == "raise":
                    error.scores = _on_cpu(before)
                    raise error
                scored = _scored(item, scores, error, deviations)
                if on_error == "raise":
                    before.append(scored.score)
                yield scored
                advance(1)

    return results()


def score_matrix(
    scorer: BatchScorer,
    images: object,
    prompts: Sequence[str],
    *,
    batch_size: int | None = None,
    on_error: str | None = None,
    progress: bool | None = None,
) -> Tensor:
    """Scores `(n, m)` of every image under every prompt; see `Scorer.score_matrix`."""
    check_prompts(prompts)
    total = count_sources(images)
    on_error = error_mode(on_error, total)
    limit = BatchLimit.of(scorer, batch_size)
    features = None if scorer.joint else scorer.cached_prompts(prompts)

    def under_all(items: list[Prepared]) -> Tensor:
        if features is not None:
            return _match_all(scorer, encode_prepared(scorer, items), features)
        inputs = prepared_inputs(scorer, items)
        columns = [scorer.score_inputs(inputs, [prompt] * len(inputs)) for prompt in prompts]
        return torch.stack(columns, dim=1)

    nothing = _on_cpu([math.nan] * len(prompts))
    rows: list[Tensor] = []
    bad: list[str] = []
    with progress_bar("scoring", total=total, show=progress) as advance:
        for item, row in computed_rows(
            scorer,
            ((source, "") for source in iter_sources(images)),
            limit=limit,
            function=under_all,
        ):
            error = item.error or _not_finite(item, row, prompts)
            if error is not None and on_error == "raise":
                error.scores = torch.stack([nothing, *rows])[1:]
                raise error
            if error is not None:
                bad.append(str(error))
            rows.append(nothing if row is None else row.where(row.isfinite(), math.nan))
            advance(1)
    warn_of_nan(bad, len(rows))
    return torch.stack(rows)


def warn_of_nan(errors: Sequence[str], total: int) -> None:
    """Warn the caller of a scorer's method that images got NaN, once and with the first reason."""
    if errors:
        msg = f"{len(errors)} of {total} images got NaN; the first: {errors[0]}"
        warnings.warn(msg, stacklevel=4)  # this function, the method's own, the method


def error_mode(on_error: str | None, total: int | None) -> str:
    """As asked, or "raise" where the number of images is known beforehand, else "nan"."""
    mode = on_error or ("nan" if total is None else "raise")
    if mode not in ("raise", "nan"):
        msg = f'on_error must be "raise", "nan" or None, got {on_error!r}'
        raise ValueError(msg)
    return mode


def _view_scores(scorer: BatchScorer, items: list[Prepared], views: WeakViews | None) -> Tensor:
    """Scores `(len(items), 1 + views)`: of each image itself, then of its weak views.

    Of models that predict them, the logarithms of as many standard deviations follow. Every image
    gets the same views, so that a score depends neither on an image's neighbours nor
    on its place. A prompt that names a side gets no mirrored ones.
    """
    prompts = [item.prompt for item in items]
    scores = _predicted(scorer, prepared_inputs(scorer, items), prompts)[:, None]
    if views is None:
        return scores.flatten(1)
    boxes, flips = map(torch.stack, zip(*map(views.of, prompts), strict=True))
    crops: dict[int, Iterable[Any]] = {
        row: send_to_device(item.views, scorer.device, non_blocking=True)
        for row, item in enumerate(items)
        if item.views is not None
    }
    rest = [row for row in range(len(items)) if row not in crops]
    for rows, pixels in of_equal_size(scorer, items, rest):
        crops.update(zip(rows, scorer.preprocess(pixels, boxes[rows], flips[rows]), strict=True))
    try:
        of_views = _predicted(
            scorer,
            [inputs for row in range(len(items)) for inputs in crops[row]],
            [prompt for prompt in prompts for _ in views.boxes],
        )
    except FailedInputsError as error:
        count = len(views.boxes)
        reasons = {row // count: f"a weak view: {why}" for row, why in error.reasons.items()}
        raise FailedInputsError(reasons) from error
    of_views = of_views.unflatten(0, (len(items), len(views.boxes)))
    together = torch.cat([scores, of_views], dim=1)
    return rearrange(together, "images views kinds -> images (kinds views)")


def _predicted(scorer: BatchScorer, inputs: Sequence[Any], prompts: Sequence[str]) -> Tensor:
    """Scores `(batch, 1)`, or with the logarithms of their standard deviations `(batch, 2)`."""
    if scorer.predicts_uncertainty:
        return scorer.predict_inputs(inputs, prompts)
    return scorer.score_inputs(inputs, prompts)[:, None]


def _parts(scorer: BatchScorer, row: Tensor | None) -> tuple[Tensor | None, tuple[float, ...]]:
    """The scores of a row of `_view_scores`, and their standard deviations where it has them."""
    if row is None or not scorer.predicts_uncertainty:
        return row, ()
    scores, logarithms = row.chunk(2)
    return scores, tuple(logarithms.exp().tolist())


def _on_cpu(values: Sequence[float]) -> Tensor:
    """Float32 on the CPU, whatever torch's default type and device are."""
    return torch.tensor(values, dtype=torch.float32, device="cpu")


def _match_all(scorer: BatchScorer, features: Tensor, prompts: Tensor) -> Tensor:
    """Scores `(images, prompts)` of every image's features against every prompt's."""
    images = len(features)
    step = max(1, MATCH_ELEMENTS // max(1, features.numel()))
    columns = []
    for chunk in prompts.split(step):
        pairs = scorer.match(
            repeat(features, "images ... -> (images prompts) ...", prompts=len(chunk)),
            repeat(chunk, "prompts ... -> (images prompts) ...", images=images),
        )
        columns.append(rearrange(pairs, "(images prompts) -> images prompts", images=images))
    return torch.cat(columns, dim=1)


def _not_finite(
    item: Prepared, row: Tensor | None, columns: Sequence[str] = ()
) -> ImageError | None:
    """The error of an image without a finite score, or None."""
    wrong = [] if row is None else (~row.isfinite()).nonzero().flatten().tolist()
    if not wrong or row is None:
        return None
    where = f" for the weak view {wrong[0]}" if wrong[0] else ""
    if columns:
        where = f" for the prompt {shorten(repr(columns[wrong[0]]))}"
    reason = (
        f"the model's score is {row[wrong[0]].item()}{where}; in half precision try float32, else "
        "look for what its weights or its function do with this image"
    )
    return ImageError(item.source.index, item.source.name, reason)


def _scored(
    item: Prepared, row: Tensor | None, error: ImageError | None, deviations: tuple[float, ...]
) -> Scored:
    views = (math.nan,) if row is None or error is not None else tuple(row.tolist())
    return Scored(
        index=item.source.index,
        name=item.source.name,
        prompt=item.prompt,
        score=sum(views) / len(views),
        view_scores=views,
        error=None if error is None else str(error),
        view_uncertainties=deviations if error is None else (),
    )
