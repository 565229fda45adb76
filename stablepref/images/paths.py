"""Which files are images, and which of them a path, a folder or a glob pattern stands for."""

import logging
import re
import stat
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from glob import escape, has_magic, iglob
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image

log = logging.getLogger(__name__)

# Pillow recognises these but does not decode them by itself: containers of other data (weather,
# HDF5, video), and drawings that start another program (Ghostscript) or need Windows.
_NOT_DECODED: Final = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"})

_NUMBER: Final = re.compile(r"([0-9]+)")


class Plugin(NamedTuple):
    """A package that teaches Pillow another format.

    Attributes:
        module: What is imported of it.
        register: The function of the module that registers the format; empty where importing does.
        suffixes: Of the files that need it.
    """

    module: str
    register: str
    suffixes: frozenset[str]


PLUGINS: Final[Mapping[str, Plugin]] = {
    "pillow-heif": Plugin(
        "pillow_heif", "register_heif_opener", frozenset({".heic", ".heif", ".hif"})
    ),
    "pillow-jxl-plugin": Plugin("pillow_jxl", "", frozenset({".jxl"})),
    "pillow-avif-plugin": Plugin("pillow_avif", "", frozenset({".avif", ".avifs"})),
}
"""Plugins by the package that brings them; those that are installed are registered."""

# What people keep beside images: captions, metadata, manifests. No one takes them for images.
_COMPANIONS: Final = frozenset(
    {".csv", ".html", ".json", ".jsonl", ".log", ".md", ".ndjson", ".parquet", ".toml", ".tsv"}
    | {".txt", ".xml", ".yaml", ".yml"}
)


def decoded_formats() -> list[str]:
    """Pillow's names of the formats that are decoded, in the order in which they are tried."""
    _register_plugins()
    return [name for name in Image.ID if name not in _NOT_DECODED]


def image_suffixes() -> frozenset[str]:
    """Suffixes of image files, in lower case and with the dot: of all formats that are decoded."""
    formats = set(decoded_formats())
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in formats)


def image_files(paths: Iterable[Path], *, where: object) -> list[Path]:
    """Those of some files that are images by their suffix; hidden files are never among them.

    Whatever else is there is counted and named: in a warning, or in the log where only captions and
    the like lie beside the images.

    Args:
        paths: Files; what is not a file is left out.
        where: The folder or pattern, for the warning.

    Returns:
        The images, sorted naturally (2 before 10).
    """
    suffixes = image_suffixes()
    images: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if not path.name.startswith(".") and path.is_file():
            (images if path.suffix.lower() in suffixes else others).append(path)
    if others:
        message = f"{where}: skipped {named_by_suffix(others)}"
        if all(path.suffix.lower() in _COMPANIONS for path in others):
            log.info("%s", message)
        else:
            warnings.warn(message, stacklevel=2)
    return sorted(images, key=natural_key)


def named_by_suffix(paths: Iterable[Path]) -> str:
    """How many files of each suffix there are, and the package that would read them."""
    counts = Counter(path.suffix.lower() or path.name for path in paths)
    named = []
    for suffix, count in sorted(counts.items()):
        package = package_for(suffix)
        hint = f" (pip install {package} to read them)" if package else ""
        named.append(f"{count} {suffix}{hint}")
    return f"{counts.total()} file(s) that are not images: {', '.join(named)}"


def package_for(suffix: str) -> str | None:
    """The package that a file of this suffix needs; None where none is known or none is missing."""
    if suffix not in image_suffixes():
        for package, plugin in PLUGINS.items():
            if suffix in plugin.suffixes:
                return package
    return None


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


def existing_files(text: str) -> list[Path]:
    """Files that a path stands for, as `expand_path`, which are there.

    Raises:
        ValueError: There is no such file, or as `expand_path`; the message has what was given.
        OSError: As `expand_path`.
    """
    paths = expand_path(text)
    if not paths[0].exists():
        msg = f"{text}: there is no such file or folder"
        raise ValueError(msg)
    return paths


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


@cache
def _register_plugins() -> None:
    """Let Pillow know all of its own formats and those of the installed plugins."""
    Image.init()
    for package, plugin in PLUGINS.items():
        try:
            module = import_module(plugin.module)
            if plugin.register:
                getattr(module, plugin.register)()
        except ModuleNotFoundError:
            continue
        except Exception as error:  # whatever the plugin's own code raises
            warnings.warn(f"the installed {package} cannot be used: {error!r}", stacklevel=2)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long or may not be looked at: opening it says so
        return False


def _list_folder(folder: Path) -> list[Path]:
    files = image_files(folder.iterdir(), where=folder)
    if not files:
        message = (
            "the folder has no file with an image suffix (.png, .jpg, .webp, ...); for the "
            f"folders inside it pass the pattern {str(folder / '**' / '*')!r}"
        )
        raise ValueError(message)
    return files


def _match_pattern(pattern: str) -> list[Path]:
    files = [path for path in _matches(pattern) if path.is_file()]
    suffix = Path(pattern).suffix
    if suffix and not has_magic(suffix):
        chosen = sorted(files, key=natural_key)
    else:
        chosen = image_files(files, where=pattern)
    if not chosen:
        found = f"{len(files)} files, none of them with an image suffix" if files else "no file"
        message = f"the pattern matches {found} (working folder: {Path.cwd()})"
        raise ValueError(message)
    return chosen


def _matches(pattern: str) -> Iterator[Path]:
    """What a pattern matches, each file once; `**` enters every folder once.

    The walk of `glob` goes round in a loop of links until names are too long for the system.
    """
    before, deep, after = _at_any_depth(pattern)
    if not deep:
        # pathlib's own glob takes no absolute pattern and matches hidden files.
        yield from map(Path, iglob(pattern))  # noqa: PTH207
        return
    seen: set[Path] = set()
    for start in iglob(before) if has_magic(before) else [before]:  # noqa: PTH207
        for folder in _folders_below(Path(start)):
            for match in _matches(str(Path(escape(str(folder))) / (after or "*"))):
                if match not in seen:
                    seen.add(match)
                    yield match


def _at_any_depth(pattern: str) -> tuple[str, bool, str]:
    """What comes before the first part `**`, whether there is one, and what comes after it."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return pattern, False, ""
    place = parts.index("**")
    rest = list(parts[place + 1 :])
    while rest and rest[0] == "**":  # twice is no more than once
        rest.pop(0)
    return str(Path(*parts[:place])), True, str(Path(*rest)) if rest else ""


def _folders_below(start: Path) -> Iterator[Path]:
    """A folder and all those in it, by whichever name; each once, and none that is hidden.

    Folders come before links to folders, so that a link's name stands only for what lies elsewhere.
    """
    entered: set[tuple[int, int]] = set()
    folders, links = [start], deque[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            found = folder.stat()
            inside = list(folder.iterdir()) if stat.S_ISDIR(found.st_mode) else []
        except OSError:  # a link to nothing or to itself, or a folder that may not be listed
            continue
        if not stat.S_ISDIR(found.st_mode) or (found.st_dev, found.st_ino) in entered:
            continue
        entered.add((found.st_dev, found.st_ino))
        yield folder
        for path in inside:
            if path.name.startswith("."):
                continue
            if path.is_symlink():
                links.append(path)
            elif path.is_dir():
                folders.append(path)
