"""Ranked groups of images, the data sets that they are read from, and a check of either."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
