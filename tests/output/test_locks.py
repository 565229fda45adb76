"""One writer at a time, with real processes."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from stablepref.output.durable import WRITING
from stablepref.output.locks import FOLDER_LOCK, InUseError, sole_writer

HOLD = """
import sys, time
from pathlib import Path
from stablepref.output.locks import sole_writer
with sole_writer(Path(sys.argv[1]), folder=sys.argv[2] == "folder"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(output: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that is the sole writer of an output."""
    command = [sys.executable, "-c", HOLD, str(output), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_second_process_is_refused_at_once_and_a_killed_one_blocks_nobody(
    kind: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with held(output, kind) as process:
        with (
            pytest.raises(InUseError, match=r"out is being written by another process: wait"),
            sole_writer(output, folder=kind == "folder"),
        ):
            pass
        with sole_writer(tmp_path / "other", folder=kind == "folder"):
            pass  # another output is free
        process.send_signal(signal.SIGKILL)
        process.wait()
    with sole_writer(output, folder=kind == "folder"):
        pass


def test_leftovers_of_a_killed_writer_go_and_other_files_stay(tmp_path: Path) -> None:
    half = tmp_path / f".a.csv.{'0' * 16}{WRITING}"
    other = tmp_path / f".b.csv.{'0' * 16}{WRITING}"
    for path in (half, other):
        path.write_text("half")
    with sole_writer(tmp_path / "a.csv"):
        assert not half.exists()
    assert other.exists()
    with sole_writer(tmp_path, folder=True):
        assert not other.exists()


def test_a_folder_is_made_and_removed_again_if_nothing_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with sole_writer(folder, folder=True):
        assert (folder / FOLDER_LOCK).exists()
    assert not (tmp_path / "a").exists()
    with sole_writer(folder, folder=True):
        (folder / "file").touch()
    assert (folder / "file").exists()
    (tmp_path / "empty").mkdir()
    with sole_writer(tmp_path / "empty", folder=True):
        pass
    assert (tmp_path / "empty").exists()  # it was there before


def test_of_processes_that_work_together_one_locks(tmp_path: Path) -> None:
    with sole_writer(tmp_path, folder=True), sole_writer(tmp_path, folder=True, active=False):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with (
            pytest.raises(OSError, match=r"cannot write to .*out\.csv.*[Pp]ermission"),
            sole_writer(tmp_path / "out.csv"),
        ):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("private")
    (tmp_path / ".out.csv.lock").symlink_to(mine)
    with (
        pytest.raises(OSError, match=r"cannot write to .*out\.csv"),
        sole_writer(tmp_path / "out.csv"),
    ):
        pass
    assert mine.read_text() == "private"


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock here")],
)
def test_where_nothing_can_be_locked_a_warning_says_so(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(_: object) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", acquire)
    done = False
    with (
        pytest.warns(UserWarning, match=r"without locks .*no other process writes to it"),
        sole_writer(tmp_path / "out.csv"),
    ):
        done = True
    assert done


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
def test_other_faults_are_errors_that_name_the_output(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with (
        pytest.raises(OSError, match=rf"cannot write to .*out\.csv.*{os.strerror(code)}"),
        sole_writer(tmp_path / "out.csv"),
    ):
        pass
