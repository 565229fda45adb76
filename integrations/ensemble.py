"""Several scorers of different units as one scorer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast, final

import torch
from torch import Tensor, nn

from stablepref.models.unsaved import UnsavedScorer
from stablepref.scorer import Scorer
from stablepref.scoring.batching import views_of
from stablepref.scoring.prompts import check_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from stablepref.scoring.contract import Preprocessing


@final
class Ensemble(UnsavedScorer):
    """The weighted sum of several scorers' normalised scores: sum of weight x (score - mean) / std.

    It is a scorer like any other: `score`, `rank`, `compare`, views, gradients. Each image goes
    through every scorer's own preprocessing. It is no model of its own and has no folder: save its
    scorers.

    Attributes:
        scorers: The scorers, in the order given.
        weights: Float32 `(n,)`.

    Args:
        scorers: At least one, on one device; none of them an ensemble.
        weights: A factor for each; None for 1 / n each.
        normalise: How scores of different units become comparable. "log-odds" multiplies each by
            its `preference_scale`, so that a difference is the log-odds that a person prefers an
            image, by each model's own training; for scorers trained on preferences. Pairs (mean,
            std), one for each scorer, make scores of reference images standard: see
            `reference_statistics`. None takes scores as they are, which needs weights if units
            differ.
        name: What error messages and pages call it.

    Raises:
        ValueError: No scorers, other numbers of weights or pairs, weights or pairs that are not
            finite, a std that is not positive, units that differ with neither weights nor
            normalise, or "log-odds" with a scorer that was not trained on preferences.
        TypeError: Something else than a scorer is given, or an ensemble.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        *,
        weights: Sequence[float] | None = None,
        normalise: Literal["log-odds"] | Sequence[tuple[float, float]] | None = None,
        name: str | None = None,
    ) -> None:
        _check_scorers(scorers)
        pairs, unit = _normalisation(scorers, weights, normalise)
        factors = [1 / len(scorers)] * len(scorers) if weights is None else list(weights)
        if len(factors) != len(scorers) or not all(map(math.isfinite, factors)):
            msg = f"weights are {factors}; expected {len(scorers)} finite numbers, one a scorer"
            raise ValueError(msg)
        super().__init__(
            name=name or "+".join(scorer.name for scorer in scorers),
            unit=unit,
            preprocess=_JointPreprocess(scorer.preprocess for scorer in scorers),
            preference_scale=1.0 if normalise == "log-odds" else None,
        )
        self.scorers = nn.ModuleList(scorers)
        self.weights = torch.tensor(factors, dtype=torch.float32, device="cpu")
        self._pairs = pairs
        self._images, self._prompts = _Packing(), _Packing()
        if len({scorer.device for scorer in scorers}) > 1:
            msg = "the scorers are on different devices: bring them to one with .to(device)"
            raise ValueError(msg)
        self.needs_prompt = any(scorer.needs_prompt for scorer in scorers)
        # Rows of features of one size are what it packs; else each scorer scores by itself.
        self.joint = any(scorer.joint or scorer.ragged for scorer in scorers)
        self.train(scorers[0].training)

    @property
    def normalisation(self) -> list[tuple[float, float]]:
        """Mean and standard deviation by which each scorer's scores are made standard."""
        return list(self._pairs)

    def collate(self, inputs: Any) -> list[Any]:  # noqa: ANN401 - one tuple for each image
        """Every scorer's own batch.

        Args:
            inputs: For each image a tuple with every scorer's inputs of it.
        """
        columns = zip(*inputs, strict=True)
        return [
            scorer.collate(list(column))
            for scorer, column in zip(self._members(), columns, strict=True)
        ]

    def encode_inputs(self, inputs: Sequence[Any]) -> Tensor:
        """Every scorer's image features, one row `(batch, sum)` of numbers for each image."""
        batches = zip(self._members(), inputs, strict=True)
        return self._images.pack([scorer.encode_inputs(batch) for scorer, batch in batches])

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Every scorer's prompt features, one row `(batch, sum)` of numbers for each prompt."""
        return self._prompts.pack([scorer.encode_prompts(prompts) for scorer in self._members()])

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Weighted sums `(batch,)` of normalised scores, float32 or wider."""
        rows = zip(
            self._members(),
            self._images.unpack(image_features),
            self._prompts.unpack(prompt_features),
            strict=True,
        )
        return self._sum([scorer.match(images, prompts) for scorer, images, prompts in rows])

    def score_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        """Weighted sums `(batch,)`; a scorer that reads image and prompt together does so."""
        if not self.joint:
            return super().score_inputs(inputs, prompts)
        columns = zip(self._members(), zip(*inputs, strict=True), strict=True)
        return self._sum([scorer.score_inputs(column, prompts) for scorer, column in columns])

    def forward(self, pixels: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Weighted sums `(batch,)`, differentiable in `pixels` where all scorers are."""
        if not self.joint:
            return super().forward(pixels, prompts)
        return self._sum([scorer(pixels, prompts) for scorer in self._members()])

    def config(self) -> NoReturn:
        """An ensemble is not saved.

        Raises:
            TypeError: Always.
        """
        msg = "an ensemble has no folder of its own: save its scorers and make it again from them"
        raise TypeError(msg)

    def _sum(self, scores: Sequence[Tensor]) -> Tensor:
        total = scores[0].new_zeros(len(scores[0]))
        for own, weight, (mean, std) in zip(
            scores, self.weights.tolist(), self._pairs, strict=True
        ):
            total = total + weight * (own - mean) / std
        return total

    def _members(self) -> list[Scorer]:
        return cast("list[Scorer]", list(self.scorers))


def reference_statistics(
    scorers: Sequence[Scorer], images: Sequence[object], prompts: Sequence[str]
) -> list[tuple[float, float]]:
    """Mean and standard deviation of each scorer's scores of reference images, for `normalise`.

    The mean is that of all scores. The deviation is the one within prompts, pooled: how much the
    images of one prompt differ, which is what selection and reinforcement learning compare; how
    much prompts differ does not count.

    Args:
        scorers: As for `Ensemble`.
        images: A list of images in any form.
        prompts: One each; at least two images for one prompt at least.

    Raises:
        ValueError: No prompt has two images, or a scorer gives all images of a prompt one score.
    """
    check_prompts(prompts)
    if isinstance(images, Iterator):
        msg = "images is an iterator, and every scorer reads the images: pass a list"
        raise TypeError(msg)
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    freedom = len(prompts) - len(rows)
    if not freedom:
        msg = f"each of the {len(rows)} prompts has one image; expected 2 or more of some"
        raise ValueError(msg)
    statistics = []
    for scorer in scorers:
        scores = scorer.score(images, prompts).double()
        within = sum(((scores[group] - scores[group].mean()) ** 2).sum() for group in rows.values())
        std = math.sqrt(float(within) / freedom)
        if not std > 0:
            msg = f"{scorer.name} gives all images of a prompt one score ({scores[0]:.4f})"
            raise ValueError(msg)
        statistics.append((scores.mean().item(), std))
    return statistics


def _check_scorers(scorers: Sequence[Scorer]) -> None:
    if not scorers:
        msg = "an ensemble needs at least one scorer"
        raise ValueError(msg)
    for scorer in scorers:
        if not isinstance(scorer, Scorer) or isinstance(scorer, Ensemble):
            msg = f"an ensemble is made of single scorers, got {type(scorer).__name__}"
            raise TypeError(msg)


def _normalisation(
    scorers: Sequence[Scorer],
    weights: Sequence[float] | None,
    normalise: Literal["log-odds"] | Sequence[tuple[float, float]] | None,
) -> tuple[list[tuple[float, float]], str]:
    """Mean and std for each scorer, and the unit of the result."""
    units = list(dict.fromkeys(scorer.unit for scorer in scorers))
    if normalise is None:
        if len(units) > 1 and weights is None:
            msg = (
                f"the units differ ({', '.join(units)}): pass normalise, or weights that bring "
                "them together"
            )
            raise ValueError(msg)
        return [(0.0, 1.0)] * len(scorers), f"weighted sum of {', '.join(units)}"
    if isinstance(normalise, str):
        scales = [scorer.preference_scale for scorer in scorers]
        untrained = [s.name for s, scale in zip(scorers, scales, strict=True) if not scale]
        if normalise != "log-odds" or untrained:
            reason = (
                f"{', '.join(untrained)}: not trained on preferences"
                if normalise == "log-odds"
                else f"got {normalise!r}"
            )
            msg = f'normalise is "log-odds" or pairs (mean, std); {reason}'
            raise ValueError(msg)
        return [(0.0, 1 / scale) for scale in scales if scale], "log-odds of preference"
    pairs = [(float(mean), float(std)) for mean, std in normalise]
    good = all(math.isfinite(mean) and 0 < std < math.inf for mean, std in pairs)
    if len(pairs) != len(scorers) or not good:
        msg = f"normalise is {pairs}; expected {len(scorers)} pairs (mean, std) with std above 0"
        raise ValueError(msg)
    return pairs, "weighted sum of standard scores"


class _JointPreprocess(nn.Module):
    """Several preprocessings of one picture: the inputs of an image are a tuple of each one's."""

    def __init__(self, members: Iterator[Preprocessing]) -> None:
        super().__init__()
        self.members = nn.ModuleList(cast("Iterator[nn.Module]", members))
        self.protocol = "+".join(dict.fromkeys(member.protocol for member in self._each()))

    def _each(self) -> list[Preprocessing]:
        return cast("list[Preprocessing]", list(self.members))

    def exact(self, image: Image.Image) -> tuple[Any, ...]:
        """Every scorer's exact inputs of one PIL image."""
        return tuple(member.exact(image) for member in self._each())

    def views(self, image: Image.Image, boxes: Tensor, hflip: Tensor) -> list[tuple[Any, ...]]:
        """Every scorer's inputs of each view of one PIL image."""
        views = [views_of(member, image, boxes, hflip) for member in self._each()]
        return list(zip(*views, strict=True))

    def forward(
        self,
        pixels: Tensor | Sequence[Tensor],
        boxes: Tensor | None = None,
        hflip: Tensor | None = None,
    ) -> list[Any]:
        """For each picture a tuple of every scorer's inputs; with boxes or flips one a view."""
        images = zip(*(member(pixels, boxes, hflip) for member in self._each()), strict=True)
        if boxes is None and hflip is None:
            return list(images)
        return [list(zip(*views, strict=True)) for views in images]


class _Packing:
    """Features of several shapes and types in one row of floats, and back."""

    def __init__(self) -> None:
        self._layout: list[tuple[torch.Size, torch.dtype]] = []

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows `(batch, sum)`, float32 or wider, of parts `(batch, ...)`.

        Token ids stay exact: vocabularies are far smaller than 2^24.
        """
        self._layout = [(part.shape[1:], part.dtype) for part in parts]  # the same on every call
        double = any(part.dtype == torch.float64 for part in parts)
        dtype = torch.float64 if double else torch.float32
        flat = [part.flatten(1) if part.ndim > 1 else part[:, None] for part in parts]
        return torch.cat([part.to(dtype) for part in flat], dim=1)

    def unpack(self, rows: Tensor) -> list[Tensor]:
        """The parts that `pack` made rows of."""
        parts = rows.split([math.prod(shape) for shape, _ in self._layout], dim=1)
        return [
            part.reshape(len(rows), *shape).to(dtype)
            for part, (shape, dtype) in zip(parts, self._layout, strict=True)
        ]
