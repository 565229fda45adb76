"""The ablations' data and models: written once, run through the frozen blocks once."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, final

from stablepref.data.read import read_groups
from stablepref.models.clip import as_clip
from stablepref.training.optimizer import begin_with_logit_scale
from stablepref.training.pairs import PairBatches
from stablepref.weights.fingerprint import weights_digest
from stablepref.zoo import load

from ..people.dataset import oracle_groups, write_dataset
from ..people.settings import SETTINGS
from ..world.perturbations import PERTURBATIONS
from .features import CROP_AREA, cache_groups
from .measure import Data
from .towers import check_towers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stablepref.data.groups import RankedGroup
    from stablepref.models.clip import CLIPScorer

    from ..world.scenes import Split
    from .features import Cached
    from .methods import Method, Model
    from .suite import Suite

_DIGITS = 12
_SAMPLED_STEPS = 20


def open_world(
    folder: Path,
    suite: Suite,
    names: Mapping[Model, str],
    *,
    device: str,
    logit_scale: float | None,
) -> World:
    """Load the models and open the folder.

    Args:
        folder: Receives `data/SETTING` and `features`.
        suite: Sizes.
        names: A zoo name or a folder of each model.
        device: Where to train.
        logit_scale: That both models begin with; None leaves them their own.

    Raises:
        ValueError: A model is not a CLIP model or has towers that cannot be cut.
    """
    scorers = {model: _scorer(name, device, logit_scale) for model, name in names.items()}
    return World(folder, suite, scorers)


def _scorer(name: str, device: str, logit_scale: float | None) -> CLIPScorer:
    scorer = as_clip(load(name, device=device, dtype="float32"))
    if logit_scale is None:
        return scorer
    scorer = copy.deepcopy(scorer)  # `load` returns the same one to all
    begin_with_logit_scale(scorer, logit_scale)
    return scorer


@final
class World:
    """Data, models and cached tokens of a suite, in a folder.

    Args:
        folder: Receives `data/SETTING` and `features`.
        suite: Sizes.
        scorers: The models that trainings begin from, float32.

    Raises:
        ValueError: The folder holds data that were made differently, or a model has towers that
            cannot be cut.
    """

    def __init__(self, folder: Path, suite: Suite, scorers: Mapping[Model, CLIPScorer]) -> None:
        for scorer in scorers.values():
            check_towers(scorer)
        self.folder = folder
        self.suite = suite
        self.scorers = scorers
        self.weights = {name: weights_digest(scorer) for name, scorer in scorers.items()}
        self._groups: dict[tuple[str, Split], list[RankedGroup]] = {}
        self._data: dict[tuple[Model, str], Data] = {}
        self._images: dict[tuple[str, int, str], float] = {}

    def groups(self, setting: str, split: Split) -> list[RankedGroup]:
        """Ranked groups, from files that are written at the first call."""
        if (setting, split) not in self._groups:
            suite, folder = self.suite, self.folder / "data" / setting
            counts: dict[Split, int] = {
                "train": suite.groups,
                "validation": suite.validation,
                "test": suite.test,
            }
            write_dataset(folder, SETTINGS[setting], counts, seed=suite.data_seed)
            for name in counts:
                self._groups[setting, name] = list(read_groups(folder / f"{name}.jsonl"))
        return self._groups[setting, split]

    def data(
        self, model: Model, setting: str, *, advance: Callable[[int], object] = lambda _: None
    ) -> Data:
        """What the trainings of a model on a setting read; `advance` as in `cache_groups`.

        Perturbations are cached for the large model alone.
        """
        if (model, setting) not in self._data:
            wanted = PERTURBATIONS if model == "large" else ()
            self._data[model, setting] = Data(
                train=self._cached(model, setting, "train", (), advance),
                validation=self._cached(model, setting, "validation", (), advance),
                tests={
                    name: self._cached(model, name, "test", wanted, advance) for name in SETTINGS
                },
                perturbations=wanted,
            )
        return self._data[model, setting]

    def batch_size(self, setting: str, method: Method) -> int:
        """Pairs of a batch of the method.

        The suite's; or, for `fewer_pairs`, half as many as a batch of "groups" has images: pairs
        drawn anywhere have two images each, and rarely share one.
        """
        size = self.suite.batch_size
        if not method.fewer_pairs:
            return size
        return max(1, round(self.mean_images(setting, size, "groups") / 2))

    def mean_images(self, setting: str, batch_size: int, batching: str) -> float:
        """Distinct images in a batch, the mean over the first of them."""
        key = setting, batch_size, batching
        if key not in self._images:
            batches = PairBatches(
                self.groups(setting, "train"),
                batch_size=batch_size,
                batching="pairs" if batching == "pairs" else "groups",
            )
            found = [len(batches[step].images) for step in range(_SAMPLED_STEPS)]
            self._images[key] = sum(found) / len(found)
        return self._images[key]

    def missing_variants(self, model: Model, settings: Sequence[str]) -> int:
        """Number of image variants still to be run through the frozen blocks for some settings."""
        wanted = PERTURBATIONS if model == "large" else ()
        files: list[tuple[str, Split, int, tuple[str, ...]]] = [
            *((setting, "train", self.suite.pool, ()) for setting in settings),
            *((setting, "validation", 0, ()) for setting in settings),
            *((setting, "test", 0, wanted) for setting in SETTINGS),
        ]
        return sum(
            len(group.images) * (1 + pool + len(perturbations))
            for setting, split, pool, perturbations in files
            if not self._path(model, setting, split, perturbations).exists()
            for group in self.groups(setting, split)
        )

    def _cached(
        self,
        model: Model,
        setting: str,
        split: Split,
        perturbations: tuple[str, ...],
        advance: Callable[[int], object],
    ) -> Cached:
        groups = self.groups(setting, split)
        return cache_groups(
            self.scorers[model],
            groups,
            list(oracle_groups(groups)),
            self._path(model, setting, split, perturbations),
            trained=(self.suite.image_blocks, self.suite.text_blocks),
            pool=self.suite.pool if split == "train" else 0,
            seed=self.suite.data_seed,
            perturbations=perturbations,
            advance=advance,
        )

    def _path(
        self, model: Model, setting: str, split: Split, perturbations: tuple[str, ...]
    ) -> Path:
        """A file whose name depends on everything that changes the tokens."""
        suite = self.suite
        values = {
            "weights": self.weights[model],
            "preprocess": [self.scorers[model].protocol, self.scorers[model].preprocess.config()],
            "image_blocks": suite.image_blocks,
            "groups": len(self.groups(setting, split)),
            "seed": suite.data_seed,
            "pool": [suite.pool, CROP_AREA] if split == "train" else 0,
            "perturbations": perturbations,
        }
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:_DIGITS]
        return self.folder / "features" / f"{model}-{setting}-{split}-{digest}.npy"
