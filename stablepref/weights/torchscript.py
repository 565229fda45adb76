"""Weights of a TorchScript archive, such as OpenAI's ViT-L-14.pt, read as data: nothing in it runs.

`torch.jit.save` writes a zip of code, of a pickle with the tree of modules (data.pkl), and of one
file of raw numbers for each storage. `torch.jit.load` compiles and may run that code, and warns
that an archive can be made to run anything. Here the code is not looked at, and the pickle can
make nothing but plain records: no name in it is ever looked up or imported.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Final

import torch

from stablepref.weights.errors import DAMAGE, WeightsError
from stablepref.weights.records import Record, RecordReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

MOST_PARTS: Final = 1_000_000
"""Modules, attributes and tensors that are visited; OpenAI's largest model has 30,000."""
CONSTANTS_FILE: Final = "constants.pkl"  # by which torch.load, too, knows these archives
PACKAGES: Final = ("__torch__", "torch", "collections")
OPCODES: Final = (
    *("PROTO", "STOP", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "BINPERSID", "MARK", "APPENDS"),
    *("SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BINUNICODE", "BININT"),
    *("BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_DICT"),
    *("EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
)
"""Those of torch's pickler (torch/csrc/jit/serialization/pickler.cpp)."""


def is_torchscript(path: Path) -> bool:
    """Whether the file is an archive of `torch.jit.save`; False for what cannot be opened."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/{CONSTANTS_FILE}") for name in archive.namelist())
    except zipfile.BadZipFile:  # it has a zip's end, but is truncated before that
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The tensors that the modules of an archive hold, by their dotted names, on the CPU.

    Those of the module's `state_dict`, and tensors that are plain attributes.

    Raises:
        WeightsError: The archive is damaged, or not of the form that `torch.jit.save` writes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reader = RecordReader(
                archive, opcodes=OPCODES, writer="torch.jit.save", packages=PACKAGES
            )
            return dict(_tensors(reader.load()))
    except (*DAMAGE, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        msg = (
            f"cannot read the TorchScript archive {path} ({reason}): it is damaged, or was not "
            "written by torch.jit.save; download it again"
        )
        raise WeightsError(msg) from error


def _tensors(
    part: object, name: str = "", visited: Iterator[int] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Tensors below a part; a few kilobytes of parts that share parts could unfold to billions."""
    visited = visited or iter(range(MOST_PARTS))
    if next(visited, None) is None:
        msg = f"its modules have more than {MOST_PARTS:,} parts, each shared one counted again"
        raise ValueError(msg)
    if isinstance(part, Record):
        part = part.attributes
    if isinstance(part, torch.Tensor):
        yield name, part
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key), visited)
