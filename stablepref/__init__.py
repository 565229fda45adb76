"""Score text-to-image generations the way people would.

`score`, `rank` and `compare` are one call each; `load` gives the `Scorer` behind them. Names are
resolved when they are first used, so that importing this package imports no torch.
"""

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """A public name, or the installed version, when it is first used."""
    if name != "__version__":
        return _public(name)
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (rarely used)

    try:
        return version("stablepref")
    except PackageNotFoundError:
        msg = "stablepref is not installed, so that its version is not known: pip install it"
        raise AttributeError(msg) from None
