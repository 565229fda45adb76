"""Weights of a TorchScript archive, such as OpenAI's ViT-L-14.pt, read as data: nothing in it runs.

`torch.jit.save` writes a zip of code, of a pickle with the tree of modules (data.pkl), and of one
file of raw numbers for each storage. `torch.jit.load` compiles and may run that code, and warns
that an archive can be made to run anything. Here the code is not looked at, and the pickle can
make nothing but plain records: no name in it is ever looked up or imported.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from typing import TYPE_CHECKING, Any, Final, final

import torch

from stablepref.weights.errors import DAMAGE, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

MOST_PARTS: Final = 1_000_000
"""Modules, attributes and tensors that are visited; OpenAI's largest model has 30,000."""
CONSTANTS_FILE: Final = "constants.pkl"  # by which torch.load, too, knows these archives
DTYPES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

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
            return dict(_tensors(_Reader(archive).load()))
    except (*DAMAGE, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        msg = (
            f"cannot read the TorchScript archive {path} ({reason}): it is damaged, or was not "
            "written by torch.jit.save; download it again"
        )
        raise WeightsError(msg) from error


class _Record:
    """An object in the pickle that is no tensor: a module with its attributes, never its code."""

    attributes: object = None

    def __init__(self, *arguments: object) -> None:
        """Take whatever the pickle would call the class with."""

    def __setstate__(self, state: object) -> None:
        """Keep the attributes."""
        self.attributes = state


@final
class _Reader(pickle.Unpickler):
    """An unpickler in which a name stands for a tensor or a record, and nothing is imported."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        (data,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        content = archive.read(data)
        _check_opcodes(content)
        super().__init__(io.BytesIO(content))
        self.archive = archive
        self.root = data.removesuffix("data.pkl")
        self.storages: dict[str, Tensor] = {}
        order = f"{self.root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            msg = f"its byte order is {archive.read(order)!r}, expected b'little'"
            raise ValueError(msg)

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as pickle has it
        """A number type, the maker of a tensor, or a class of records."""
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: storage.as_strided(
                size, stride, offset
            )
        if module.partition(".")[0] not in ("__torch__", "torch", "collections"):
            msg = f"data.pkl has the name {module}.{name}, which no archive of torch.jit.save has"
            raise pickle.UnpicklingError(msg)
        return type(name, (_Record,), {})  # a new one, so that no pickle can change another's

    def persistent_load(self, pid: Any) -> Tensor:  # noqa: ANN401 - whatever the pickle holds
        """The one-dimensional tensor of all of a storage's numbers, which are little-endian."""
        _, dtype, key, _, count = pid
        if not isinstance(dtype, torch.dtype):
            msg = f"{dtype} is no type of numbers that is known here"
            raise pickle.UnpicklingError(msg)
        if key not in self.storages:
            numbers = torch.empty(0, dtype=dtype)
            if count:
                data = bytearray(self.archive.read(f"{self.root}data/{key}"))
                numbers = torch.frombuffer(data, dtype=dtype, count=count)
            self.storages[key] = numbers
        return self.storages[key]


def _check_opcodes(content: bytes) -> None:
    """Refuse what torch does not write, such as a place in the memo for which memory would end."""
    for opcode, argument, _ in pickletools.genops(content):
        beyond = opcode.name == "LONG_BINPUT" and int(argument or 0) >= len(content)
        if opcode.name not in OPCODES or beyond:
            text = opcode.name if argument is None else f"{opcode.name} {argument}"
            msg = f"data.pkl has the opcode {text}, which no archive of torch.jit.save has"
            raise pickle.UnpicklingError(msg)


def _tensors(
    part: object, name: str = "", visited: Iterator[int] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Tensors below a part; a few kilobytes of parts that share parts could unfold to billions."""
    visited = visited or iter(range(MOST_PARTS))
    if next(visited, None) is None:
        msg = f"its modules have more than {MOST_PARTS:,} parts, each shared one counted again"
        raise ValueError(msg)
    if isinstance(part, _Record):
        part = part.attributes
    if isinstance(part, torch.Tensor):
        yield name, part
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key), visited)
