"""Pickles from strangers: plain data come through, nothing else does, and nothing runs."""

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stablepref.integrations.serve.unpickle import RefusedPickleError, plain_data

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_come_through(protocol: int) -> None:
    data = {
        "prompts": ["a fox", "日本", ""],
        "numbers": [0, -1, 2**70, 0.5, float("inf"), True, None],
        "nested": ({"a": [1, (2, 3)]}, []),
        5: {"only_strict": False},
    }
    assert plain_data(pickle.dumps(data, protocol)) == data


@pytest.mark.parametrize("protocol", [3, 4, 5])  # older ones make bytes by a function of codecs
def test_bytes_and_sets_come_through(protocol: int) -> None:
    data = {"images": [b"\xff\xd8\0\n" * 100, b""], "set": {1, 2}, "frozen": frozenset("ab")}
    if protocol < 4:
        data = {"images": data["images"]}  # type: ignore[dict-item] # sets are made by a function
    assert plain_data(pickle.dumps(data, protocol)) == data


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "number",
    [
        *(np.dtype(code).type(3) for code in ("f2", "f4", "f8", "i1", "i8", "u2", "?")),
        np.frombuffer(b"\x3f\x80\0\0", ">f4")[0],
    ],
    ids=repr,
)
def test_numpy_numbers_come_through(protocol: int, number: np.generic) -> None:
    (found,) = plain_data(pickle.dumps([number], protocol))
    assert found == number
    assert type(found) is type(number)


class Runs:
    """Unpickling it would call a function."""

    def __init__(self, function: Any, *arguments: object) -> None:  # noqa: ANN401
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:  # noqa: D105
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_runs(protocol: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mark = tmp_path / "mark"
    for call in (
        Runs(os.system, f"touch {mark}"),
        Runs(exec, f"open({str(mark)!r}, 'w')"),
        Runs(getattr, "", "join"),
        Runs(__import__, "subprocess"),
        Runs(Path.touch, mark),
        Runs(np.frombuffer, b"a", "u1"),
    ):
        data = pickle.dumps({"images": [b""], "prompts": [call]}, protocol)
        with pytest.raises(RefusedPickleError, match="only dictionaries"):
            plain_data(data)
    assert not mark.exists()
    assert "refused a pickle" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3),
        np.array(["a", {}], dtype=object),
        np.dtype("f4"),
        np.str_("a"),
        np.datetime64(1, "D"),
        torch.zeros(2),
        Image.new("RGB", (2, 2)),
        Path("a"),
        io.BytesIO(b"a"),
        len,
        dict,
        Exception("a"),
        1 + 2j,
        range(3),
        slice(1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_are_refused(value: object) -> None:
    with pytest.raises(RefusedPickleError):
        plain_data(pickle.dumps({"images": value}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x80\x05.",
        pickle.dumps([1, 2, 3])[:-1],
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of 2^63 bytes
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.",  # bytes that are not there
        b"\x80\x02Kar" + struct.pack("<I", 2**31) + b".",  # a place that takes 16 GB of memory
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x02ccopyreg\n__newobj__\n)\x81.",
        b"P12\n.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension
        b"\x80\x02cnumpy\ndtype\n(X\x01\0\0\0OK\0K\1tR.",
        b"\x80\x02cnumpy\nload\n.",
    ],
    ids=repr,
)
def test_crafted_and_damaged_pickles_are_refused(data: bytes) -> None:
    with pytest.raises(RefusedPickleError):
        plain_data(data)


@pytest.mark.parametrize(
    ("data", "operation"),
    [
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "NEWOBJ"),
        (b"(X\x02\0\0\0f4inumpy\ndtype\n.", "INST"),
        (b"(cnumpy\ndtype\nX\x02\0\0\0f4o.", "OBJ"),
        (b"P12\n.", "PERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
    ],
)
def test_operations_that_plain_data_never_need(data: bytes, operation: str) -> None:
    with pytest.raises(RefusedPickleError, match=f"the operation {operation};"):
        plain_data(data)


def test_one_list_many_times_is_looked_at_once() -> None:
    """Nested references would otherwise take 2^60 steps."""
    bomb: list[object] = [1]
    for _ in range(60):
        bomb = [bomb, bomb]
    assert plain_data(pickle.dumps(bomb))


def test_deep_nesting() -> None:
    data = b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b"."
    assert isinstance(plain_data(data), list)
