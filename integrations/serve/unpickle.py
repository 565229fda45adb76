"""Pickles from strangers: plain containers, text, bytes and numbers, and nothing that runs."""

from __future__ import annotations

import io
import logging
import pickle
import pickletools
import re
from typing import Any, Final, final

import numpy as np

log = logging.getLogger(__name__)

OPCODES: Final = frozenset(
    [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "POP",
        "POP_MARK",
        "DUP",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "SHORT_BINBYTES",
        "BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "EMPTY_LIST",
        "LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "EMPTY_SET",
        "ADDITEMS",
        "FROZENSET",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "MEMOIZE",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "GLOBAL",
        "STACK_GLOBAL",
        "REDUCE",
        "BUILD",
    ]
)
"""What a pickle may consist of; the last four only make numpy's numbers."""

MOST_OPERATIONS: Final = 1_000_000
"""Each makes an object of Python's, for one byte of the pickle."""

DTYPE: Final = re.compile(r"[iuf][1248]|b1")
PLAIN: Final = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, bool)


@final
class RefusedPickleError(ValueError):
    """A pickle that holds something else than plain data."""


@final
class _DType:
    """Stands for numpy's dtype while a number is read: its code and its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not DTYPE.fullmatch(code):
            raise _refusal(f"numpy.dtype({code!r:.40})")
        self.code, self.order = code, "="

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise _refusal(f"a byte order {order!r:.40}")
        self.order = str(order)


def _scalar(dtype: object, data: object) -> np.generic:
    """The number that numpy's own function of this name makes."""
    if not isinstance(dtype, _DType) or not isinstance(data, bytes):
        raise _refusal("numpy's scalar of something else than a number")
    kind = np.dtype(dtype.order + dtype.code)
    if kind.itemsize != len(data):
        raise _refusal(f"a number of {len(data)} bytes in place of {kind.itemsize}")
    number: np.generic = np.frombuffer(data, kind)[0]
    return number


NUMPY_SCALARS: Final = {
    ("numpy", "dtype"): _DType,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "scalar"): _scalar,
}
"""What pickles of numpy's numbers refer to, under the names of numpy 1 and 2."""


def _refusal(what: str) -> RefusedPickleError:
    log.warning("refused a pickle that holds %s", what)
    msg = f"the pickle holds {what}; only dictionaries, lists, strings, bytes and numbers are taken"
    return RefusedPickleError(msg)


@final
class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 (pickle's own signature)
        if (module, name) not in NUMPY_SCALARS:
            raise _refusal(f"{module:.80}.{name:.80}")
        return NUMPY_SCALARS[module, name]


def plain_data(data: bytes) -> Any:  # noqa: ANN401 (what the pickle holds)
    """The plain data that a pickle holds: containers, strings, bytes, numbers, numpy scalars.

    Nothing else is imported, made or called, whatever the pickle says.

    Raises:
        RefusedPickleError: It holds something else, or is no pickle.
    """
    try:
        _check_opcodes(data)
        found = _Unpickler(io.BytesIO(data)).load()
    except RefusedPickleError:
        raise
    except Exception as error:
        # pickle raises nearly anything on damaged data (EOFError, IndexError, KeyError, ...).
        raise _refusal(f"damaged data ({type(error).__name__}: {error!s:.100})") from error
    _check(found)
    return found


def _check_opcodes(data: bytes) -> None:
    """Refuse what plain data never need, and places in memory that only an attack would name."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count >= MOST_OPERATIONS:
            raise _refusal(f"more than {MOST_OPERATIONS} operations")
        if opcode.name not in OPCODES:
            raise _refusal(f"the operation {opcode.name}")
        if opcode.name.endswith("PUT") and not 0 <= int(argument or 0) <= len(data):
            raise _refusal(f"the place {argument} in a memory of {len(data)} bytes")


def _check(found: object) -> None:
    """Refuse what is not plain, such as the stand-in for a dtype by itself."""
    waiting, seen = [found], set()
    while waiting:
        one = waiting.pop()
        if one is None or isinstance(one, np.generic):
            continue
        if type(one) not in PLAIN:
            raise _refusal(f"a {type(one).__name__}")
        if isinstance(one, dict | list | tuple | set | frozenset) and id(one) not in seen:
            seen.add(id(one))
            waiting += [*one, *one.values()] if isinstance(one, dict) else one
