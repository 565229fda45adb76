"""Whether the fields of a dataclass hold what they may."""

from __future__ import annotations

import math
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import DataclassInstance

_TOLD: Final = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text that is not blank",
    NoneType: "None",
}


def check_fields(instance: DataclassInstance) -> None:
    """Compare every field with its annotation.

    Understood are `bool`, `int`, `float` (which whole numbers are too), `str`, `None`, and unions,
    `Literal`s and fixed tuples of these.

    Raises:
        ValueError: Names the first field that does not fit, its value, and what was expected: a
            number that is not finite and a blank text do not fit either.
    """
    for name, kind in get_type_hints(type(instance)).items():
        value = getattr(instance, name)
        if not _fits(value, kind):
            raise ValueError(f"{name} is {value!r}; expected {_told(kind)}")


def check_range(
    instance: DataclassInstance,
    names: Iterable[str],
    expected: str,
    inside: Callable[[float], bool],
) -> None:
    """Compare numbers among the fields with what they may be; None is left alone.

    Args:
        instance: Its fields have passed `check_fields`.
        names: Of the fields.
        expected: What `inside` asks for, in words.
        inside: Whether a number will do.

    Raises:
        ValueError: Names the first field that does not fit, its value, and what was expected.
    """
    for name in names:
        value = getattr(instance, name)
        if value is not None and not inside(value):
            raise ValueError(f"{name} is {value}; expected {expected}")


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401 (type hints have no common type)
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in parts
    if get_origin(kind) is tuple:
        given = value if isinstance(value, tuple) else ()
        return len(given) == len(parts) and all(map(_fits, given, parts))
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind) and (kind is not str or bool(value.strip()))


def _told(kind: Any) -> str:  # noqa: ANN401 (type hints have no common type)
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_told, parts))
    if get_origin(kind) is Literal:
        return (
            ", ".join(map(repr, parts[:-1])) + f" or {parts[-1]!r}" if parts[1:] else repr(*parts)
        )
    if get_origin(kind) is tuple:
        return f"({', '.join(map(_told, parts))})"
    return _TOLD[kind]
