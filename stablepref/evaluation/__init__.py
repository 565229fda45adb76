"""How well scores agree with people, and how stable they are under perturbations."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
