"""The mean score as a metric of torchmetrics, gathered over batches and processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torchmetrics import Metric

from .sampled_rewards import as_scorer

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from torch import Tensor

    from stablepref.scorer import Scorer


@final
class PreferenceScore(Metric):
    """Mean score of images under their prompts, over all batches and processes.

    Sums are float64, so that neither the order of batches nor their number shows.

    Args:
        model: The scorer, or what `stablepref.load` takes.
        views: Average each score over this many weak views beside the image itself.
        kwargs: What `torchmetrics.Metric` takes, such as `dist_sync_on_step`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(
        self, model: Scorer | str | os.PathLike[str], *, views: int = 0, **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.scorer = as_scorer(model)
        self.views = views
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("total", zero.clone(), dist_reduce_fx="sum")
        self.add_state("count", zero.clone(), dist_reduce_fx="sum")

    def forward(self, *args: object, **kwargs: object) -> Any:  # noqa: ANN401 (as torchmetrics has it)
        """Add images as `update` does, and return their own mean: `metric(images, prompts)`.

        torchmetrics empties its state before it updates and puts it back afterwards, but not after
        an error; here it is put back then as well.

        Raises:
            ImageError: An image cannot be used; nothing of this call is then counted.
        """
        before = dict(vars(self))  # an update of an emptied state replaces its tensors
        try:
            return super().forward(*args, **kwargs)
        except BaseException:
            vars(self).update(before)
            raise

    def update(self, images: object, prompts: str | Iterable[str]) -> None:
        """Add images; `images` and `prompts` as in `scorer.score`.

        Raises:
            ImageError: An image cannot be used; nothing of this call is then counted.
        """
        scores = self.scorer.score(
            images, prompts, views=self.views, on_error="raise", progress=False
        )
        self.total += scores.double().sum().to(self.total.device)
        self.count += len(scores)

    def compute(self) -> Tensor:
        """The mean, a float64 scalar; NaN before the first image."""
        return self.total / self.count
