"""Options of a command for the fields of a configuration, and their values."""

import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, get_args, get_type_hints

import typer


def with_settings(
    config: type[Any], *, panel: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field of a configuration, with its annotation as help.

    Args:
        config: A dataclass whose fields are annotated with what they mean.
        panel: Heading of these options in the command's help.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        hints = get_type_hints(config, include_extras=True)
        settings = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    str | None,
                    typer.Option(
                        help=get_args(hints[field.name])[1],
                        rich_help_panel=panel,
                        show_default=False,
                        metavar="VALUE",
                    ),
                ],
            )
            for field in fields(config)
        ]
        command.__signature__ = inspect.Signature([*own, *settings])  # type: ignore[attr-defined] # what inspect looks for
        return command

    return decorate


def read_setting(config: type[Any], name: str, text: str) -> object:
    """A field's value from the command line: JSON, none, or numbers with commas between them."""
    kind = get_type_hints(config).get(name)
    if kind is str:
        return text
    if text.lower() == "none":
        return None
    if str in get_args(kind):
        return text
    if "," in text:
        return tuple(read_setting(config, name, part) for part in text.strip("()[] ").split(","))
    try:
        value: object = json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return text
    return value
