"""Names that were read from a file and become files here: they stay inside their folder."""

from __future__ import annotations


def stays_inside(name: str) -> bool:
    """Whether a file of this name, with `/` between folders, lies inside the folder it is put in.

    True of "00012" and "anime/00012"; false of "", "/a", "../a", "a/../b", "a//b" and of names with
    a backslash, a colon or a NUL, which other systems read as another place.
    """
    parts = name.split("/")
    return not any(part in {"", ".", ".."} for part in parts) and not set(name) & set("\\:\0")
