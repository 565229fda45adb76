"""One training of the ablations on cached tokens, with the library's own objective and optimiser.

What `stablepref.train` does in a step, without running the frozen blocks again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from stablepref.training.log import batch_metrics
from stablepref.training.pairs import PairBatches
from stablepref.training.resume import model_to_train, optimizer_of
from stablepref.training.schedule import learning_rate_at
from stablepref.training.step import StepResult, loss_and_gradient, objectives_of

from .features import Cached, pool_choice
from .measure import Data, disturbed_measures, tested_measures, validation_measures
from .towers import Texts, image_features, mixed, plain_attention, prompt_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stablepref.models.clip import CLIPScorer
    from stablepref.recipes import TrainConfig
    from stablepref.training.pairs import Batch

    from .cells import Cell


def train_cell(
    cell: Cell,
    start: CLIPScorer,
    data: Data,
    *,
    advance: Callable[[str, int], object] = lambda _kind, _count: None,
) -> dict[str, object]:
    """Train, and measure after the steps that the cell names.

    Args:
        cell: What to train and measure.
        start: The model to begin from, left as it is.
        data: Of the cell's model and setting.
        advance: Called after each step with "trained", and after each measurement with "measured",
            and the number of images and views that it encoded.

    Returns:
        Plain values for JSON: "watched", "tested", "disturbed", "seconds", and "diverged": the
        step whose loss or gradient was not finite, after which nothing is measured, or None.
    """
    config = cell.config
    began = time.monotonic()
    model = cast("CLIPScorer", model_to_train(start, config))
    optimizer = optimizer_of(model, config)
    batches = PairBatches(
        data.train.groups,
        batch_size=config.batch_size,
        batching=config.batching,
        seed=config.seed,
    )
    watched: list[dict[str, float]] = []
    tested: dict[str, object] = {}
    disturbed: dict[str, object] = {}
    since: dict[str, list[float]] = defaultdict(list)
    diverged: int | None = None
    with plain_attention(model.device):
        for done in range(cell.last + 1):
            if done in cell.watched:
                found, count = validation_measures(model, data)
                means = {name: float(np.mean(values)) for name, values in since.items()}
                watched.append({"step": done, **found, **means})
                since.clear()
                advance("measured", count)
            if done in cell.tested:
                tested[str(done)], count = tested_measures(model, data)
                advance("measured", count)
            if done in cell.disturbed:
                disturbed[str(done)], count = disturbed_measures(model, data, cell.setting)
                advance("measured", count)
            if done == cell.last:
                break
            metrics, count = _step(model, optimizer, data.train, batches[done], config, done)
            advance("trained", count)
            if metrics is None:
                diverged = done + 1
                break
            for name, value in metrics.items():
                since[name].append(value)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "diverged": diverged,
        "watched": watched,
        "tested": tested,
        "disturbed": disturbed,
    }


def cached_backward(
    model: CLIPScorer, cached: Cached, batch: Batch, config: TrainConfig, step: int
) -> StepResult:
    """Add a batch's gradient to the weights' `.grad`, as `stablepref.training.step.backward` does.

    Args:
        model: From `model_to_train`.
        cached: The training groups with their pool of views.
        batch: Pairs of them.
        config: Decides the objective and how many views are shown.
        step: From 0.
    """
    rows = np.array([cached.first[group] + place for group, place in batch.images])
    columns = view_columns(rows.tolist(), config, pool=cached.pool, step=step)
    groups = [group for group, _ in batch.images]
    with mixed(model.device, config.mixed_precision):
        scores = batch_scores(model, cached, groups, rows, columns)
    better, worse, label = (part.to(model.device) for part in batch[1:])
    objective = objectives_of(config).at(step)
    found, gradient = loss_and_gradient(objective, scores.detach(), better, worse, label)
    if found.loss.isfinite():
        scores.backward(gradient)
    usable = torch.ones(len(rows), dtype=torch.bool)
    return StepResult(found, scores.detach(), usable, len(better))


def view_columns(
    items: list[int], config: TrainConfig, *, pool: int, step: int
) -> NDArray[np.int64]:
    """Which variants of each image a step shows, `(images, views)`: the image itself first.

    With `augment` a weak view replaces it, as in `stablepref.training.loader.ShareReader`.
    """
    views = config.views + config.augment
    weak = 1 + pool_choice(items, views, pool, seed=config.seed, step=step)
    if config.augment:
        return weak
    return np.concatenate([np.zeros((len(items), 1), dtype=np.int64), weak], axis=1)


def batch_scores(
    model: CLIPScorer,
    cached: Cached,
    groups: list[int],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> Tensor:
    """Scores `(images, views)`, differentiable; each prompt is encoded once."""
    image_blocks, text_blocks = cached.trained
    tokens = torch.from_numpy(cached.tokens[rows[:, None], columns]).to(model.device)
    images = image_features(model, tokens.flatten(0, 1), trained=image_blocks)
    distinct = list(dict.fromkeys(groups))
    texts = Texts(*(part[distinct] for part in cached.texts))
    prompts = prompt_features(model, texts, trained=text_blocks)
    place = {group: number for number, group in enumerate(distinct)}
    repeated = [place[group] for group in groups for _ in range(columns.shape[1])]
    return model.match(images, prompts[repeated]).view(columns.shape)


def _step(
    model: CLIPScorer,
    optimizer: torch.optim.Optimizer,
    cached: Cached,
    batch: Batch,
    config: TrainConfig,
    step: int,
) -> tuple[dict[str, float] | None, int]:
    """One optimiser step: its metrics, None if it is not finite, and how many views it encoded."""
    rate = learning_rate_at(
        step, peak=config.learning_rate, steps=config.steps, warmup_steps=config.warmup_steps
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    result = cached_backward(model, cached, batch, config, step)
    count = result.scores.numel()
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm or torch.inf)
    if not result.objective.loss.isfinite() or not norm.isfinite():
        return None, count
    optimizer.step()
    model.after_step()
    optimizer.zero_grad()
    return batch_metrics(result) | {"grad_norm": float(norm)}, count
