"""Options for the fields of a configuration: its annotations are their help; needs no torch."""

import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer


def with_settings(
    config: type[Any], *, panel: str, defaults: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field of a configuration, with its annotation as help.

    The command gets them as text in keyword arguments; `read_setting` reads the text.

    Args:
        config: A dataclass whose fields are annotated with what they mean.
        panel: Heading of these options in the command's help.
        defaults: Give what is not typed the field's default; else it is None.
    """
    hints = get_type_hints(config, include_extras=True)
    settings = {}
    for field in fields(config):
        kind, meaning = get_args(hints[field.name])[:2]
        option = typer.Option(help=meaning, rich_help_panel=panel, metavar=_values(kind))
        hint = Annotated[str | None, option]
        settings[field.name] = (hint, _typed(field.default) if defaults else None)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        parameters = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint
            )
            for name, (hint, default) in settings.items()
        ]
        command.__signature__ = inspect.Signature([*own, *parameters])  # type: ignore[attr-defined] # what inspect looks for
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


def _values(kind: Any) -> str:  # noqa: ANN401 (any annotation)
    """What can be typed for a setting, such as "INTEGER|none"."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return "|".join(parts)
    if get_origin(kind) is tuple:
        return ",".join(map(_values, parts))
    if parts:
        return "|".join(map(_values, parts))
    if kind is ...:
        return "..."
    words = {bool: "true|false", int: "INTEGER", float: "NUMBER", str: "TEXT", NoneType: "none"}
    return words.get(kind, "VALUE")


def _typed(value: object) -> str:
    """A value as it would be typed."""
    if isinstance(value, tuple):
        return ",".join(map(_typed, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
