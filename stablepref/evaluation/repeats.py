"""Images met before: what tells that two are the same, and the features of recent ones."""

from __future__ import annotations

import itertools
import os
import weakref
from collections import Counter, OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from torch import Tensor

Key = str | bytes | int


@final
class ImageKeys:
    """One key for one image: for equal paths or URLs, for equal bytes, for one and the same object.

    Objects are known as long as they live, and are not kept alive.
    """

    def __init__(self) -> None:
        self._objects: dict[int, tuple[weakref.ref[object], int]] = {}
        self._numbers = itertools.count()

    def __call__(self, image: object) -> Key:
        """The image's key."""
        if isinstance(image, str | os.PathLike):
            return os.fsdecode(image)
        if isinstance(image, bytes):
            return blake2b(image, digest_size=16).digest()
        place = id(image)
        if place in self._objects:
            return self._objects[place][1]
        number = next(self._numbers)
        try:
            reference = weakref.ref(image, lambda _: self._objects.pop(place, None))
        except TypeError:  # dictionaries, say, of which each counts as another image
            return number
        self._objects[place] = reference, number
        return number


@final
class FeatureMemory:
    """Features of the images met last, as many as fit, and those that are waited for.

    Args:
        room: Bytes, without the features that are waited for.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._rows: OrderedDict[Key, Tensor] = OrderedDict()
        self._waiting: Counter[Key] = Counter()
        self._bytes = 0

    def holds(self, key: Key) -> bool:
        """Whether these features are here."""
        return key in self._rows

    def put(self, key: Key, row: Tensor) -> None:
        """Remember an image's features, and forget the oldest that nobody waits for."""
        self._bytes += row.nbytes - (self._rows[key].nbytes if key in self._rows else 0)
        self._rows[key] = row
        for old in list(self._rows):
            if self._bytes <= self.room:
                break
            if not self._waiting[old]:
                self._bytes -= self._rows.pop(old).nbytes

    def wait(self, key: Key) -> None:
        """Keep these features, or those that will be put, until they are taken."""
        self._waiting[key] += 1

    def take(self, key: Key) -> Tensor:
        """The features that were waited for."""
        self._waiting[key] -= 1
        self._rows.move_to_end(key)
        return self._rows[key]
