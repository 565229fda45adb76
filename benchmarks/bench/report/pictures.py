"""Where the images of a run are, and how a page beside them names them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from PIL import Image

from stablepref.data.layouts import picture_name
from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source, UnusableImageError
from stablepref.output.durable import replacing
from stablepref.output.progress import progress_bar

from ..contestants import Contestant
from ..image_folders import (
    IMAGES_FOLDER,
    Picture,
    finished_pictures,
)
from ..run_files import read_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.data.prompts import ListedPrompt

BROWSER_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
"""What every browser shows."""


def run_pictures(folder: Path, prompts: Sequence[ListedPrompt]) -> list[Picture]:
    """All images of a run, model by model, prompt by prompt.

    Args:
        folder: Of the run.
        prompts: Its prompts.

    Returns:
        Pictures; where there is none, `image` is an `UnusableImageError` that says why.

    Raises:
        ValueError: As `finished_pictures`, whose folder has changed since the run, or the run's
            files are damaged.
        OSError: A file cannot be read.
    """
    run, _ = read_run(folder)
    images = run.images
    pictures: list[Picture] = []
    for name, settings in run.models.items():
        source = Path(settings.source)
        made = folder / IMAGES_FOLDER / name
        if not made.is_dir() and Contestant(name, str(source)).finished and source.exists():
            pictures += finished_pictures(name, source, prompts, images)
            continue
        for place, prompt in enumerate(prompts):
            for number in range(images):
                path = made / f"{picture_name(prompt, number)}.png"
                image = path if path.is_file() else _missing(path, source)
                pictures.append(Picture(name, place, number, image))
    return pictures


def page_address(
    picture: Picture, prompt: ListedPrompt, folder: Path, *, copy: bool
) -> tuple[str | None, str | None]:
    """How a page in a folder names a picture, or why it cannot show it.

    Args:
        picture: The picture.
        prompt: Its prompt.
        folder: The page's, resolved.
        copy: Put a copy at `images/MODEL/KEY` in the page's folder: the file as it is, or, where it
            is no file that browsers show, its pixels as PNG. A copy that is there already stays.

    Returns:
        The relative URL, or None and the reason.

    Raises:
        ValueError: The copy would lie outside of the page's folder.
        OSError: The copy cannot be written.
    """
    if isinstance(picture.image, UnusableImageError):
        return None, str(picture.image)
    path = Path(picture.image) if isinstance(picture.image, str | os.PathLike) else None
    if path is None or not path.is_file():
        if not copy:
            return None, "it is in no file of its own here: give --copy to put one beside the page"
        path = None
    if not copy:
        assert path is not None, "decided above"
        return _relative(path, folder), None
    showable = path is not None and path.suffix.lower() in BROWSER_SUFFIXES
    suffix = path.suffix.lower() if path is not None and showable else ".png"
    name = f"{picture_name(prompt, picture.number)}{suffix}"
    target = folder / IMAGES_FOLDER / picture.model / name
    if not target.parent.resolve().is_relative_to(folder):
        raise ValueError(
            f"{target} lies outside of {folder}: a link leads there; remove it, or choose another "
            "folder"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if path is not None and showable:
        if not _same(path, target):
            with replacing(target) as staging:
                shutil.copy2(path, staging)
    else:
        try:
            pixels = decode(Source(0, str(picture.image), picture.image))
        except ImageError as error:
            return None, error.reason
        assert isinstance(pixels, Image.Image), "paths, URLs and bytes are decoded by Pillow"
        with replacing(target) as staging:
            pixels.save(staging, "PNG")
    return _relative(target, folder), None


def page_addresses(
    pictures: Sequence[Picture],
    prompts: Sequence[ListedPrompt],
    folder: Path,
    *,
    copy: bool,
    progress: bool | None = None,
) -> dict[tuple[str, int, int], tuple[str | None, str | None]]:
    """`page_address` of every picture by its key; interrupted copying is resumed.

    Args:
        pictures: All of them.
        prompts: Those that they name by their places.
        folder: The page's.
        copy: As in `page_address`.
        progress: As in `Scorer.score`.

    Raises:
        OSError: As `page_address`.
    """
    found = {}
    folder = folder.resolve()
    with progress_bar("images", total=len(pictures), show=progress) as advance:
        for picture in pictures:
            prompt = prompts[picture.prompt]
            found[picture.key] = page_address(picture, prompt, folder, copy=copy)
            advance(1)
    return found


def _missing(path: Path, source: Path) -> UnusableImageError:
    more = f"; {source} is not there either" if not source.exists() else ""
    return UnusableImageError(f"there is no {path}{more}")


def _relative(path: Path, folder: Path) -> str:
    """A URL of a file; names need not be valid text."""
    steps = os.path.relpath(path.resolve(), folder)
    return quote(os.fsencode(Path(steps).as_posix()))


def _same(source: Path, target: Path) -> bool:
    """Whether a copy is there and none older, as `shutil.copy2` keeps a file's time."""
    if not target.is_file():
        return False
    one, other = source.stat(), target.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
