"""How commands end: one line and one exit code, for people and for scripts."""

from __future__ import annotations

import functools
import os
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, final

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

SOME_FAILED = 1
NOTHING_DONE = 2
INTERRUPTED = 130  # as shells report SIGINT
PIPE_CLOSED = 141  # as shells report SIGPIPE

EXPECTED = (
    ValueError,
    TypeError,
    OSError,  # UnavailableError among them
    ImportError,  # it names the extra to install
    FloatingPointError,  # a loss that is not finite
    RuntimeError,  # torch's own: a device that cannot compute this, or that has no memory left
    MemoryError,
)
"""Errors whose message is enough for a user; others are bugs of this program: with a traceback."""

P = ParamSpec("P")


@final
@dataclass
class Tally:
    """How many items were scored and how many could not be."""

    scored: int = 0
    failed: int = 0


def report_ends(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end with one line on standard error and one exit code, whatever happens."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by whoever started this: nobody reads it
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                command(*args, **kwargs)
                sys.stdout.flush()
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The interpreter flushes once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        except EXPECTED as error:
            say(f"error: {str(error) or type(error).__name__}")
            raise typer.Exit(NOTHING_DONE) from None
        except Exception:
            traceback.print_exc()
            raise typer.Exit(NOTHING_DONE) from None

    return run


def finish(tally: Tally) -> None:
    """Say how many items could not be scored, and end with the exit code for it."""
    if tally.failed:
        say(f"{tally.failed} of {tally.scored + tally.failed} could not be scored")
        raise typer.Exit(SOME_FAILED if tally.scored else NOTHING_DONE)


def say(text: str) -> None:
    """Print one line on standard error."""
    print(" ".join(text.splitlines()), file=sys.stderr)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {message}")
