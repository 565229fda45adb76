"""Fields against their annotations: what fits, what does not, and what the error says."""

from dataclasses import make_dataclass
from typing import Annotated, Any, Literal

import pytest

from stablepref.runtime.fields import check_fields, check_range

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
        (tuple[float, float], (1.0,), "expected (a finite number, a finite number)"),
        (tuple[float, float], (1.0, "2"), "expected (a finite number, a finite number)"),
        (tuple[float, float], (0.0, NAN), "expected (a finite number, a finite number)"),
        (tuple[float, float], [0.0, 1.0], "expected (a finite number, a finite number)"),
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


def test_numbers_out_of_range_are_named_and_none_is_left_alone() -> None:
    sizes = make_dataclass("Sizes", [("one", float), ("two", int | None)])

    def check(one: float, two: int | None) -> None:
        check_range(sizes(one, two), ("one", "two"), "more than 0", lambda value: value > 0)

    check(0.5, 1)
    check(0.5, None)
    with pytest.raises(ValueError, match=r"^two is 0; expected more than 0$"):
        check(0.5, 0)
    with pytest.raises(ValueError, match=r"^one is -0.5; expected more than 0$"):
        check(-0.5, 0)
