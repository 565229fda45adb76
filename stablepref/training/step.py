"""The gradient of a global batch's loss, the same for any number of processes and micro-batches.

The losses of *Stable Preference* couple all pairs of a batch through the softmax of equation 8, so
the average of parts is not the whole. But a loss reads only the scores, and these are few: every
process gathers all of them, computes the whole loss and its gradient in each score, and carries
its own scores' gradients back through the model. Where a share does not fit in memory at once, its
scores come from a pass without graph first, and each micro-batch is encoded again for its gradient
(gradient caching: Gao et al. 2021, arXiv:2101.06983).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import torch
from torch import Tensor, nn

from stablepref.losses import Objective, batch_objective, pair_margin, uncertainty_objective
from stablepref.recipes import LOSSES, UNCERTAINTY
from stablepref.training.loader import shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from accelerate import Accelerator

    from stablepref.losses import BatchLoss
    from stablepref.recipes import TrainConfig
    from stablepref.scorer import Scorer
    from stablepref.training.loader import Share

TOGETHER: Final = 64 * 512 * 512
"""Pixels padded and preprocessed together: a batch of ordinary pictures, 200 MB in float32."""


class StepResult(NamedTuple):
    """What came of a global batch, the same in all processes.

    Attributes:
        objective: Loss, margins and weights of the usable pairs, without graph.
        scores: `(images, views)`, float32, NaN for images that cannot be used; of a loss that
            trains standard deviations, their logarithms follow in as many columns.
        usable: Bool `(images,)`.
        pairs: Number of usable pairs.
    """

    objective: Objective
    scores: Tensor
    usable: Tensor
    pairs: int


@final
@dataclass(frozen=True)
class Objectives:
    """What the steps of a training minimise.

    Attributes:
        config: Decides the built-in losses.
        outside: A loss in the form of `BatchLoss`, which takes their place; None for those that
            the configuration's own fields decide.
    """

    config: TrainConfig
    outside: BatchLoss | None

    def at(self, step: int) -> BatchLoss:
        """The loss of a step, from 0: the paper's of step 1 or 2, cross-entropy, or `outside`."""
        if self.outside is not None:
            return self.outside
        return partial(
            batch_objective,
            weighting=self.config.weighting(step),
            anti_interference=self.config.anti_interference,
            b=self.config.b,
            tau=self.config.tau,
            margin_weighting=self.config.margin_weighting,
            detach_weights=self.config.detach_weights,
        )

    @property
    def uncertainty(self) -> bool:
        """Whether the loss trains standard deviations of scores.

        It says so by an attribute of this name, and then gets `(images, 2 views)`: scores, and the
        logarithms of their standard deviations in as many columns.
        """
        return bool(getattr(self.outside, "uncertainty", False))

    @property
    def preference_scale(self) -> float | None:
        """The factor that turns a difference of trained scores into the log-odds of a preference.

        1 for the built-in losses, which train -log sigmoid(ΔS). A loss from outside says it by an
        attribute of this name; without it, None: differences are not trained as log-odds.
        """
        return 1.0 if self.outside is None else getattr(self.outside, "preference_scale", None)


def objectives_of(config: TrainConfig, outside: BatchLoss | None = None) -> Objectives:
    """The losses of a training.

    Args:
        config: Names the loss.
        outside: A loss that takes the place of the named one.

    Raises:
        ImportError: A package adds the named loss, and it cannot be loaded.
        TypeError: The loss cannot be called.
    """
    loss = outside if outside is not None else LOSSES[config.loss]
    if outside is None and config.loss == UNCERTAINTY:
        loss = uncertainty_objective
    if loss is not None and not callable(loss):
        raise TypeError(
            f"the loss is {loss!r}; expected a function of scores, better, worse and label, like "
            "stablepref.losses.batch_objective"
        )
    return Objectives(config, loss)


def backward(
    accelerator: Accelerator,
    module: nn.Module,
    share: Share,
    objective: BatchLoss,
    *,
    micro_batch_size: int | None = None,
) -> StepResult:
    """Add the global loss's gradient to the weights' `.grad`.

    Args:
        accelerator: The distributed engine; its divisions by the numbers of processes and of
            accumulation steps are undone.
        module: A prepared `ViewScores`.
        share: This process's part of the batch.
        objective: The loss as a function of the scores of all usable images of the batch.
        micro_batch_size: Images encoded at once; None encodes the share at once.

    Returns:
        The loss and its parts. The gradient of a loss that is not finite is not carried back.

    Raises:
        TypeError: The objective returned no tensor, and no `Objective` of tensors.
        ValueError: It returned a loss that is not a scalar, is on another device or has no gradient
            in the scores; or margins or weights that are not one number for each pair.
    """
    chunks = _chunks(share, micro_batch_size)
    once = len(chunks) == 1
    with nullcontext() if once else torch.no_grad():
        parts = [_encode(module, share, chunk) for chunk in chunks]
    table, usable = _gathered(accelerator, share, torch.cat(parts).detach())
    better, worse, label = (part.to(table.device) for part in share.batch[1:])
    keep, row = usable[better] & usable[worse], usable.cumsum(0) - 1
    found, seen = loss_and_gradient(
        objective, table[usable], row[better[keep]], row[worse[keep]], label[keep]
    )
    gradient = torch.zeros_like(table)
    gradient[usable] = seen
    scored = table.masked_fill(~usable[:, None], torch.nan)
    result = StepResult(found, scored, usable, int(keep.sum()))
    if not found.loss.isfinite():
        return result
    divided = accelerator.num_processes * accelerator.gradient_accumulation_steps
    first = shares(len(table), accelerator.num_processes)[accelerator.process_index].start
    for number, chunk in enumerate(chunks):
        last = number + 1 == len(chunks)
        with nullcontext() if last else accelerator.no_sync(module):
            scores = parts[0] if once else _encode(module, share, chunk)
            wanted = gradient[first + chunk.start : first + chunk.stop]
            carried = (scores[: len(chunk)] * wanted).sum() + 0 * scores.sum()
            accelerator.backward(carried * divided)
    return result


def loss_and_gradient(
    objective: BatchLoss, scores: Tensor, better: Tensor, worse: Tensor, label: Tensor
) -> tuple[Objective, Tensor]:
    """A loss of a batch's scores, checked, and its gradient in each of them.

    Without pairs the loss is 0, and the objective is not called.

    Args:
        objective: The loss.
        scores: `(images, views)`, without graph.
        better: Rows of `scores`, int64 `(pairs,)`.
        worse: Rows of `scores`, int64 `(pairs,)`.
        label: Probability that `better` is the better image, `(pairs,)`.

    Returns:
        The loss and its parts without graph, and the gradient, `(images, views)`. Of a loss that is
        not finite the gradient is meaningless.

    Raises:
        TypeError: The objective returned no tensor, and no `Objective` of tensors.
        ValueError: It returned a loss that is not a scalar, is on another device or has no gradient
            in the scores; or margins or weights that are not one number for each pair.
    """
    if not len(better):
        nothing = scores.new_zeros(0)
        return Objective(scores.new_zeros(()), nothing, nothing), torch.zeros_like(scores)
    leaf = scores.clone().requires_grad_()
    with torch.enable_grad():
        found = objective(leaf, better, worse, label)
    if isinstance(found, Tensor):
        margin = pair_margin(scores[better], scores[worse])
        found = Objective(found, margin, torch.ones_like(margin))
    if not isinstance(found, Objective):
        raise TypeError(
            f"the loss returned a {type(found).__name__}; expected a scalar tensor or an Objective"
        )
    _check_parts(found, len(better), scores.device)
    gradient = None
    if found.loss.requires_grad:
        (gradient,) = torch.autograd.grad(found.loss, leaf, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "the loss has no gradient in the scores; compute it from them with torch operations, "
            "without detach(), item() or numpy()"
        )
    return Objective(*(part.detach() for part in found)), gradient


def _check_parts(found: Objective, pairs: int, device: torch.device) -> None:
    for name, part in found._asdict().items():
        if not isinstance(part, Tensor):
            raise TypeError(
                f"the loss returned a {type(part).__name__} as its {name}; expected a tensor"
            )
        shape = () if name == "loss" else (pairs,)
        expected = f"({pairs},), one number for each pair" if shape else "a scalar, such as a mean"
        if part.shape != shape:
            raise ValueError(
                f"the loss returned a {name} of shape {tuple(part.shape)}; expected {expected}"
            )
        if part.device != device:
            raise ValueError(
                f"the loss returned a {name} on {part.device}; expected {device}, where the scores "
                "are"
            )


@torch.no_grad()
def gathered_scores(
    accelerator: Accelerator,
    module: nn.Module,
    share: Share,
    *,
    micro_batch_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Scores `(images, views)` of a global batch without gradient, and which images are usable.

    The scores of the others are NaN; those of usable images are what the model gives.
    """
    parts = [_encode(module, share, chunk) for chunk in _chunks(share, micro_batch_size)]
    scores, usable = _gathered(accelerator, share, torch.cat(parts))
    return scores.masked_fill(~usable[:, None], torch.nan), usable


def _chunks(share: Share, size: int | None) -> list[range]:
    """Micro-batches of the share, as many in every process, since engines may wait for each."""
    number = 1 if size is None else -(-share.largest // size)
    return shares(len(share.pixels), number)


def _encode(module: nn.Module, share: Share, chunk: range) -> Tensor:
    """Scores `(len(chunk), views)`; of an empty chunk one meaningless row, for its graph."""
    if not len(chunk):
        views = share.boxes.shape[1]
        whole = torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * views])
        return module([torch.zeros(3, 1, 1)], ["-"], whole, torch.zeros(1, views).bool())
    part = slice(chunk.start, chunk.stop)
    return module(share.pixels[part], share.prompts[part], share.boxes[part], share.flips[part])


def _gathered(accelerator: Accelerator, share: Share, scores: Tensor) -> tuple[Tensor, Tensor]:
    """All processes' scores in the order of the batch's images, and which images are usable."""
    count, views = len(share.pixels), scores.shape[1]
    table = scores.new_zeros(share.largest, views + 1, dtype=torch.float32)
    table[:count, :views] = scores[:count]
    table[:count, views] = share.usable
    rows = shares(len(share.batch.images), accelerator.num_processes)
    parts = accelerator.gather(table).unflatten(0, (accelerator.num_processes, share.largest))
    table = torch.cat([part[: len(row)] for part, row in zip(parts, rows, strict=True)])
    return table[:, :views], table[:, views].bool()


@final
class ViewScores(nn.Module):
    """A scorer as it is trained: pictures and weak views in, one score for each view out.

    This is the module that distributed engines wrap: all encoding happens inside its `forward`.

    Args:
        scorer: The model.
        uncertainty: Whether logarithms of standard deviations follow the scores.
    """

    def __init__(self, scorer: Scorer, *, uncertainty: bool = False) -> None:
        super().__init__()
        self.scorer = scorer
        self.uncertainty = uncertainty

    def forward(
        self, pixels: Sequence[Tensor], prompts: Sequence[str], boxes: Tensor, flips: Tensor
    ) -> Tensor:
        """Scores `(images, views)`, float32; each distinct prompt is encoded once.

        With uncertainty `(images, 2 views)`.

        Preprocessing pads pictures to the largest: it takes them in runs of bounded memory, so
        that a single huge picture does not make every other one huge.

        Args:
            pixels: For each image uint8 or float in [0, 1], `(3, H, W)`, of any sizes.
            prompts: For each image its prompt.
            boxes: `(images, views, 4)`, fractions of width and height, on the CPU.
            flips: Bool `(images, views)`, on the CPU.
        """
        inputs = [
            view
            for run in padded_together(pixels)
            for image in self._inputs(
                pixels[run.start : run.stop],
                boxes[run.start : run.stop],
                flips[run.start : run.stop],
            )
            for view in image
        ]
        features = self.scorer.encode_inputs(self.scorer.collate(inputs))
        row = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        rows = [row[prompt] for prompt in prompts for _ in range(boxes.shape[1])]
        matched = features, self.scorer.encode_prompts(list(row))[rows]
        if not self.uncertainty:
            return self.scorer.match(*matched).view(boxes.shape[:2])
        both = self.scorer.predict(*matched).view(*boxes.shape[:2], 2)
        return both.transpose(1, 2).flatten(1)

    def _inputs(
        self, pixels: Sequence[Tensor], boxes: Tensor, flips: Tensor
    ) -> Iterable[Iterable[Any]]:
        """For each image the inputs of each view, as `Scorer.collate` takes them."""
        device = self.scorer.device
        pictures = [_as_float(picture.to(device, non_blocking=True)) for picture in pixels]
        return self.scorer.preprocess(pictures, boxes, flips)


def padded_together(pixels: Sequence[Tensor], most: int = TOGETHER) -> list[range]:
    """Runs of consecutive pictures that take at most `most` pixels when padded to equal sides.

    A picture that is larger by itself is a run of its own.
    """
    runs: list[range] = []
    first = height = width = 0
    for index, picture in enumerate(pixels):
        height, width = max(height, picture.shape[1]), max(width, picture.shape[2])
        if index > first and height * width * (index + 1 - first) > most:
            runs.append(range(first, index))
            first, (height, width) = index, picture.shape[1:]
    return [*runs, range(first, len(pixels))]


def _as_float(picture: Tensor) -> Tensor:
    return picture if picture.is_floating_point() else picture.float().div_(255)
