"""Fields against their annotations: what fits, what does not, and what the error says."""

from dataclasses import make_dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from stablepref.runtime.fields import NOT_NEGATIVE, POSITIVE, check_fields

Colour = Literal["red", "green", "blue"]
NAN, INFINITE = float("nan"), float("inf")


def checked(kind: object, value: object) -> None:
    check_fields(make_dataclass("Fields", [("field", kind)])(value))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, -3),
        (float, 0.5),
        (float, 2),
        (bool, False),
        (str, "a"),
        (Colour, "red"),
        (int | None, None),
        (Colour | None, None),
        (tuple[float, float], (0.5, 1)),
        (tuple[float, float] | None, None),
        (Annotated[int, "a number of things"], 7),
        (Annotated[int, "a number of things", NOT_NEGATIVE], 0),
        (Annotated[float | None, "a number or nothing", POSITIVE], None),
        (Annotated[float | None, "a number or nothing", POSITIVE], 0.5),
        (Annotated[float, "a probability", Field(ge=0, le=1)], 1),
    ],
)
def test_what_fits_passes(kind: object, value: object) -> None:
    checked(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, 1.0, "field is 1.0; expected a whole number"),
        (int, True, "field is True; expected a whole number"),
        (int, "1", "field is '1'; expected a whole number"),
        (int, None, "field is None; expected a whole number"),
        (float, NAN, "field is nan; expected a finite number"),
        (float, -INFINITE, "field is -inf; expected a finite number"),
        (float, False, "field is False; expected a finite number"),
        (bool, 1, "field is 1; expected True or False"),
        (str, " ", "field is ' '; expected a text that is not blank"),
        (str, b"a", "field is b'a'; expected a text"),
        (Colour, "pink", "field is 'pink'; expected 'red', 'green' or 'blue'"),
        (Colour, ["red"], "expected 'red', 'green' or 'blue'"),
        (Colour | None, "pink", "expected 'red', 'green' or 'blue' or None"),
        (int | None, 0.5, "expected a whole number or None"),
        (tuple[float, float], (1.0,), "expected 2 finite numbers"),
        (tuple[float, float], (1.0, "2"), "expected 2 finite numbers"),
        (tuple[float, float], (0.0, NAN), "expected 2 finite numbers"),
        (tuple[float, float], [0.0, 1.0], "expected 2 finite numbers"),
        (tuple[float, float], (0.0, 1.0, 2.0), "expected 2 finite numbers"),
        (tuple[float, float] | None, 0.5, "expected 2 finite numbers or None"),
        (Annotated[int, "things", POSITIVE], 0, "field is 0; expected more than 0"),
        (Annotated[int, "things", POSITIVE], 1.5, "field is 1.5; expected a whole number"),
        (Annotated[int, "things", NOT_NEGATIVE], -1, "field is -1; expected 0 or more"),
        (
            Annotated[int | None, "things", POSITIVE],
            -1,
            "field is -1; expected more than 0 or None",
        ),
        (Annotated[float, "x", Field(gt=0, le=1)], 1.5, "expected more than 0, and 1 or less"),
        (Annotated[float, "x", Field(ge=0, lt=1)], 1, "field is 1; expected 0 or more, and less"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(
    kind: object,
    value: Any,  # noqa: ANN401 (anything at all may come)
    expected: str,
) -> None:
    with pytest.raises(ValueError, match="field is") as error:
        checked(kind, value)
    assert expected in str(error.value)


def test_every_field_that_does_not_fit_is_a_line() -> None:
    kind = make_dataclass("Sizes", [("one", float), ("two", bool), ("three", int | None)])
    with pytest.raises(ValueError, match="one is") as error:
        check_fields(kind("1", True, "3"))
    assert str(error.value).splitlines() == [
        "one is '1'; expected a finite number.",
        "three is '3'; expected a whole number or None",
    ]


def test_values_stay_as_they_are() -> None:
    kind = make_dataclass("Sizes", [("one", float), ("two", str)])
    instance = kind(1, " a ")
    check_fields(instance)
    assert type(instance.one) is int
    assert instance.two == " a "


def test_a_number_too_large_to_be_a_float_is_whole_all_the_same() -> None:
    checked(int, 10**400)
