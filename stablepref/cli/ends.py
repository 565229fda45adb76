"""How commands end: one line and one exit code, for people and for scripts."""

from __future__ import annotations

import functools
import os
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, ParamSpec

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from stablepref.cli.score import Tally

SOME_FAILED = 1
NOTHING_DONE = 2
INTERRUPTED = 130  # as shells report SIGINT
PIPE_CLOSED = 141  # as shells report SIGPIPE

ENDED = (
    ValueError,
    TypeError,
    OSError,  # UnavailableError among them
    ImportError,  # it names the extra to install
    FloatingPointError,  # a loss that is not finite
    RuntimeError,  # torch's own: a device that cannot compute this, or that has no memory left
    MemoryError,
)
"""Errors whose message tells a user enough; others are faults of this program, with a traceback."""

P = ParamSpec("P")


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """The command with its ends told to people and scripts: one line, one exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                command(*args, **kwargs)
                sys.stdout.flush()
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            tell("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The interpreter flushes once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        except ENDED as error:
            tell(f"error: {str(error) or type(error).__name__}")
            raise typer.Exit(NOTHING_DONE) from None
        except Exception:
            traceback.print_exc()
            raise typer.Exit(NOTHING_DONE) from None

    return run


def finish(tally: Tally) -> None:
    """Say how many items could not be scored, and end with the code for it."""
    if tally.failed:
        tell(f"{tally.failed} of {tally.scored + tally.failed} could not be scored")
        raise typer.Exit(SOME_FAILED if tally.scored else NOTHING_DONE)


def tell(text: str) -> None:
    """One line on standard error."""
    typer.echo(" ".join(text.splitlines()), err=True)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    tell(f"warning: {message}")
