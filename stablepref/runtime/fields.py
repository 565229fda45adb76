"""Whether the fields of a configuration hold what their annotations allow."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

POSITIVE: Final[Any] = Field(gt=0)
"""The bound of a number above 0, for annotations."""
NOT_NEGATIVE: Final[Any] = Field(ge=0)
"""The bound of a number that may be 0 as well, for annotations."""

_STRICT: Final = ConfigDict(
    strict=True, allow_inf_nan=False, str_strip_whitespace=True, str_min_length=1
)
_KINDS: Final = {
    "bool_type": "True or False",
    "int_type": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "string_type": "a text that is not blank",
    "string_too_short": "a text that is not blank",
}
"""What types of pydantic's errors mean, in words."""
_BOUNDS: Final = {
    "gt": "more than {}",
    "ge": "{} or more",
    "lt": "less than {}",
    "le": "{} or less",
}


def check_fields(instance: DataclassInstance) -> None:
    """Compare every field of a dataclass with its annotation; no value is converted.

    pydantic checks, strictly: True is not a number, "3" is not 3, 3.0 is not a whole number (but 3
    will do for a float), numbers are finite, and texts are not blank. Bounds stand in the
    annotation, as in ``Annotated[int, "optimiser steps", POSITIVE]``.

    Raises:
        ValueError: One line for each field that does not fit: its name, its value, and what was
            expected.
    """
    model = _model(type(instance))
    values = {name: getattr(instance, name) for name in model.model_fields}
    try:
        model.model_validate(values)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for problem in error.errors():
            name = str(problem["loc"][0])
            expected = _expected(model, name, problem)
            lines.setdefault(name, f"{name} is {values[name]!r}; expected {expected}")
        raise ValueError(".\n".join(lines.values())) from None


@cache
def _model(kind: type[DataclassInstance]) -> type[BaseModel]:
    """A pydantic model with the fields of a dataclass, all required."""
    hints = get_type_hints(kind, include_extras=True)
    wanted: dict[str, Any] = {field.name: (hints[field.name], ...) for field in fields(kind)}
    return create_model(kind.__name__, __config__=_STRICT, **wanted)


def _expected(model: type[BaseModel], name: str, problem: Any) -> str:  # noqa: ANN401 (pydantic's ErrorDetails)
    """What a field was expected to be, in words."""
    field = model.model_fields[name]
    choices = get_args(field.annotation) if _optional(field.annotation) else (field.annotation,)
    lengths = [len(get_args(choice)) for choice in choices if get_origin(choice) is tuple]
    if lengths:
        words = f"{lengths[0]} finite numbers"
    elif problem["type"].startswith(("greater_than", "less_than")):
        bounds = (
            (words, getattr(part, name, None))
            for part in field.metadata
            for name, words in _BOUNDS.items()
        )
        words = ", and ".join(text.format(bound) for text, bound in bounds if bound is not None)
    elif problem["type"] == "literal_error":
        words = problem["ctx"]["expected"]
    else:
        words = _KINDS.get(problem["type"], problem["msg"])
    return f"{words} or None" if _optional(field.annotation) else words


def _optional(kind: Any) -> bool:  # noqa: ANN401 (type hints have no common type)
    return NoneType in get_args(kind)
