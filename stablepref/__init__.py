"""Score text-to-image generations the way people would.

`score`, `rank` and `compare` are one call each; `load` gives the `Scorer` behind them. Names are
resolved when they are first used, so that importing this package imports no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
