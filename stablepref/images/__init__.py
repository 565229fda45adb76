"""Anything that a person holds, from a path to a tensor, to RGB pictures, lazily."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
