"""How commands end: one line and one exit code, for people and for scripts."""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ParamSpec, final

import typer

from stablepref.output.progress import lines_without_terminal
from stablepref.output.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

TO_PROGRAMMERS = (
    *(DeprecationWarning, PendingDeprecationWarning, FutureWarning, SyntaxWarning),
    *(ImportWarning, ResourceWarning, BytesWarning),
)
"""Warnings that whoever calls a command cannot do anything about."""
CALLED = frozenset(
    {"diffusers", "transformers", "peft", "accelerate", "open_clip", "timm", "torchvision"}
)
"""Libraries whose warnings are about how they are called, which is our affair."""

P = ParamSpec("P")


@final
@dataclass
class Tally:
    """How many items were scored and how many could not be."""

    scored: int = 0
    failed: int = 0


def report_ends(
    command: Callable[P, None], options: Mapping[str, str] = MappingProxyType({})
) -> Callable[P, None]:
    """Make a command end with one line on standard error and one exit code, whatever happens.

    Args:
        command: The command's function.
        options: What can be typed for each of its arguments, such as "--batch-size" for
            "batch_size": messages of the library speak of arguments.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by whoever started this: nobody reads it
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        try:
            with warnings.catch_warnings(), lines_without_terminal():
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
            say(f"error: {in_options(str(error), options) or type(error).__name__}")
            raise typer.Exit(NOTHING_DONE) from None
        except Exception:
            traceback.print_exc()
            raise typer.Exit(NOTHING_DONE) from None

    return run


def in_options(message: str, options: Mapping[str, str]) -> str:
    """A message of the library in the words of a command: "--views" for "views=".

    Args:
        message: Speaks of an argument as `views=`, `views=3`, or at a line's beginning as
            "views must be" or "views is".
        options: What can be typed for each argument.
    """
    if not options:
        return message
    names = "|".join(map(re.escape, options))

    def with_value(found: re.Match[str]) -> str:
        return options[found[1]] + (" " if re.match(r"[\w'\"(\[-]", found[2]) else "")

    message = re.sub(rf"(?<![\w.\-/?&])({names})=(?=(\S?))", with_value, message)
    at_begin = rf"(?m)^({names})(?= (?:must|is|has|holds|needs)\b)"
    return re.sub(at_begin, lambda found: options[found[1]], message)


def finish(tally: Tally) -> None:
    """Say how many items could not be scored, and end with the exit code for it."""
    if tally.failed:
        say(f"{tally.failed} of {tally.scored + tally.failed} could not be scored")
        raise typer.Exit(SOME_FAILED if tally.scored else NOTHING_DONE)


def say(text: str) -> None:
    """Print one line on standard error."""
    print(printable(" ".join(text.splitlines())), file=sys.stderr)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object
) -> None:
    """Print a warning, unless it speaks to programmers or of how we call another library."""
    if issubclass(category, TO_PROGRAMMERS) or not CALLED.isdisjoint(Path(filename).parts):
        return
    say(f"warning: {message}")
