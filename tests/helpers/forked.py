"""Processes that are killed: each a copy of one that has imported what takes long already."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import pytest

from helpers.by_file import ByFile
from helpers.children import python_path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["stablepref.integrations.finetune.run", "helpers.tiny", "helpers.ranked"]
)


def start(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """Run a function of a test module in a fresh process."""
    process = _context.Process(target=ByFile(function), args=arguments)
    with pytest.MonkeyPatch.context() as patch:
        # The server begins with the first process: with the installed package, not with what lies
        # in the folder where the tests were started.
        patch.setenv("PYTHONSAFEPATH", "1")
        patch.setenv("PYTHONPATH", python_path())
        process.start()
    return process
