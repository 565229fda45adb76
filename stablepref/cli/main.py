"""The command line: one table of commands, each imported only when it is called.

A command is a function (or a `typer.Typer` with several) in a file of a `cli` folder, and one line
in `COMMANDS`. Packages from outside add theirs through the entry points `stablepref.commands`.
"""

from __future__ import annotations

import io
import logging
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final, final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from stablepref.cli.ends import NOTHING_DONE, report_ends, say
from stablepref.output.text import ANY_TEXT
from stablepref.runtime.registry import Registry


@final
@dataclass(frozen=True)
class Command:
    """A line of the table.

    Attributes:
        place: ``module:attribute`` of the function or the `typer.Typer`.
        help: What `stablepref --help` says of it, which is the first line of its own help.
    """

    place: str
    help: str


COMMANDS: Final[Registry[object]] = Registry(
    "command",
    "stablepref.commands",
    {
        "score": Command(
            "stablepref.cli.score:score",
            "Score images against a prompt, or each row of a manifest against its own.",
        ),
        "rank": Command(
            "stablepref.cli.rank:rank",
            "Order images from best to worst for a prompt, or for each prompt of a manifest.",
        ),
        "compare": Command(
            "stablepref.cli.compare:compare",
            "Say which of two images people would prefer, or that it is a tie.",
        ),
        "models": Command(
            "stablepref.cli.models:models", "List the models that can be loaded by name."
        ),
        "demo": Command(
            "stablepref.benchmarks.cli.demo:demo",
            "Make many images of a prompt, pick the best, and show on a page how good the pick is.",
        ),
        "select": Command(
            "stablepref.integrations.cli.select:select",
            "Generate many candidates for a prompt with a diffusers pipeline and keep the best.",
        ),
        "data": Command(
            "stablepref.cli.data:app", "Check preference data before training or evaluation."
        ),
        "label": Command(
            "stablepref.integrations.cli.label:label",
            "Show pictures on a local page, and write down which ones people prefer.",
        ),
        "eval": Command(
            "stablepref.cli.eval:evaluate",
            "Measure how well models agree with people, and how stable their choices are.",
        ),
        "train": Command(
            "stablepref.cli.train:train",
            "Train a preference model, on one process or under torchrun or accelerate launch.",
        ),
        "finetune": Command(
            "stablepref.integrations.cli.finetune:finetune",
            "Fine-tune a diffusers pipeline on a reward, on one process or under torchrun.",
        ),
        "serve": Command(
            "stablepref.integrations.cli.serve:serve",
            "Serve scorers over HTTP: for `stablepref.load`, trainers, and whatever sends JSON.",
        ),
        "bench": Command(
            "stablepref.benchmarks.cli.bench:app",
            "Benchmark text-to-image models: `stablepref bench drawbench --model A --model B`.",
        ),
    },
)


@final
class Commands(TyperGroup):
    """The commands of the table: listed by their lines, imported when one is resolved."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 (typer's own)
        super().__init__(**settings)
        for name in COMMANDS:
            self.add_command(TyperCommand(name, help=_line(name)))

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 (typer's own)
        """Its options, `--help` among them; switches are shown without a type."""
        found: list[Any] = super().get_params(ctx)
        return [_without_type(one) if getattr(one, "is_flag", False) else one for one in found]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 (typer's own)
        """The command itself in place of its line."""
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None or listed is None:
            return name, listed, rest
        try:
            return name, load(name), rest
        except (ImportError, TypeError) as error:
            say(f"error: {error}")
            raise typer.Exit(NOTHING_DONE) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Score text-to-image generations the way people would.",
    epilog="Exit codes: 0 success; 1 some items could not be scored, or the data has faults; "
    "2 wrong use, or nothing was done.",
)


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ANY_TEXT)
    app(prog_name="stablepref")


def load(name: str) -> Any:  # noqa: ANN401 (a command of click or of typer's copy of it)
    """A command of the table, imported, with its ends reported as `stablepref.cli.ends` does.

    Raises:
        KeyError: There is no such command.
        ImportError: It cannot be imported.
        TypeError: A package brings something that is neither a function nor a `typer.Typer`.
    """
    value = COMMANDS[name]
    if isinstance(value, Command):
        module, _, attribute = value.place.partition(":")
        value = getattr(import_module(module), attribute)
    holder = typer.Typer(add_completion=False)
    if isinstance(value, typer.Typer):
        holder.add_typer(value, name=name)
    elif callable(value):
        holder.command(name)(value)
    else:
        msg = f"the command {name!r} is {value!r}; expected a function or a typer.Typer"
        raise TypeError(msg)
    found = get_group(holder).commands[name]
    _finish(found)
    return found


def _finish(command: Any) -> None:  # noqa: ANN401 (as above)
    """Report how a command, or each one of a group, ends; show its switches without a type."""
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    own = command.get_help_option
    command.get_help_option = lambda ctx: _without_type(own(ctx))
    for each in getattr(command, "commands", {}).values():
        _finish(each)
    if command.callback is not None:
        options = {
            parameter.name: max(parameter.opts, key=len)
            for parameter in command.params
            if parameter.param_type_name == "option" and parameter.name
        }
        command.callback = report_ends(command.callback, options)


def _without_type(option: Any) -> Any:  # noqa: ANN401 (an option of click or of typer's copy)
    if option is not None:
        option.metavar = ""
    return option


def _line(name: str) -> str:
    """What `stablepref --help` says of a command; one from outside is not imported for it."""
    value = COMMANDS.builtin.get(name)
    if isinstance(value, Command):
        return value.help
    package = COMMANDS.package(name)
    return "Added by this program." if package is None else f"From the package {package}."


class _Said(logging.Handler):
    """Messages on standard error, among what the command itself says."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _listen(level: int) -> None:
    """Show the package's messages on standard error: with 0 warnings, from 1 on what is done."""
    handler = _Said()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s" if level > 1 else None))
    logger = logging.getLogger("stablepref")
    logger.handlers = [handler]
    logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(level, 2)])


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stablepref {version('stablepref')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version.", metavar=""
        ),
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            metavar="",
            help="Report what is loaded and downloaded; -vv also which module reports it.",
        ),
    ] = 0,
) -> None:
    del show_version  # its callback has done all
    _listen(verbose)
