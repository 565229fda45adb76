"""Write ranked groups as JSON Lines: ``{"prompt", "images", "ranks"}`` in a line for each group.

Optional keys are those of `RankedGroup` (``id``, ``annotations``, ``annotators``, ``metadata``).
Image paths are relative to the file's folder, so that a data set can be moved; URLs stay as they
are. `stablepref.data.read.read_groups` reads the file.
"""

import json
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from stablepref.data.groups import RankedGroup
from stablepref.output.durable import replacing

_SIGNATURES = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"RIFF", ".webp"), (b"GIF8", ".gif"))


def write_jsonl(
    path: str | os.PathLike[str],
    groups: Iterable[RankedGroup],
    *,
    image_folder: str | os.PathLike[str] | None = None,
) -> int:
    """Write ranked groups; the file appears whole or not at all.

    Paths below the file's folder are written relative to it, other paths absolute.

    Args:
        path: The file to write; one that is there is replaced at the end.
        groups: The groups, consumed one by one.
        image_folder: Where to save images that are held as bytes, under the hash of their content.
            Without it such images are refused: JSON Lines holds paths only.

    Returns:
        The number of groups written.

    Raises:
        TypeError: If an image is neither a path nor a URL, nor bytes with an ``image_folder``.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_to = None if image_folder is None else Path(image_folder).absolute()
    count = 0
    with replacing(path) as staging, staging.open("w", encoding="utf-8") as file:
        for group in groups:
            row = _row_from_group(group, path.parent, save_to)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _row_from_group(
    group: RankedGroup, folder: Path, image_folder: Path | None
) -> dict[str, object]:
    row: dict[str, object] = {
        "prompt": group.prompt,
        "images": [_image_entry(image, folder, image_folder) for image in group.images],
        "ranks": group.ranks,
    }
    optional = ("id", "annotations", "annotators", "metadata")
    return row | {key: getattr(group, key) for key in optional if getattr(group, key)}


def _image_entry(image: object, folder: Path, image_folder: Path | None) -> str:
    if isinstance(image, bytes) and image_folder is not None:
        image = _save_once(image, image_folder)
    if isinstance(image, str) and "://" in image:
        return image
    if not isinstance(image, (str, os.PathLike)):
        hint = "give image_folder to save it" if isinstance(image, bytes) else "save it to a file"
        raise TypeError(f"an image is a {type(image).__name__}, JSON Lines holds paths: {hint}")
    path = Path(image).absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _save_once(content: bytes, folder: Path) -> Path:
    suffix = next((end for start, end in _SIGNATURES if content.startswith(start)), ".bin")
    path = folder / f"{sha256(content).hexdigest()[:32]}{suffix}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as staging:
            staging.write_bytes(content)
    return path
