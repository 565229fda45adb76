"""Weights of a TorchScript archive, such as OpenAI's ViT-L-14.pt, read as data: nothing in it runs.

`torch.jit.save` writes a zip of code, of a pickle with the tree of modules (data.pkl), and of one
file of raw numbers for each storage. `torch.jit.load` compiles and may run that code, and warns
that an archive can be made to run anything. Here the code is not looked at, and the pickle is not
loaded either: its opcodes are walked through, modules become dicts, and no name in it is ever
looked up or called.
"""

from __future__ import annotations

import pickletools
import zipfile
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import torch

from stablepref.weights.folder import DAMAGE, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

CONSTANTS_FILE: Final = "constants.pkl"  # by which torch.load, too, knows these archives
REBUILD_TENSOR: Final = "torch._utils _rebuild_tensor_v2"
DTYPES: Final = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
PUSHED: Final = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
MADE: Final[dict[str, Callable[[], object]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


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
            return dict(_tensors(_Walk(archive).result()))
    except DAMAGE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        msg = (
            f"cannot read the TorchScript archive {path} ({reason}): it is damaged, or was not "
            "written by torch.jit.save; download it again"
        )
        raise WeightsError(msg) from error


def _tensors(module: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(module, torch.Tensor):
        yield prefix, module
    elif isinstance(module, dict):
        for name, value in module.items():
            yield from _tensors(value, f"{prefix}.{name}" if prefix else str(name))


class _Name(str):
    """A class or function that the pickle names, as "module name"."""

    __slots__ = ()


class _Storage(NamedTuple):
    """What a tensor's numbers are read from."""

    kind: str
    type: _Name
    key: str
    device: str
    numel: int


@final
class _Walk:
    """The opcodes of an archive's data.pkl, taken one by one."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        (pickle,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        self.root = pickle.removesuffix("data.pkl")
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.storages: dict[str, Tensor] = {}
        self.steps: dict[str, Callable[[Any], None]] = {
            "GLOBAL": self._global,
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "BINGET": self._get,
            "LONG_BINGET": self._get,
            "MARK": self._mark,
            "TUPLE": self._tuple,
            "APPENDS": self._appends,
            "SETITEMS": self._setitems,
            "NEWOBJ": self._newobj,
            "BUILD": self._build,
            "REDUCE": self._reduce,
            "BINPERSID": self._binpersid,
        }
        order = f"{self.root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            msg = f"its byte order is {archive.read(order)!r}, expected b'little'"
            raise ValueError(msg)

    def result(self) -> object:
        """The tree of modules as dicts of dicts and tensors."""
        data = self.archive.read(f"{self.root}data.pkl")
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in PUSHED:
                self.stack.append(argument)
            elif name in MADE:
                self.stack.append(MADE[name]())
            elif name in TUPLES:
                self.stack[-TUPLES[name] :] = [tuple(self.stack[-TUPLES[name] :])]
            elif name in self.steps:
                self.steps[name](argument)
            elif name not in ("PROTO", "STOP"):
                msg = f"data.pkl has the opcode {name}, which no archive of torch.jit.save has"
                raise ValueError(msg)
        return self.stack.pop()

    # Opcodes by name, as described in Python's `pickletools`.

    def _global(self, argument: str) -> None:
        self.stack.append(_Name(argument))

    def _put(self, argument: int) -> None:
        self.memo[argument] = self.stack[-1]

    def _get(self, argument: int) -> None:
        self.stack.append(self.memo[argument])

    def _mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _appends(self, _: None) -> None:
        items = self._since_mark()
        self.stack[-1].extend(items)

    def _setitems(self, _: None) -> None:
        items = self._since_mark()
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _newobj(self, _: None) -> None:
        """An object of a class: the dict of its attributes."""
        self.stack[-2:] = [{}]

    def _build(self, _: None) -> None:
        """Attributes of an object."""
        state = self.stack.pop()
        if isinstance(state, dict):
            self.stack[-1].update(state)

    def _reduce(self, _: None) -> None:
        """A function's result: of tensors the tensor, all else is passed over."""
        name, arguments = self.stack[-2:]
        self.stack[-2:] = [self._tensor(*arguments[:4]) if name == REBUILD_TENSOR else None]

    def _binpersid(self, _: None) -> None:
        self.stack.append(_Storage(*self.stack.pop()))

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _tensor(
        self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        if storage.key not in self.storages:
            self.storages[storage.key] = self._numbers(storage)
        return self.storages[storage.key].as_strided(size, stride, offset)

    def _numbers(self, storage: _Storage) -> Tensor:
        """The one-dimensional tensor that holds all of a storage; numbers are little-endian."""
        dtype = DTYPES[storage.type]
        if not storage.numel:
            return torch.empty(0, dtype=dtype)
        data = bytearray(self.archive.read(f"{self.root}data/{storage.key}"))
        return torch.frombuffer(data, dtype=dtype, count=storage.numel)
