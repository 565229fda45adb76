"""Processes that are killed: each a copy of one that has imported what takes long already."""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from helpers.by_file import ByFile
from helpers.children import python_path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "stablepref.integrations.finetune.run",
        "stablepref.evaluation.evaluate",
        "stablepref.zoo",
        "stablepref.cli.main",
        "helpers.tiny",
        "helpers.ranked",
        "helpers.tiny_finetune",  # and with it pytest, which every test module imports
    ]
)


def start(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """Run a function of a test module in a fresh process."""
    _serve()
    process = _context.Process(target=ByFile(function), args=arguments)
    process.start()
    return process


def instead_of_spawned(patch: pytest.MonkeyPatch) -> None:
    """Let the server start those processes too that the package spawns."""
    _serve()
    patch.setattr(multiprocessing, "get_context", lambda method=None: _context)


def _serve() -> None:
    """Begin the server, if it has not begun."""
    with pytest.MonkeyPatch.context() as patch:
        # With the installed package, not with what lies in the folder where the tests were started.
        patch.setenv("PYTHONSAFEPATH", "1")
        patch.setenv("PYTHONPATH", python_path())
        forkserver.ensure_running()


def launch(function: Callable[..., None], *arguments: object, processes: int) -> None:
    """Run a function of a test module in several processes that know each other.

    They are told what torchrun tells its processes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [
        start(_ranked, ByFile(function), rank, processes, port, arguments)
        for rank in range(processes)
    ]
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * processes


def _ranked(
    function: ByFile, rank: int, processes: int, port: int, arguments: tuple[object, ...]
) -> None:
    os.environ.update(
        OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(processes),
        LOCAL_WORLD_SIZE=str(processes),
    )
    function(*arguments)


class Command:
    """The command line in a process of its own, with what `subprocess.Popen` has of it.

    Args:
        arguments: Those of `stablepref`.
        folder: For what it writes to its two streams.
        modules: A folder of modules that it finds beside the installed ones.
        closed_pipe: Its standard output is a pipe whose reader has gone.
    """

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        *,
        modules: Path | None = None,
        closed_pipe: bool = False,
    ) -> None:
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        self._stdout.touch()
        self._stderr.touch()
        stdout = None if closed_pipe else str(self._stdout)
        self._process = start(_command, arguments, stdout, str(self._stderr), modules)

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """How it ended, if it has."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to it."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended.

        Raises:
            TimeoutError: It has not after so many seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"the command has not ended after {timeout} s")

    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text()

    def stderr(self) -> str:
        """What it has said so far."""
        return self._stderr.read_text(errors="replace")


@contextmanager
def command(
    *arguments: object, modules: Path | None = None, closed_pipe: bool = False
) -> Iterator[Command]:
    """The command line in a process of its own, which does not outlive the block."""
    with TemporaryDirectory() as folder:
        process = Command(
            [str(one) for one in arguments],
            Path(folder),
            modules=modules,
            closed_pipe=closed_pipe,
        )
        try:
            yield process
        finally:
            process._process.kill()
            process.wait()


def _command(arguments: list[str], stdout: str | None, stderr: str, modules: Path | None) -> None:
    from stablepref.cli.main import main  # noqa: PLC0415 (in the child)

    if modules is not None:
        sys.path.insert(0, str(modules))
    if stdout is None:
        reader, file = os.pipe()
        os.close(reader)
    else:
        file = os.open(stdout, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    # Those of the server remember what kind of files they wrote to.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as for a command in a terminal
    sys.argv = ["stablepref", *arguments]
    main()
