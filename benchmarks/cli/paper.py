"""What `stablepref bench paper` does, once the command line is parsed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from stablepref.cli.score import Tally, log
from stablepref.output.durable import replacing
from stablepref.output.tables import print_table

from ..bench.judges import ORACLE, load_judges
from ..bench.score_table import joined, read_table
from ..paper.data import (
    Place,
    Split,
    hub_split,
    lab_split,
    official_split,
    where,
)
from ..paper.drawn import RUN, drawn_run
from ..paper.layouts import LAYOUTS
from ..paper.numbers import HPDV2, IMAGEREWARD
from ..paper.request import SHOWN, SIZE
from ..paper.sources import Sources, needs
from ..shapes.people.generators import GENERATORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..bench.score_table import ScoreTable
    from ..paper.request import Request
    from ..paper.table import PaperTable

BUNDLED: Final = "shapes"
CANDIDATES: Final = 100
"""Images of each prompt of Figure 6."""
GENERATOR: Final = "level-6"
"""Whose images the laboratory's Figure 6 chooses among: good and bad ones."""


def paper(request: Request) -> Tally:
    """Make a table or figure of the paper, print it, and write it into the request's folder.

    Args:
        request: Which, and of what.

    Raises:
        ValueError: What was given is not what it should be.
        ResumeError: The folder has scores of something else.
        OSError: A file cannot be read, written or downloaded.
        ImportError: A figure needs matplotlib, or a data set `datasets`.
    """
    if request.out is not None:
        request.out.mkdir(parents=True, exist_ok=True)
    table = _made(request)
    if request.out is not None:
        _write(request.out, table)
    _show(table, request.style)
    return Tally(scored=table.scored, failed=table.failed)


def _made(request: Request) -> PaperTable:
    if request.name in LAYOUTS:
        return _agreement(request)
    if request.name == "table6":
        return _table6(request)
    picture = Path() if request.out is None else request.out / f"{request.name}.png"
    if request.name == "figure4":
        from ..paper.figure4 import figure4

        return figure4(picture=picture)
    return _figure5(request, picture) if request.name == "figure5" else _figure6(request, picture)


def _agreement(request: Request) -> PaperTable:
    """Tables 1 to 5."""
    # These bring what only they need.
    from ..paper.ablations import Ablations
    from ..paper.agreement import agreement_table

    layout = LAYOUTS[request.name]
    ablations = None if request.ablations is None else Ablations(request.ablations)
    sources = Sources(
        splits={dataset: _split(request, dataset) for dataset in layout.datasets},
        models=request.models(),
        ablations=ablations,
        download=request.download,
        device=request.device,
        dtype=request.dtype,
        batch_size=request.batch_size,
        scores=None if request.out is None else request.out / "scores",
    )
    _tell(request.name, needs(layout, sources))
    try:
        return agreement_table(layout, sources)
    except KeyboardInterrupt:
        if sources.scores is not None:
            log.print(f"scores are kept in {sources.scores}: the same command goes on there")
        raise


def _split(request: Request, dataset: str) -> Split | str:
    """A test split of what was given, or what to give for it; the laboratory's without any."""
    given = {
        HPDV2: (request.hpdv2, request.hpdv2_images),
        IMAGEREWARD: (request.imagereward, request.imagereward_images),
    }
    source, images = given[dataset]
    if source is not None:
        return official_split(dataset, Place(source, images))
    if request.download:
        return hub_split(dataset)
    if request.real:
        return where(dataset)
    return lab_split(dataset, groups=request.size or SIZE, ablations=request.ablations)


def _table6(request: Request) -> PaperTable:
    from ..paper.table6 import NEEDS, table6

    _tell(request.name, NEEDS)
    scorer = request.scorer[0] if request.scorer else None
    if len(request.scorer) > 1:
        msg = f"table6 is by one scorer, got {', '.join(request.scorer)}"
        raise ValueError(msg)
    if request.run:
        tables = [read_table(folder) for folder in request.run]
        return table6(tables, scorer=scorer, names=request.given)
    with _drawn(request, [scorer or BUNDLED]) as (table, _):
        return table6([table])


def _figure5(request: Request, picture: Path) -> PaperTable:
    from ..paper.figure5 import NEEDS, figure5

    _tell(request.name, NEEDS)
    if request.run:
        table = joined([read_table(folder) for folder in request.run])
        return figure5(table, scorers=request.scorer, picture=picture)
    with _drawn(request, request.scorer or (BUNDLED, ORACLE)) as (table, _):
        return figure5(table, picture=picture)


def _figure6(request: Request, picture: Path) -> PaperTable:
    from ..paper.figure6 import NEEDS, figure6

    _tell(request.name, NEEDS)
    shown = request.size or SHOWN
    if len(request.run) > 1:
        msg = f"figure6 is of one run, got {len(request.run)}"
        raise ValueError(msg)
    for folder in request.run:
        table = read_table(folder)
        return figure6(table, folder, scorers=request.scorer, prompts=shown, picture=picture)
    with _drawn(
        request, request.scorer or (BUNDLED, ORACLE),
        generators=[GENERATOR], prompts=shown, images=CANDIDATES,
    ) as (table, folder):  # fmt: skip
        return figure6(table, folder, prompts=shown, picture=picture)


@contextmanager
def _drawn(
    request: Request,
    scorers: Iterable[str],
    *,
    generators: Iterable[str] | None = None,
    prompts: int | None = None,
    images: int = 1,
) -> Iterator[tuple[ScoreTable, Path]]:
    """The laboratory's run and its folder, which stays where one was named."""
    judges = load_judges(list(scorers), device=request.device, dtype=request.dtype)
    log.print("no --run: the laboratory stands in")
    with TemporaryDirectory() as nowhere:
        folder = Path(nowhere) if request.out is None else request.out / f"{request.name}-lab"
        table = drawn_run(
            folder,
            judges,
            generators=list(GENERATORS if generators is None else generators),
            prompts=prompts or request.size or SIZE,
            images=images,
        )
        yield table, folder / RUN


def _tell(name: str, told: Iterable[str]) -> None:
    log.print(f"{name} needs")
    for need in told:
        log.print(f"  {need}")


def _write(folder: Path, table: PaperTable) -> None:
    """Each file appears whole or not at all, the JSON file last."""
    texts = {
        f"{table.name}.csv": table.sheet().csv(),
        f"{table.name}.md": table.markdown(),
        f"{table.name}.json": json.dumps(table.as_dict(), indent=1) + "\n",
    }
    for name, text in texts.items():
        with replacing(folder / name) as staging:
            staging.write_text(text, encoding="utf-8")
    log.print(f"wrote {', '.join((*table.figures, *texts))} in {folder}")


def _show(table: PaperTable, style: str) -> None:
    if style == "json":
        print(json.dumps(table.as_dict(), indent=1))
    elif style == "markdown":
        print(table.markdown(), end="")
    else:
        print_table(table.sheet().table())
        for note in table.notes:
            print(f"- {note}")
