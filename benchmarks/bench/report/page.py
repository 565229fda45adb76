"""The report of a benchmark: one page to look at, with its tables as Markdown and CSV beside it."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from stablepref.output.pages import write_template

from ..run_files import CONFIG_FILE
from ..score_table import joined, read_table, unshared
from ..statistics import bradley_terry, resampling
from ..statistics.summary import summarise
from .boards import boards, category_bars, decimals, duels, fixed, in_order, number
from .correlation import scorer_pairs
from .files import MARKDOWN_FILE, SUMMARY_FILE, write_summary
from .gallery import gallery_data
from .pictures import page_addresses, run_pictures
from .sheets import sheets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..score_table import ScoreTable
    from ..statistics.summary import Summary

REPORT_FOLDER: Final = "report"
PAGE_FILE: Final = "index.html"
_SCRIPTS: Final = ("tables.js", "gallery.js")
_PACKAGE: Final = "stablepref.benchmarks.bench.report"


def write_report(
    runs: Sequence[Path],
    *,
    out: Path | None = None,
    copy: bool = False,
    resamples: int = resampling.RESAMPLES,
    fits: int = bradley_terry.RESAMPLES,
    progress: bool | None = None,
) -> Path:
    """Write a report of one run, or of several with the same prompts as of one.

    The page holds its style, scripts, plots and numbers, works from `file://`, and asks for nothing
    but images, which it names by paths relative to itself. Beside it are the files of
    `stablepref bench leaderboard --out`.

    Args:
        runs: Folders of runs, finished or not.
        out: Folder of the report; None is `report` in the folder of a single run.
        copy: Put copies of all images beside the page, so that its folder can be moved or
            published; by default the images stay where they are. Copies that are there stay.
        resamples: As in `summarise`.
        fits: As in `summarise`.
        progress: As in `Scorer.score`.

    Returns:
        The page, `index.html`, written last.

    Raises:
        ValueError: A folder is no run, runs do not compare, see `joined`, there are several and no
            `out`, or `out` is the folder of a run.
        ImportError: matplotlib is not installed.
        OSError: A file cannot be read or written.
    """
    if out is None and len(runs) > 1:
        msg = f"{len(runs)} runs make one report: say with --out in which folder"
        raise ValueError(msg)
    if out is not None and (out / CONFIG_FILE).is_file():
        msg = f"{out} is the folder of a run, whose files a report would replace: choose another"
        raise ValueError(msg)
    tables = [read_table(folder) for folder in runs]
    table = joined(tables)
    folder = runs[0] / REPORT_FOLDER if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [one for run in runs for one in run_pictures(run, table.prompts)]
    addresses = page_addresses(pictures, table.prompts, folder, copy=copy, progress=progress)
    summary = summarise(table, resamples=resamples, fits=fits)
    notes = [
        f"{run.resolve().name} is not finished: these are the scores so far"
        for run in runs
        if not (run / SUMMARY_FILE).is_file()
    ]
    notes += [
        f"{name} is left out: only some of the runs have this scorer" for name in unshared(tables)
    ]
    values = _values(table, summary, notes, resamples=resamples)
    gallery = _json(gallery_data(table, addresses))
    write_summary(folder, table, summary)
    write_template(
        folder / PAGE_FILE, "report.html.j2", package=_PACKAGE, gallery=gallery, **values
    )
    return folder / PAGE_FILE


def _values(
    table: ScoreTable, summary: Summary, notes: Sequence[str], *, resamples: int
) -> dict[str, object]:
    """What the template shows, but for the gallery."""
    templates = files(_PACKAGE) / "templates"
    texts = [(templates / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    tables = sheets(summary)
    rows = boards(summary)
    orders = {scorer: [row.standing.model for row in own] for scorer, own in rows.items()}
    return {
        "scripts": [Markup(text) for text in texts],
        "hashes": [_hash(text) for text in texts],
        "summary": summary,
        "table": table,
        "notes": [*notes, *summary.warnings],
        "sheets": tables,
        "files": [
            *(MARKDOWN_FILE, SUMMARY_FILE),
            *(f"{sheet.name}.csv" for sheet in tables),
            *("scores.csv", "failures.csv"),
        ],
        "failed": len({(one.model, one.prompt, one.image) for one in table.failures}),
        "boards": rows,
        "orders": orders,
        "duels": {
            scorer: in_order(found, table.models, orders[scorer])
            for scorer, found in duels(summary, table.models).items()
        },
        "bars": category_bars(summary),
        "scorer_pairs": scorer_pairs(table, resamples=resamples),
        "number": number,
        "decimals": decimals,
        "fixed": fixed,
    }


def _json(value: object) -> Markup:
    """JSON that no text in it can end before its element does."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _hash(script: str) -> str:
    """What allows this script, and no other, to run in the page."""
    return "sha256-" + base64.b64encode(sha256(script.encode()).digest()).decode()
