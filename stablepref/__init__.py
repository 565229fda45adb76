"""Score text-to-image generations the way people would.

`score`, `rank` and `compare` are one call each; `load` gives the `Scorer` behind them. Names are
resolved when they are first used, so that importing this package imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stablepref.download import UnavailableError
    from stablepref.images import ImageError
    from stablepref.preference import Comparison
    from stablepref.pretrained import WeightsError
    from stablepref.scorer import Scorer
    from stablepref.stream import Scored
    from stablepref.zoo import compare, load, rank, score

_HOME = {
    "Comparison": "stablepref.preference",
    "ImageError": "stablepref.images",
    "Scored": "stablepref.stream",
    "Scorer": "stablepref.scorer",
    "UnavailableError": "stablepref.download",
    "WeightsError": "stablepref.pretrained",
    "compare": "stablepref.zoo",
    "load": "stablepref.zoo",
    "rank": "stablepref.zoo",
    "score": "stablepref.zoo",
}

__all__ = [
    "Comparison",
    "ImageError",
    "Scored",
    "Scorer",
    "UnavailableError",
    "WeightsError",
    "compare",
    "load",
    "rank",
    "score",
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
