"""A file that is published somewhere: facts alone, so that tables of them need no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class RemoteFile:
    """One published file.

    Attributes:
        filename: Its name, by which a local copy is recognised.
        repo: Hub repository that holds it, if it is on the hub.
        url: Its address, if it is not.
        size: Bytes, where known.
        sha256: Checksum, where known beforehand; for hub files the hub's own is used.
        accept: The licence that has to be accepted before it is downloaded, where it asks for more
            than to be named; see `stablepref.weights.hub.accepted`.
        also: Names of files with the same weights in another format, which are read when they are
            there but never downloaded.
    """

    filename: str
    repo: str | None = None
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    accept: str | None = None
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the file."""
        return (self.filename, *self.also)
