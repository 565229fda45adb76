"""Scoring at the user's edge: one image or a million, against one prompt or one each."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from stablepref.augment import mentions_side, weak_view_boxes
from stablepref.images import ImageError, count_sources, iter_sources
from stablepref.pipeline import BatchLimit, Prepared, computed_rows
from stablepref.progress import progress_bar
from stablepref.prompts import check_prompts, pair_prompts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stablepref.scorer import Scorer

MATCH_ELEMENTS = 2**24  # image features repeated per prompt at once: 64 MB in float32
VIEW_SEED = 0


@final
@dataclass(frozen=True)
class Scored:
    """One image's result.

    Attributes:
        index: Position in the flat sequence of images.
        name: Path, or a short description of an image in memory.
        prompt: What it was scored against.
        score: In the model's unit; NaN if the image could not be scored. With views, the mean over
            the image and its views.
        view_scores: Scores of the image itself and then of each view.
        error: Why the image could not be scored, else None.
    """

    index: int
    name: str
    prompt: str
    score: float
    view_scores: tuple[float, ...]
    error: str | None = None

    @property
    def spread(self) -> float:
        """Largest minus smallest of `view_scores`, as in the paper's equation 6."""
        return max(self.view_scores) - min(self.view_scores)


def score(
    scorer: Scorer,
    images: object,
    prompt: str | Iterable[str],
    *,
    batch_size: int | None = None,
    on_error: str | None = None,
    views: int = 0,
    progress: bool | None = None,
) -> Tensor:
    """See `Scorer.score`."""
    scores: list[float] = []
    bad: list[str] = []
    try:
        for item in stream(
            scorer,
            images,
            prompt,
            batch_size=batch_size,
            on_error=on_error,
            views=views,
            progress=progress,
        ):
            scores.append(item.score)
            if item.error is not None:
                bad.append(item.error)
    except ImageError as error:
        error.scores = torch.tensor(scores)
        raise
    if bad:
        warnings.warn(
            f"{len(bad)} of {len(scores)} images got NaN; the first: {bad[0]}", stacklevel=3
        )
    return torch.tensor(scores)


def stream(
    scorer: Scorer,
    images: object,
    prompt: str | Iterable[str],
    *,
    batch_size: int | None = None,
    on_error: str | None = None,
    views: int = 0,
    progress: bool | None = None,
) -> Iterator[Scored]:
    """See `Scorer.stream`. Arguments are checked at once, images are read as results are taken."""
    total = count_sources(images)
    on_error = error_mode(on_error, total)
    if not isinstance(views, int) or views < 0:
        msg = f"views must be a whole number, 0 or more, got {views!r}"
        raise ValueError(msg)
    limit = BatchLimit.of(scorer, batch_size)
    pairs = pair_prompts(iter_sources(images), prompt, count=total)

    def results() -> Iterator[Scored]:
        with progress_bar("scoring", total=total, show=progress) as advance:
            for item, row in computed_rows(
                scorer,
                pairs,
                limit=limit,
                function=lambda items: _view_scores(scorer, items, views),
                keep_pixels=views > 0,
                encodes=1 + views,
            ):
                if item.error is not None and on_error == "raise":
                    raise item.error
                yield _scored(item, row)
                advance(1)

    return results()


def score_matrix(
    scorer: Scorer,
    images: object,
    prompts: Sequence[str],
    *,
    batch_size: int | None = None,
    on_error: str | None = None,
    progress: bool | None = None,
) -> Tensor:
    """See `Scorer.score_matrix`."""
    check_prompts(prompts)
    total = count_sources(images)
    on_error = error_mode(on_error, total)
    limit = BatchLimit.of(scorer, batch_size)
    features = scorer.cached_prompts(prompts)
    bad = torch.full((len(prompts),), math.nan)
    rows: list[Tensor] = []
    with progress_bar("scoring", total=total, show=progress) as advance:
        for item, row in computed_rows(
            scorer,
            ((source, "") for source in iter_sources(images)),
            limit=limit,
            function=lambda items: _match_all(scorer, encode_prepared(scorer, items), features),
        ):
            if item.error is not None and on_error == "raise":
                item.error.scores = torch.stack(rows) if rows else torch.empty(0, len(prompts))
                raise item.error
            rows.append(bad if row is None else row)
            advance(1)
    return torch.stack(rows)


def error_mode(on_error: str | None, total: int | None) -> str:
    """As asked, or "raise" where the number of images is known beforehand, else "nan"."""
    mode = on_error or ("nan" if total is None else "raise")
    if mode not in ("raise", "nan"):
        msg = f'on_error must be "raise", "nan" or None, got {on_error!r}'
        raise ValueError(msg)
    return mode


def encode_prepared(scorer: Scorer, items: list[Prepared]) -> Tensor:
    """Image features `(len(items), ...)`: exact inputs as they are, float pixels preprocessed.

    Float pictures of equal size are preprocessed together; no size is padded to another, which
    for a wide picture beside a tall one could fill the memory.
    """
    inputs: dict[int, Tensor] = {}
    sizes: dict[torch.Size, list[int]] = {}
    for row, item in enumerate(items):
        if item.inputs is not None:
            inputs[row] = item.inputs.to(scorer.device, non_blocking=True)
        elif item.pixels is not None:
            sizes.setdefault(item.pixels.shape, []).append(row)
    for rows in sizes.values():
        pixels = torch.stack([_on_device(items[row], scorer) for row in rows])
        inputs.update(zip(rows, scorer.preprocess(pixels), strict=True))
    return scorer.encode_inputs(torch.stack([inputs[row] for row in range(len(items))]))


def _view_scores(scorer: Scorer, items: list[Prepared], views: int) -> Tensor:
    """Scores `(len(items), 1 + views)`: of each image itself, then of its weak views.

    Every image gets the same views, so that a score depends neither on an image's neighbours nor
    on its place. A prompt that names a side gets no mirrored ones.
    """
    prompts = scorer.cached_prompts([item.prompt for item in items])
    scores = scorer.match(encode_prepared(scorer, items), prompts)[:, None]
    if not views:
        return scores
    boxes, flips = weak_view_boxes([0] * len(items), views, seed=VIEW_SEED, hflip=True)
    sided = torch.tensor([mentions_side(item.prompt) for item in items])
    crops = scorer.preprocess(
        [_on_device(item, scorer) for item in items], boxes, flips & ~sided[:, None]
    )
    features = scorer.encode_inputs(crops.flatten(0, 1))
    of_views = scorer.match(features, prompts.repeat_interleave(views, dim=0))
    return torch.cat([scores, of_views.unflatten(0, (len(items), views))], dim=1)


def _match_all(scorer: Scorer, features: Tensor, prompts: Tensor) -> Tensor:
    """Scores `(images, prompts)` of every image's features against every prompt's."""
    images = len(features)
    step = max(1, MATCH_ELEMENTS // max(1, features.numel()))
    columns = []
    for chunk in prompts.split(step):
        pairs = scorer.match(
            features.repeat_interleave(len(chunk), dim=0),
            chunk.repeat(images, *[1] * (chunk.ndim - 1)),
        )
        columns.append(pairs.unflatten(0, (images, len(chunk))))
    return torch.cat(columns, dim=1)


def _on_device(item: Prepared, scorer: Scorer) -> Tensor:
    """The item's pixels as floats in [0, 1], where the model is."""
    assert item.pixels is not None
    pixels = item.pixels.to(scorer.device, non_blocking=True)
    return pixels if pixels.is_floating_point() else pixels.float() / 255


def _scored(item: Prepared, row: Tensor | None) -> Scored:
    views = (math.nan,) if row is None else tuple(row.tolist())
    return Scored(
        index=item.source.index,
        name=item.source.name,
        prompt=item.prompt,
        score=sum(views) / len(views),
        view_scores=views,
        error=None if item.error is None else str(item.error),
    )
