"""Texts that belong to a model and stand in its published code: read as literals, never run."""

from __future__ import annotations

import ast
import hashlib
from typing import TYPE_CHECKING

from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path


def read_literal(path: Path, name: str, *, sha256: str | None) -> str:
    """The string that a Python file assigns to a name, anywhere in it; nothing of it is run.

    Args:
        path: The file.
        name: The variable.
        sha256: Of the string in UTF-8; None takes the first string that is assigned.

    Raises:
        WeightsError: The file cannot be read as Python, or assigns no such string.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        msg = f"cannot read {path} as Python: {error}; download it again"
        raise WeightsError(msg) from error
    found = []
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if not any(isinstance(target, ast.Name) and target.id == name for target in targets):
            continue
        value = node.value if isinstance(node, ast.Assign) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found.append(value.value)
    for text in found:
        if sha256 in (None, hashlib.sha256(text.encode()).hexdigest()):
            return text
    msg = (
        f"{path} assigns {len(found)} strings to {name!r}, and none is the official one (SHA-256 "
        f"{sha256}); download the file again"
    )
    raise WeightsError(msg)
