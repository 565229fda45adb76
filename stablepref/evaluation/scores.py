"""Scores of ranked groups, plain and perturbed; each image is decoded and encoded once.

Groups stream: pixels are in memory for a few batches only, and a group's images are released once
they are scored. An image that occurs again under its prompt has its score already, and under
another prompt its features are matched again, as long as they are among the latest 256 MB.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from contextlib import closing
from typing import TYPE_CHECKING, final

import numpy as np
from accelerate.utils import send_to_device
from einops import rearrange, repeat

from stablepref.evaluation.groups import ImageKeys
from stablepref.images.sources import Source
from stablepref.runtime.inference import inference
from stablepref.scoring.batching import computed_rows, prepared_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor

    from stablepref.augment.perturbations import Perturbation
    from stablepref.data.groups import RankedGroup
    from stablepref.evaluation.groups import Key, PendingGroup, ScoredGroup
    from stablepref.evaluation.means import Array
    from stablepref.scorer import Scorer
    from stablepref.scoring.batching import BatchLimit, Prepared

FEATURE_BYTES = 2**28


@final
class GroupScores:
    """Scores groups one after the other, and remembers what it has scored.

    Args:
        scorer: The model; its modes and gradients stay as they are.
        perturbations: What images are changed by, by name.
        limit: How many images are encoded at once.
    """

    def __init__(
        self, scorer: Scorer, perturbations: Mapping[str, Perturbation], limit: BatchLimit
    ) -> None:
        self.scorer = scorer
        self.perturbations = perturbations
        self.limit = limit
        self.keys = ImageKeys()
        self._scores: dict[tuple[Key, str], Array] = {}
        self._errors: dict[Key, str] = {}
        self._features = FeatureMemory(FEATURE_BYTES)
        self._asked: set[tuple[Key, str]] = set()
        self._under_way: dict[int, Key] = {}
        self._sent = 0
        self._arrived = 0
        # Groups with the number of images that must have arrived before they are complete.
        self._waiting: deque[tuple[PendingGroup, int]] = deque()

    def remember(self, group: PendingGroup, scored: ScoredGroup) -> None:
        """Take over the scores of an earlier run."""
        for index, key in enumerate(group.keys):
            if index not in scored.errors:
                self._scores[key, group.prompt] = scored.scores[:, index]
                self._asked.add((key, group.prompt))

    def stream(self, groups: Iterable[tuple[RankedGroup, PendingGroup]]) -> Iterator[ScoredGroup]:
        """The groups in order, each as soon as all its images are scored.

        Raises:
            ValueError: As the iterable, after the groups before.
        """
        rows = computed_rows(
            self.scorer,
            self._sources(groups),
            limit=self.limit,
            function=self._compute,
            perturbations=self.perturbations,
            encodes=1 + len(self.perturbations),
        )
        with closing(rows):
            for item, row in rows:
                key = self._under_way.pop(item.source.index)
                if row is None:
                    assert item.error is not None
                    self._errors[key] = item.error.reason
                else:
                    self._scores[key, item.prompt] = row.double().numpy()
                self._arrived += 1
                yield from self._complete()
        yield from self._complete()

    def _sources(
        self, groups: Iterable[tuple[RankedGroup, PendingGroup]]
    ) -> Iterator[tuple[Source, str]]:
        """Images that have to be encoded, with their prompts."""
        for group, pending in groups:
            new = []
            for image, name, key in zip(group.images, pending.images, pending.keys, strict=True):
                if (key, group.prompt) in self._asked or key in self._errors:
                    continue
                self._asked.add((key, group.prompt))
                known = self._features.holds(key) or key in self._under_way.values()
                if known and not self.scorer.joint:
                    self._features.wait(key)
                    continue
                new.append(Source(self._sent, name, image))
                self._under_way[self._sent] = key
                self._sent += 1
            self._waiting.append((pending, self._sent))
            yield from ((source, group.prompt) for source in new)

    def _compute(self, items: list[Prepared]) -> Tensor:
        """Scores `(len(items), 1 + perturbations)` of images under their prompts."""
        disturbed = [
            send_to_device(list(item.disturbed), self.scorer.device, non_blocking=True)
            for item in items
        ]
        own = prepared_inputs(self.scorer, items)
        rows = [[one, *others] for one, others in zip(own, disturbed, strict=True)]
        inputs = [one for row in rows for one in row]
        if self.scorer.joint:
            scores = self.scorer.score_inputs(
                inputs, [item.prompt for item, row in zip(items, rows, strict=True) for _ in row]
            )
            return rearrange(scores, "(n rows) -> n rows", n=len(items))
        features = self.scorer.encode_inputs(self.scorer.collate(inputs))
        features = rearrange(features, "(n rows) ... -> n rows ...", n=len(items))
        for item, row in zip(items, features, strict=True):
            self._features.put(self._under_way[item.source.index], row.clone())
        prompts = self.scorer.cached_prompts([item.prompt for item in items])
        scores = self.scorer.match(
            rearrange(features, "n rows ... -> (n rows) ..."),
            repeat(prompts, "n ... -> (n rows) ...", rows=features.shape[1]),
        )
        return rearrange(scores, "(n rows) -> n rows", n=len(items))

    def _complete(self) -> Iterator[ScoredGroup]:
        while self._waiting and self._waiting[0][1] <= self._arrived:
            yield self._scored(self._waiting.popleft()[0])

    def _scored(self, group: PendingGroup) -> ScoredGroup:
        scores = np.full((1 + len(self.perturbations), len(group.keys)), np.nan)
        errors = {}
        for index, key in enumerate(group.keys):
            row = None if key in self._errors else self._row(key, group.prompt)
            if row is None:
                errors[index] = self._errors[key]
            elif np.isfinite(row).all():
                scores[:, index] = row
            else:
                errors[index] = self._not_finite(row)
        return group.scored(scores, errors)

    def _row(self, key: Key, prompt: str) -> Array:
        """Scores of an image that arrived, perhaps under another prompt."""
        if (key, prompt) not in self._scores:
            features = self._features.take(key)
            with inference(self.scorer):
                prompts = self.scorer.cached_prompts([prompt] * len(features))
                row = self.scorer.match(features, prompts)
            self._scores[key, prompt] = row.cpu().double().numpy()
        return self._scores[key, prompt]

    def _not_finite(self, row: Array) -> str:
        place = int(np.flatnonzero(~np.isfinite(row))[0])
        under = f" under {list(self.perturbations)[place - 1]}" if place else ""
        return f"the model's score is {row[place]}{under}"


@final
class FeatureMemory:
    """Features of the latest images, as many as fit, and those that are still needed.

    Args:
        room: Bytes, not counting the features that are still needed.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._rows: OrderedDict[Key, Tensor] = OrderedDict()
        self._waiting: Counter[Key] = Counter()
        self._bytes = 0

    def holds(self, key: Key) -> bool:
        """Whether these features are here."""
        return key in self._rows

    def put(self, key: Key, row: Tensor) -> None:
        """Remember an image's features, and forget the oldest that are not needed."""
        self._bytes += row.nbytes - (self._rows[key].nbytes if key in self._rows else 0)
        self._rows[key] = row
        forgotten = []
        for old, features in self._rows.items():  # no further than to those that are forgotten
            if self._bytes <= self.room:
                break
            if not self._waiting[old]:
                self._bytes -= features.nbytes
                forgotten.append(old)
        for old in forgotten:
            del self._rows[old]

    def wait(self, key: Key) -> None:
        """Keep these features, or those that will be put, until they are taken."""
        self._waiting[key] += 1

    def take(self, key: Key) -> Tensor:
        """The features, which `wait` had kept."""
        self._waiting[key] -= 1
        self._rows.move_to_end(key)
        return self._rows[key]
