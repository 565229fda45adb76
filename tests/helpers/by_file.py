"""Functions of test modules for other processes, which cannot import a test module by its name."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType


class ByFile:
    """A module's function, which is pickled as the file it is in and its name there."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.module = function.__module__
        self.file = str(sys.modules[self.module].__file__)
        self.name = function.__name__

    def __call__(self, *arguments: object) -> None:
        getattr(_loaded(self.module, self.file), self.name)(*arguments)


def _loaded(name: str, file: str) -> ModuleType:
    """The module, executed once in this process."""
    if name not in sys.modules:
        spec = spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]
