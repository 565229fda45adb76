"""Scorers at work in other people's tools: rewards, trainers, metrics, and choosing the best of n.

The five main names are here: ``from stablepref.integrations import best_of_n``. All else is
imported from its module, as in ``from stablepref.integrations.reward import reward_function``.
"""

import sys
from types import ModuleType

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _Package(ModuleType):
    """Here `best_of_n` and `finetune` are functions, and not the packages in which they lie."""

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; the import of a package sets it as one of its parent's."""
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
