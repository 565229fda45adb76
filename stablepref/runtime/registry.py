"""Things known by name: those that come with the package, and those that others add to them."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar, cast, final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.metadata import EntryPoint

T = TypeVar("T")


@final
class Registry(Generic[T]):
    """Named things of one kind: scorers, losses, readers, perturbations or commands.

    A package adds its own by an entry point of the kind's group, which is loaded when its name is
    first asked for; a program adds one by `register`.

    Args:
        kind: What one of them is called in messages, such as "scorer".
        group: The group of entry points, such as "stablepref.scorers".
        builtin: Those that come with the package.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, T]) -> None:
        self.kind = kind
        self.group = group
        self.builtin = dict(builtin)
        self._registered: dict[str, T] = {}
        self._loaded: dict[EntryPoint, T] = {}

    def register(self, name: str, value: T) -> None:
        """Add one by name, for this process.

        Raises:
            ValueError: The name is empty, or stands for another one already.
        """
        if not name or name != name.strip():
            msg = f"a {self.kind} needs a name without spaces around it, got {name!r}"
            raise ValueError(msg)
        if name in self.builtin or self._registered.get(name, value) is not value:
            msg = f"{name!r} is the name of another {self.kind} already; choose another name"
            raise ValueError(msg)
        self._registered[name] = value

    def unregister(self, name: str) -> None:
        """Remove what `register` added; nothing happens if it is not there."""
        self._registered.pop(name, None)

    def __contains__(self, name: object) -> bool:
        """Whether something has this name; nothing is loaded for it."""
        return name in self.builtin or name in self._registered or name in self._installed()

    def __iter__(self) -> Iterator[str]:
        """The names: built in, registered, and installed ones, each once."""
        return iter(dict.fromkeys((*self.builtin, *self._registered, *self._installed())))

    def __getitem__(self, name: str) -> T:
        """What a name stands for; built-in names cannot be taken over.

        Raises:
            KeyError: Nothing has this name.
            ImportError: A package says that it brings one of this name, and fails to.
        """
        for known in (self.builtin, self._registered):
            if name in known:
                return known[name]
        entry = self._installed()[name]
        if entry not in self._loaded:
            try:
                self._loaded[entry] = cast("T", entry.load())
            except Exception as error:  # whatever the package's own code raises
                package = "" if entry.dist is None else f" of the package {entry.dist.name}"
                msg = (
                    f"the {self.kind} {name!r}{package} ({entry.value}) cannot be loaded: {error!r}"
                )
                raise ImportError(msg) from error
        return self._loaded[entry]

    def package(self, name: str) -> str | None:
        """The installed package that brings a name; None for what is built in or registered."""
        if name in self.builtin or name in self._registered:
            return None
        entry = self._installed().get(name)
        return None if entry is None or entry.dist is None else entry.dist.name

    def _installed(self) -> Mapping[str, EntryPoint]:
        return _entries(self.group, tuple((path, _changed(path)) for path in sys.path))


@cache
def _entries(group: str, places: tuple[tuple[str, int], ...]) -> Mapping[str, EntryPoint]:
    """The entry points of a group; reading all installed packages takes tens of milliseconds.

    Args:
        group: Of entry points.
        places: The folders of packages and when each last changed: a package that is installed
            later is found.
    """
    del places
    return MappingProxyType({entry.name: entry for entry in entry_points(group=group)})


def _changed(path: str) -> int:
    """When a folder of packages last changed; 0 for a place that is not there."""
    try:
        return Path(path or ".").stat().st_mtime_ns
    except OSError:
        return 0
