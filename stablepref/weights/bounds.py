"""What files of weights may declare: checked before memory or time is spent on it."""

from __future__ import annotations

import gzip
import json
import pickletools
import stat
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Final

from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

LARGEST_CONFIG: Final = 2**20
"""Bytes of a configuration; ours have about a thousand."""
LARGEST_VOCABULARY: Final = 2**26
"""Bytes of a vocabulary, unpacked; CLIP's has 3 million, BERT's 230,000."""
LARGEST_PICKLE: Final = 2**24
"""Bytes of the pickle that describes an archive's tensors; of 1,000 tensors it has 200,000."""
LARGEST_CODE: Final = 2**26
"""Bytes, unpacked, of what a TorchScript archive holds compressed: its code."""
ALLOCATING: Final = ("builtins bytearray", "torch.storage UntypedStorage", "torch._utils _rebuild_")
"""How names begin that `torch.load` would call, and that make memory out of one number."""
REBUILDERS: Final = ("tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state")
"""The ends of `torch._utils._rebuild_...` in state dicts."""


def require_file(path: Path) -> int:
    """The size of a regular file.

    Raises:
        WeightsError: It is not there, or is a folder, a pipe or a device.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        msg = f"there is no file {path}"
        raise WeightsError(msg) from error
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise WeightsError(msg) from error
    if not stat.S_ISREG(found.st_mode):
        msg = f"cannot read {path}: it is a folder, a pipe or a device; expected a file"
        raise WeightsError(msg)
    return found.st_size


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a small JSON file whose numbers are finite.

    Raises:
        WeightsError: It is not there or no regular file, is too large, or is not such JSON.
    """
    size = require_file(path)
    if size > LARGEST_CONFIG:
        msg = f"{path} has {size:,} bytes; expected at most {LARGEST_CONFIG:,}"
        raise WeightsError(msg)
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        msg = f"cannot read {path} ({error})"
        raise WeightsError(msg) from error


def check_vocabulary(path: Path) -> None:
    """Check that a vocabulary is a file and, gzipped or not, small when it is unpacked.

    Raises:
        WeightsError: It is not.
    """
    try:
        size = require_file(path)
        if path.suffix == ".gz":
            with gzip.open(path) as unpacked:
                size = 0
                while size <= LARGEST_VOCABULARY and (piece := unpacked.read(2**20)):
                    size += len(piece)
    except (OSError, EOFError, zlib.error, WeightsError) as error:
        msg = f"cannot read the vocabulary {path}: {error}"
        raise WeightsError(msg) from error
    if size > LARGEST_VOCABULARY:
        msg = (
            f"the vocabulary {path} has more than {LARGEST_VOCABULARY:,} bytes, which none needs: "
            "it is another file, or made to fill the memory"
        )
        raise WeightsError(msg)


def check_archive(path: Path) -> None:
    """Check what a zip archive of PyTorch or TorchScript declares.

    Tensors are stored as they are, so that all of them together are no larger than the file; only
    code is compressed.

    Raises:
        WeightsError: It declares more.
        zipfile.BadZipFile: It is damaged.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        stored = sum(m.file_size for m in members if m.compress_type == zipfile.ZIP_STORED)
        packed = sum(m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED)
        if stored > size or packed > LARGEST_CODE:
            msg = (
                f"{path} has {size:,} bytes and declares {stored + packed:,}: it is damaged, or "
                "made to fill the memory; download it again"
            )
            raise WeightsError(msg)
        for member in members:
            if member.filename.endswith(".pkl"):
                _check_pickle(path, archive, member)


def _check_pickle(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse a pickle that is too large, or names what makes memory out of a number."""
    if member.file_size > LARGEST_PICKLE:
        msg = (
            f"{member.filename} in {path} has {member.file_size:,} bytes; expected at most "
            f"{LARGEST_PICKLE:,}: it holds more than weights; save the model's state_dict() alone"
        )
        raise WeightsError(msg)
    for opcode, argument, _ in pickletools.genops(archive.read(member)):
        if opcode.name != "GLOBAL" or not str(argument).startswith(ALLOCATING):
            continue
        if str(argument).partition("_rebuild_")[2] not in REBUILDERS:
            msg = (
                f"{member.filename} in {path} names {argument}, which no plain file of weights "
                "does; save the model's state_dict() alone"
            )
            raise WeightsError(msg)


def declares_more(tensor: Tensor) -> bool:
    """Whether a tensor claims more numbers than it has, by strides that read some again."""
    return bool(tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes())


def _refuse_constant(name: str) -> None:
    msg = f"it holds {name}; expected finite numbers"
    raise ValueError(msg)
