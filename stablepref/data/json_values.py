"""The values of JSON files, one at a time: a line each, or the entries of an array."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from stablepref.data.groups import DataError

Values = Iterator[tuple[str, object]]
"""Pairs of a place, such as "line 3", and what was found there. What cannot be read is the
`ValueError` that says so, and the next is read; a file that cannot be read on raises `DataError`.
"""

_SPACE = re.compile(r"[ \t\r\n]*")
_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_WRAPPER = re.compile(r'\s*\{\s*"[^"\\]*"\s*:\s*(?=\[)')
_TOO_DEEP = "its values are nested too deeply"


def json_lines(path: Path) -> Values:
    """Yield ("line N", value) for each line of a JSON Lines file that is not blank."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", parsed(line)


def json_entries(path: Path) -> Values:
    """Yield ("entry N", value) for each value of a JSON array, counted from 1.

    The array may be the one value of an object, as {"pairs": [...]} in Multimodal RewardBench 2.
    Values are parsed one by one, so that HPD v2's 645 thousand entries need no more memory than
    their text.

    Raises:
        DataError: If the file is not one JSON array; it names the line.
    """
    text = json_text(path)

    def wrong(position: int, reason: str) -> DataError:
        return DataError(path, f"line {text.count(chr(10), 0, position) + 1}", reason)

    def expect(character: str, position: int, wanted: str) -> int:
        position = _skip_space(text, position)
        if not text.startswith(character, position):
            found = repr(text[position : position + 10]) if position < len(text) else "the end"
            raise wrong(position, f"not JSON: expected {wanted}, found {found}")
        return _skip_space(text, position + 1)

    wrapped = _WRAPPER.match(text)
    position = expect("[", wrapped.end() if wrapped else 0, "an array of objects")
    number = 0
    while number > 0 or not text.startswith("]", position):
        number += 1
        value: object
        try:
            value, position = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise wrong(error.pos, f"not JSON ({error.msg})") from error
        except RecursionError as error:
            end = _end_of_value(text, position)
            if end is None:
                raise wrong(position, _TOO_DEEP) from error
            value, position = ValueError(_TOO_DEEP), end
        yield f"entry {number}", value
        position = _skip_space(text, position)
        if text.startswith("]", position):
            break
        position = expect(",", position, "',' or ']'")
    end = position + 1
    if wrapped:
        end = expect("}", end, "'}', since the array is all that the object holds")
    if end < len(text.rstrip()):
        raise wrong(position, "text after the end of the array")


def json_text(path: Path) -> str:
    """The text of a JSON file.

    Raises:
        DataError: If it is not UTF-8.
        OSError: If it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"byte {error.start}", f"not UTF-8 text ({error.reason})") from error


def json_document(path: Path) -> object:
    """All that a JSON file holds.

    Raises:
        DataError: If it is not JSON; it names the line.
        OSError: If it cannot be read.
    """
    try:
        return _DECODER.decode(json_text(path))
    except json.JSONDecodeError as error:
        raise DataError(path, f"line {error.lineno}", f"not JSON ({error.msg})") from error
    except RecursionError as error:
        raise DataError(path, "text", _TOO_DEEP) from error


def _integer(text: str) -> float:
    """A whole number; with more digits than Python converts, an infinite one."""
    try:
        return int(text)
    except ValueError:
        return float(text)


_DECODER = json.JSONDecoder(parse_int=_integer)


def parsed(text: bytes | str) -> object:
    """The JSON value that a text holds, or why it holds none."""
    try:
        return _DECODER.decode(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        return ValueError(f"not UTF-8 text ({error})")
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON ({error})")
    except RecursionError:
        return ValueError(_TOO_DEEP)


def _skip_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    assert found is not None, "the pattern matches nothing as well"
    return found.end()


def _end_of_value(text: str, position: int) -> int | None:
    """Where an array or object ends that is too deep to be parsed; None if it does not end."""
    depth = 0
    for found in _BRACKET.finditer(text, position):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    return None
