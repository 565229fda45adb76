"""Pickles of torch's archives read as data: what is no tensor becomes a plain record.

No name in such a pickle is ever looked up or imported, and none of its objects can do anything.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import TYPE_CHECKING, Any, Final, final

import torch

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Collection, Mapping

    from torch import Tensor

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
PARAMETERS: Final = (
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
)
"""What makes a parameter of a tensor."""


class Record:
    """An object in a pickle that is no tensor: a module with its attributes, never its code."""

    attributes: object = None

    def __init__(self, *arguments: object) -> None:
        """Take whatever the pickle would call the class with."""

    def __setstate__(self, state: object) -> None:
        """Keep the attributes."""
        self.attributes = state


@final
class RecordReader(pickle.Unpickler):
    """An unpickler in which a name stands for a tensor or a record, and nothing is imported.

    Args:
        archive: A zip with a `data.pkl`, and one file of raw numbers for each storage.
        opcodes: Names of the opcodes that the writer of such archives uses.
        writer: What wrote it, for messages.
        known: Names beside those of tensors and the builtin types that they are, by module and
            name.
        packages: The only packages whose names it may have; None for any.

    Raises:
        UnpicklingError: `data.pkl` has other opcodes, or a place in the memo beyond its length.
        ValueError: There is not one `data.pkl`, or its numbers have another byte order.
    """

    def __init__(
        self,
        archive: zipfile.ZipFile,
        *,
        opcodes: Collection[str],
        writer: str,
        known: Mapping[tuple[str, str], type] | None = None,
        packages: Collection[str] | None = None,
    ) -> None:
        (data,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        content = archive.read(data)
        _check_opcodes(content, opcodes, writer)
        super().__init__(io.BytesIO(content))
        self.archive = archive
        self.writer = writer
        self.known = dict(known or {})
        self.packages = packages
        self.root = data.removesuffix("data.pkl")
        self.storages: dict[str, Tensor] = {}
        order = f"{self.root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            msg = f"its byte order is {archive.read(order)!r}, expected b'little'"
            raise ValueError(msg)

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as pickle has it
        """A number type, the maker of a tensor, what is known, or a class of records."""
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: storage.as_strided(
                size, stride, offset
            )
        if (module, name) in PARAMETERS:
            return lambda data, *_: data
        if (module, name) in self.known:
            return self.known[module, name]
        if self.packages is not None and module.partition(".")[0] not in self.packages:
            msg = f"data.pkl has the name {module}.{name}, which no archive of {self.writer} has"
            raise pickle.UnpicklingError(msg)
        return type(name, (Record,), {})  # a new one, so that no pickle can change another's

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


def _check_opcodes(content: bytes, opcodes: Collection[str], writer: str) -> None:
    """Refuse what is not written, such as a place in the memo for which memory would end."""
    for opcode, argument, _ in pickletools.genops(content):
        beyond = opcode.name == "LONG_BINPUT" and int(argument or 0) >= len(content)
        if opcode.name not in opcodes or beyond:
            text = opcode.name if argument is None else f"{opcode.name} {argument}"
            msg = f"data.pkl has the opcode {text}, which no archive of {writer} has"
            raise pickle.UnpicklingError(msg)
