"""Check preference data before training on it: decode every image, count, and find leaks.

This is what `stablepref data check` runs.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import final

from PIL import Image

from stablepref.data.groups import RankedGroup
from stablepref.data.read import read_groups
from stablepref.data.report import DataReport, ImageProblem, SharedImage, SplitReport
from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.output.progress import progress_bar
from stablepref.runtime.ahead import ahead

_IMAGES_AHEAD = 64


def check_data(
    splits: Mapping[str, str | PathLike[str] | Iterable[object]],
    format: str = "auto",  # noqa: A002 (what the user calls it)
    *,
    images: str | Path | None = None,
    select: bool = False,
    workers: int = 8,
    progress: bool | None = None,
    examples: int = 3,
) -> DataReport:
    """Read all groups and decode every image of one or several splits.

    Repeated images are found by the hash of their bytes; the same picture in another encoding is
    another image here. Images held as objects are compared by their pixels.

    Args:
        splits: Sources for `read_groups` by the name of the split: ``{"train": path, ...}``.
        format: The data set, as for `read_groups`; ``"auto"`` recognises it.
        images: Folder where relative image paths start, as for `read_groups`.
        select: Take from each source the split that it is named for; see `read_groups`.
        workers: Threads that decode.
        progress: Show a progress bar; None shows it on a terminal.
        examples: Groups of each split that the report keeps.

    Returns:
        The report. Images and entries that cannot be used are listed in it and raise nothing.

    Raises:
        ValueError: If there is no split, or a source as a whole cannot be read.
        FileNotFoundError: If a source does not exist.
        DataError: If a source is damaged so that reading cannot go on.
    """
    if not splits:
        raise ValueError("no data to check; expected at least one source")
    reports, prompts = [], []
    first_places: dict[bytes, dict[str, str]] = {}
    with progress_bar("images", total=None, show=progress) as bar:
        for name, source in splits.items():
            report, seen = SplitReport(name), set[str]()
            groups = read_groups(
                source,
                format,
                images=images,
                split=name if select else None,
                on_error="skip",
                exclusions=report.exclusions,
            )
            for group, inspected in _inspected(groups, workers):
                seen.add(group.prompt)
                report.examples += [group] * (len(report.examples) < examples)
                _add_group(report, group, inspected, first_places)
                bar(len(group.images))
            reports.append(report)
            prompts.append(seen)
    counts = Counter(prompt for seen in prompts for prompt in seen)
    return DataReport(
        splits=reports,
        shared_images=[SharedImage(p) for p in first_places.values() if len(p) > 1],
        shared_prompts=sorted(prompt for prompt, count in counts.items() if count > 1),
    )


@final
@dataclass(frozen=True)
class _Inspection:
    """What decoding one image showed: a size and a hash, or a reason."""

    name: str
    size: tuple[int, int] | None = None
    digest: bytes = b""
    reason: str = ""
    missing: bool = False


def _inspect(image: object) -> _Inspection:
    name = str(image) if isinstance(image, (str, Path)) else f"a {type(image).__name__}"
    content = image
    try:
        if isinstance(image, Path):
            content = image.read_bytes()
        pixels = decode(Source(0, name, content))
    except FileNotFoundError:
        return _Inspection(name, reason="there is no such file", missing=True)
    except OSError as error:
        return _Inspection(name, reason=f"the file cannot be read: {error.strerror or error}")
    except ImageError as error:
        return _Inspection(name, reason=error.reason)
    if isinstance(pixels, Image.Image):
        size = pixels.size
        hashed = content if isinstance(content, bytes) else pixels.tobytes()
    else:
        size = (pixels.shape[2], pixels.shape[1])
        hashed = pixels.cpu().numpy().tobytes()
    return _Inspection(name, size, blake2b(hashed, digest_size=16).digest())


def _add_group(
    report: SplitReport,
    group: RankedGroup,
    inspected: Iterable[_Inspection],
    first_places: dict[bytes, dict[str, str]],
) -> None:
    report.groups += 1
    report.images += len(group.images)
    report.pairs += len(group.pairs())
    report.ties += len(group.ties())
    report.annotated += bool(group.annotations)
    report.group_sizes[len(group.images)] += 1
    label = group.id or f"group {report.groups}"
    bad = set()
    for index, found in enumerate(inspected):
        if found.size is None:
            bad.add(index)
            report.problems.append(
                ImageProblem(label, index, found.name, found.reason, found.missing)
            )
            continue
        report.image_sizes[found.size] += 1
        places = first_places.setdefault(found.digest, {})
        report.repeated += report.name in places
        places.setdefault(report.name, f"{found.name} ({label})")
    rest = group.without(bad)
    report.usable_groups += rest is not None
    report.usable_pairs += 0 if rest is None else len(rest.pairs())


def _inspected(
    groups: Iterable[RankedGroup], workers: int
) -> Iterator[tuple[RankedGroup, list[_Inspection]]]:
    """Each group with what decoding its images showed; threads decode the images of the next."""
    waiting: deque[RankedGroup] = deque()

    def images() -> Iterator[object]:
        for group in groups:
            waiting.append(group)
            yield from group.images

    with closing(ahead(_inspect, images(), workers=workers, most=_IMAGES_AHEAD)) as results:
        for first in results:
            group = waiting.popleft()
            yield group, [first, *islice(results, len(group.images) - 1)]
