"""Weights of a whole module that `torch.save` pickled, as MPS is published: nothing in it runs.

`torch.load` would import and call whatever such a file names. Here the modules are records, of
which only what a `state_dict` holds is looked at.
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import torch

from stablepref.weights.errors import DAMAGE
from stablepref.weights.records import Record, RecordReader
from stablepref.weights.torchscript import MOST_PARTS, OPCODES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

PYTHONS: Final = frozenset((*OPCODES, "APPEND", "SETITEM", "POP", "POP_MARK", "LONG4"))
"""Opcodes of Python's pickler at protocol 2, which `torch.save` asks for; torch's own are fewer."""
KNOWN: Final = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


def read_pickled_module(path: Path) -> dict[str, Tensor] | None:
    """The `state_dict` of the module in a file of `torch.save`, on the CPU.

    Returns:
        Parameters and persistent buffers by their dotted names; None if the file holds something
        else, or is of a form that is not read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = RecordReader(archive, opcodes=PYTHONS, writer="torch.save", known=KNOWN).load()
        return dict(_weights(root)) if _is_module(root) else None
    except (*DAMAGE, MemoryError, RecursionError):
        return None


def _attributes(part: object) -> dict[object, object]:
    found = part.attributes if isinstance(part, Record) else None
    return found if isinstance(found, dict) else {}


def _is_module(part: object) -> bool:
    """Whether a record has the attributes that every `torch.nn.Module` has."""
    found = _attributes(part)
    return all(isinstance(found.get(name), dict) for name in ("_parameters", "_modules"))


def _weights(
    part: object, prefix: str = "", visited: Iterator[int] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """As `state_dict` names them; a few kilobytes of shared parts could unfold to billions."""
    visited = visited or iter(range(MOST_PARTS))
    if next(visited, None) is None:
        msg = f"its modules have more than {MOST_PARTS:,} parts, each shared one counted again"
        raise ValueError(msg)
    found = _attributes(part)
    passing = found.get("_non_persistent_buffers_set")
    passing = passing if isinstance(passing, set) else set()
    for group in ("_parameters", "_buffers"):
        tensors = found.get(group)
        for name, value in tensors.items() if isinstance(tensors, dict) else ():
            if isinstance(value, torch.Tensor) and name not in passing:
                yield f"{prefix}{name}", value
    modules = found.get("_modules")
    for name, module in modules.items() if isinstance(modules, dict) else ():
        yield from _weights(module, f"{prefix}{name}.", visited)
