"""Where there is no terminal, commands say in lines how far long work is."""

import sys
import warnings
from types import SimpleNamespace

import pytest

from stablepref.cli.ends import in_options, report_ends
from stablepref.output import progress
from stablepref.output.progress import ProgressLines, lines_without_terminal, progress_bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock of the test's own, in seconds."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def worked(clock: SimpleNamespace, items: int, seconds: float, total: int | None) -> None:
    """Work of so many items that take so long each."""
    with lines_without_terminal(), progress_bar("working", total=total) as advance:
        for _ in range(items):
            clock.now += seconds
            advance(1)


def test_a_line_after_each_tenth_but_not_within_ten_seconds(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    worked(clock, 100, 2.0, 100)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"working: {done} of 100" for done in range(10, 101, 10)
    ]
    assert lines[0] == "working: 10 of 100, 0.5/s, about 3:00 left"
    worked(clock, 100, 0.25, 100)
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "working: 40 of 100",
        "working: 80 of 100",
    ]


def test_slow_work_says_something_every_minute(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    worked(clock, 6, 30.0, 1000)
    worked(clock, 6, 30.0, None)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        *(f"working: {done} of 1000" for done in (2, 4, 6)),
        *(f"working: {done}" for done in (2, 4, 6)),
    ]
    assert lines[0].endswith("about 8:19:00 left")  # 998 items of 30 seconds


def test_short_work_and_libraries_say_nothing(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    worked(clock, 9, 1.0, 9)
    with progress_bar("working", total=9) as advance:  # not in a command
        clock.now += 100
        advance(9)
    with lines_without_terminal(), progress_bar("working", total=9, show=False) as advance:
        clock.now += 100
        advance(9)
    assert not capsys.readouterr().err


def test_a_line_can_say_more(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with lines_without_terminal():
        lines = ProgressLines("training", 20, done=10)
        clock.now = 50.0
        lines.advance(5, more="loss 0.250")
    assert capsys.readouterr().err == "training: 15 of 20, 0.1/s, about 0:50 left, loss 0.250\n"


def test_warnings_that_users_cannot_act_on_are_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        warnings.simplefilter("always")
        warnings.warn("the picture was cut", stacklevel=1)
        warnings.warn("torch_dtype is deprecated", FutureWarning, stacklevel=1)
        warnings.warn_explicit(
            "a peft_config is there", UserWarning, "/lib/site-packages/peft/tuners.py", 1
        )
        warnings.warn_explicit("no driver", UserWarning, "/lib/site-packages/torch/cuda.py", 1)
        print("done", file=sys.stderr)

    report_ends(command)()
    assert capsys.readouterr().err.splitlines() == [
        "warning: the picture was cut",
        "warning: no driver",
        "done",
    ]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("like='x' is no model", "--like 'x' is no model"),
        ("pass like= with one of a, b", "pass --like with one of a, b"),
        ("batch_size must be 1 or more, got 0", "--batch-size must be 1 or more, got 0"),
        ("views is -1; expected 0", "--views is -1; expected 0"),
        ("a.\nviews is -1", "a.\n--views is -1"),
        ("choose another out=", "choose another --out"),
        ("the views must differ", "the views must differ"),
        ("http://host/?like=1 and my.like=2", "http://host/?like=1 and my.like=2"),
        ("other=3 stays", "other=3 stays"),
    ],
)
def test_messages_of_the_library_speak_of_options(message: str, shown: str) -> None:
    options = {"like": "--like", "batch_size": "--batch-size", "views": "--views", "out": "--out"}
    assert in_options(message, options) == shown
    assert in_options(message, {}) == message
