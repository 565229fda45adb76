"""Score text-to-image generations the way people would.

`score`, `rank` and `compare` are one call each; `load` gives the `Scorer` behind them. Names are
resolved when they are first used, so that importing this package imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stablepref.correlations import Correlation, correlation
    from stablepref.data import DataError, Exclusions, RankedGroup
    from stablepref.download import UnavailableError
    from stablepref.evalreport import EvaluationReport
    from stablepref.evaluation import evaluate
    from stablepref.images import ImageError
    from stablepref.preference import Comparison
    from stablepref.pretrained import WeightsError
    from stablepref.readers import read_groups
    from stablepref.recipes import TrainConfig, recipe
    from stablepref.scorer import Scorer
    from stablepref.stream import Scored
    from stablepref.trainer import train
    from stablepref.zoo import compare, load, rank, score

_HOME = {
    "Comparison": "stablepref.preference",
    "Correlation": "stablepref.correlations",
    "DataError": "stablepref.data",
    "EvaluationReport": "stablepref.evalreport",
    "Exclusions": "stablepref.data",
    "ImageError": "stablepref.images",
    "RankedGroup": "stablepref.data",
    "Scored": "stablepref.stream",
    "Scorer": "stablepref.scorer",
    "TrainConfig": "stablepref.recipes",
    "UnavailableError": "stablepref.download",
    "WeightsError": "stablepref.pretrained",
    "compare": "stablepref.zoo",
    "correlation": "stablepref.correlations",
    "evaluate": "stablepref.evaluation",
    "load": "stablepref.zoo",
    "rank": "stablepref.zoo",
    "read_groups": "stablepref.readers",
    "recipe": "stablepref.recipes",
    "score": "stablepref.zoo",
    "train": "stablepref.trainer",
}

__all__ = [
    "Comparison",
    "Correlation",
    "DataError",
    "EvaluationReport",
    "Exclusions",
    "ImageError",
    "RankedGroup",
    "Scored",
    "Scorer",
    "TrainConfig",
    "UnavailableError",
    "WeightsError",
    "compare",
    "correlation",
    "evaluate",
    "load",
    "rank",
    "read_groups",
    "recipe",
    "score",
    "train",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module when it is first used (PEP 562)."""
    if name not in _HOME:
        msg = f"module 'stablepref' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
