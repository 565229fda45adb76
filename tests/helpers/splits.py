"""Small splits of ranked pictures on the disk."""

from pathlib import Path

from helpers.archives import png
from stablepref.data.groups import RankedGroup
from stablepref.data.write import write_jsonl


def make_split(folder: Path, shades: list[list[int]], ranks: list[tuple[float, ...]]) -> Path:
    """A JSON Lines file whose groups hold pictures of the given shades."""
    groups = []
    for number, (own, order) in enumerate(zip(shades, ranks, strict=True)):
        images = tuple(png(shade) for shade in own)
        groups.append(RankedGroup(f"{folder.name} {number}", images, order, id=f"g{number}"))
    write_jsonl(folder / "data.jsonl", groups, image_folder=folder / "images")
    return folder / "data.jsonl"
