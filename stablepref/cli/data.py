"""What `stablepref data` does, once the command line is parsed."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from stablepref.data.check import check_data
from stablepref.output.results import check_input, check_place

if TYPE_CHECKING:
    from collections.abc import Sequence

log = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


def check(
    paths: Sequence[str],
    splits: Sequence[str],
    *,
    data_format: str,
    images: Path | None,
    examples: int,
    workers: int,
    as_json: bool,
    html: Path | None,
) -> tuple[bool, bool]:
    """Check data and print what was found.

    Args:
        paths: One source for each split, or a single one that holds `splits`.
        splits: Names of splits in the one source.
        data_format: As in `stablepref.read_groups`.
        images: As in `stablepref.read_groups`.
        examples: Groups of each split that are shown.
        workers: Threads that decode.
        as_json: Print JSON in place of text.
        html: Write a page of the examples' pictures too.

    Returns:
        Whether nothing is wrong, and whether there is any group that can be used.

    Raises:
        ValueError: As `check_data`, or splits are named for several sources.
        OSError: As `check_data`.
    """
    if splits and len(paths) > 1:
        msg = f"--split takes its splits from one source, and there are {len(paths)}"
        raise ValueError(msg)
    if html is not None:
        check_place("--html", html)
        check_input("--html", html, paths)
    sources = dict.fromkeys(splits, paths[0]) if splits else _named(paths)
    report = check_data(
        sources,
        data_format,
        images=images,
        select=bool(splits),
        examples=examples,
        workers=workers,
    )
    print(json.dumps(report.as_dict(), indent=1) if as_json else "\n".join(report.lines()))
    if html is not None:
        import_module("stablepref.data.report").write_examples(html, report)
        log.print(f"wrote {html}")
    return report.clean, any(split.usable_groups for split in report.splits)


def _named(paths: Sequence[str]) -> dict[str, str]:
    """The sources by their file's name without suffix, or as typed where two share a name."""
    names = [Path(path).stem for path in paths]
    if len(set(names)) < len(names):
        names = list(paths)
    if len(set(names)) < len(names):
        msg = f"a source is named twice: {', '.join(paths)}"
        raise ValueError(msg)
    return dict(zip(names, paths, strict=True))
