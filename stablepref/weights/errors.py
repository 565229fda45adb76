"""What goes wrong when weights are read."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib


class WeightsError(ValueError):
    """A weights file or folder is missing, truncated, or of another model."""


DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    EOFError,
    OSError,
)
"""What damaged data raises in the libraries that read checkpoints."""
