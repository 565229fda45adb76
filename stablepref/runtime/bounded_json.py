"""JSON from strangers: refused before it is read where reading it would take much memory."""

from __future__ import annotations

import json
from typing import Any, Final

MOST_PARTS: Final = 1_000_000
"""Commas and brackets: each stands for an object of Python's of 50 bytes or more."""


def check_parts(text: bytes | str, most: int = MOST_PARTS) -> None:
    """Refuse a text of very many values, whatever they are.

    A list of empty objects takes twenty times as much memory as its text, and errors about each of
    its values more than that. Commas within strings are counted too, so that `most` leaves room
    for them.

    Args:
        text: JSON, or what is said to be JSON.
        most: Commas and opening brackets together.

    Raises:
        ValueError: There are more.
    """
    if isinstance(text, bytes):
        count = text.count(b",") + text.count(b"[") + text.count(b"{")
    else:
        count = text.count(",") + text.count("[") + text.count("{")
    if count > most:
        msg = f"the JSON has {count} commas and brackets; at most {most} are read"
        raise ValueError(msg)


def loads(text: bytes | str, most: int = MOST_PARTS) -> Any:  # noqa: ANN401 (what JSON may hold)
    """The value of a JSON text.

    Raises:
        ValueError: It is not JSON, is nested too deeply, or has more than `most` commas and
            brackets.
    """
    check_parts(text, most)
    try:
        return json.loads(text)
    except RecursionError as error:
        msg = "the JSON is nested too deeply"
        raise ValueError(msg) from error
