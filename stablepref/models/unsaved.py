"""Scorers without a folder of their own: a function, a server, an ensemble, another library's."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NoReturn

from stablepref.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class UnsavedScorer(Scorer):
    """A scorer that is not saved; subclasses say by `config` what to do instead."""

    @abstractmethod
    def config(self) -> NoReturn:
        """Refuse: it is not saved.

        Raises:
            TypeError: Always; it says why, and what to do instead.
        """

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> NoReturn:
        """Refuse: there is no folder to make it from.

        Raises:
            TypeError: Always.
        """
        del config, folder
        msg = f"a {cls.__name__} is not made from a configuration"
        raise TypeError(msg)

    def save_files(self, folder: Path) -> NoReturn:
        """Refuse, as `config`.

        Raises:
            TypeError: Always.
        """
        del folder
        self.config()

    def _save_pretrained(self, save_directory: Path) -> NoReturn:
        del save_directory
        self.config()
