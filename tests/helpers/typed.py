"""Commands made of functions by typer, run in this process with arguments as they are typed."""

from collections.abc import Callable

import typer
from typer.testing import CliRunner


def typed(main: Callable[..., object], *arguments: object) -> str:
    """What a command prints when it succeeds."""
    code, printed = _run(main, arguments)
    assert code == 0, printed
    return printed


def refused(main: Callable[..., object], *arguments: object) -> str:
    """The message with which a command refuses its arguments, in one line and without its frame."""
    code, printed = _run(main, arguments)
    assert code == 2, printed
    return " ".join(printed.replace("│", " ").split())


def _run(main: Callable[..., object], arguments: tuple[object, ...]) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.output
