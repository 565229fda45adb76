"""A package from outside, installed beside this one: a module and its entry points."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest


def install_plugin(
    folder: Path,
    patch: pytest.MonkeyPatch,
    code: str,
    entries: Mapping[str, Mapping[str, str]],
    *,
    module: str = "from_outside",
) -> None:
    """Make a package importable, in this process and in its children, and known by its entries.

    Args:
        folder: An empty folder; the package is written there.
        patch: Takes it all back after the test.
        code: The module's code.
        entries: For each group of entry points the names and the attributes of the module.
        module: The module's name, and the package's.
    """
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = []
    for group, names in entries.items():
        lines.append(f"[{group}]")
        lines += [f"{name} = {module}:{attribute}" for name, attribute in names.items()]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    patch.syspath_prepend(str(folder))
    patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    importlib.invalidate_caches()
    sys.modules.pop(module, None)
