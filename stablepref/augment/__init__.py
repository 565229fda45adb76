"""Weak views for training and scoring, and the perturbations that evaluation applies."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
