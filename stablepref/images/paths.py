"""Image files that a path, a folder or a glob pattern stands for, in natural order."""

import re
from functools import cache
from glob import has_magic, iglob
from pathlib import Path

from PIL import Image

# Pillow recognises these but does not decode them by itself: containers of other data (weather,
# HDF5, video) and vector drawings that need Windows or Ghostscript.
_NOT_DECODED = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"})

_NUMBER = re.compile(r"([0-9]+)")


def expand_path(text: str) -> list[Path]:
    """Files that a path stands for: itself, the images of a folder, or the matches of a pattern.

    A folder gives its own files with an image suffix, not those of folders inside it. A pattern
    (`*`, `?`, `[...]`, and `**` for any depth) gives the matching files; where it does not spell
    the suffix out (`photos/*`), only those with an image suffix. Hidden files are left out, as a
    shell does. A path that exists is never read as a pattern, and one that does not exist is
    returned as it is: whoever opens it reports it. A leading `~` is the home folder.

    Args:
        text: path, folder or pattern; not empty.

    Returns:
        At least one path, sorted naturally (2 before 10).

    Raises:
        ValueError: a folder without images, or a pattern without matches.
        OSError: a folder that cannot be listed.
        RuntimeError: a home folder that cannot be determined.
    """
    path = Path(text)
    if text.startswith("~"):
        path = path.expanduser()
    if _is_folder(path):
        return _list_folder(path)
    if has_magic(str(path)) and not path.exists():
        return _match_pattern(str(path))
    return [path]


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case file suffixes, with the dot, of the formats that the installed Pillow decodes."""
    known = Image.registered_extensions().items()
    return frozenset(
        suffix for suffix, name in known if name in Image.OPEN and name not in _NOT_DECODED
    )


def natural_key(path: Path) -> tuple[list[list[str | int]], str]:
    """Sort key under which numbers in names count as numbers, and upper and lower case mix."""
    parts: list[list[str | int]] = [
        [
            int(piece) if place % 2 else piece.casefold()  # the odd places hold the matches
            for place, piece in enumerate(_NUMBER.split(part))
        ]
        for part in path.parts
    ]
    return parts, str(path)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long or may not be looked at: opening it says so
        return False


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in image_suffixes()


def _list_folder(folder: Path) -> list[Path]:
    files = [
        path
        for path in folder.iterdir()
        if _is_image(path) and not path.name.startswith(".") and path.is_file()
    ]
    if not files:
        message = (
            "the folder has no file with an image suffix (.png, .jpg, .webp, ...); for the "
            f"folders inside it pass the pattern {str(folder / '**' / '*')!r}"
        )
        raise ValueError(message)
    return sorted(files, key=natural_key)


def _match_pattern(pattern: str) -> list[Path]:
    # pathlib's own glob takes no absolute pattern and matches hidden files.
    matches = map(Path, iglob(pattern, recursive=True))  # noqa: PTH207
    files = [path for path in matches if path.is_file()]
    suffix = Path(pattern).suffix
    chosen = files if suffix and not has_magic(suffix) else [p for p in files if _is_image(p)]
    if not chosen:
        found = f"{len(files)} files, none of them with an image suffix" if files else "no file"
        message = f"the pattern matches {found} (working folder: {Path.cwd()})"
        raise ValueError(message)
    return sorted(chosen, key=natural_key)
