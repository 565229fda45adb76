"""`stablepref bench paper`: the tables and figures of the paper, its numbers beside ours."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stablepref.cli.ends import Tally, finish, say
from stablepref.cli.options import AsJson, AsMarkdown, BatchSize, Device, Dtype, chosen

from ..paper.layouts import LAYOUTS
from ..paper.numbers import HPDV2, IMAGEREWARD
from ..paper.request import SHOWN, SIZE, Request

if TYPE_CHECKING:
    from ..bench.score_table import ScoreTable
    from ..paper.data import Split
    from ..paper.table import PaperTable

LAB_SCORERS: Final = ("shapes", "oracle")
"""Scorers of the laboratory's runs, the bundled model first."""
CANDIDATES: Final = 100
"""Images of each prompt of Figure 6."""
GENERATOR: Final = "level-6"
"""Whose images the laboratory's Figure 6 chooses among: good and bad ones."""


def paper(
    item: Annotated[
        str, typer.Argument(help="table1 to table6, figure4, figure5 or figure6.", metavar="ITEM")
    ],
    hpdv2: Annotated[
        Path | None,
        typer.Option(help="Tables 1 to 5: HPD v2's test.json, or the folder with it."),
    ] = None,
    hpdv2_images: Annotated[
        Path | None,
        typer.Option(help="Folder that its image paths start from; by default the file's own."),
    ] = None,
    imagereward: Annotated[
        Path | None,
        typer.Option(help="Tables 1 to 5: ImageReward's test.json, or the folder with it."),
    ] = None,
    imagereward_images: Annotated[
        Path | None,
        typer.Option(help="Folder that its image paths start from; by default the file's own."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="ROW=PATH, once for each row: the weights of a row of Tables 1 to 5, such as "
            "sp-clip-h=run/best; for Table 6 ROW=NAME, the model's name in the runs.",
        ),
    ] = None,
    ablations: Annotated[
        Path | None,
        typer.Option(help="Tables 1 to 5 in the laboratory: a finished run of its ablations."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Tables 1 to 5: download missing data and weights."),
    ] = False,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            help="Table 6, Figures 5 and 6: the folder of a run of `stablepref bench`; may be "
            "given several times.",
        ),
    ] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            "-s",
            help="Which scorer of the runs, or, without --run, what to score the laboratory's "
            "images with; may be given several times.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Groups or prompts of the laboratory (by default 100); prompts in Figure 6 (4).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the files; if interrupted, run the same command again to resume.",
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """Make a table or figure of Stable Preference, on real data or in the laboratory."""
    request = Request(
        name=item,
        out=out,
        style=chosen(json=as_json, markdown=as_markdown) or "table",
        hpdv2=hpdv2,
        hpdv2_images=hpdv2_images,
        imagereward=imagereward,
        imagereward_images=imagereward_images,
        model=tuple(model or ()),
        ablations=ablations,
        download=download,
        run=tuple(run or ()),
        scorer=tuple(scorer or ()),
        size=size,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
    )
    if out is None:
        table = _made(request)
    else:
        from stablepref.output.locks import sole_writer

        with sole_writer(out, folder=True):
            table = _made(request)
            _write(out, table)
    _show(table, request.style)
    finish(Tally(scored=table.scored, failed=table.failed))


def _made(request: Request) -> "PaperTable":
    if request.name in LAYOUTS:
        return _agreement(request)
    if request.name == "table6":
        return _table6(request)
    picture = Path() if request.out is None else request.out / f"{request.name}.png"
    if request.name == "figure4":
        from ..paper.figure4 import figure4

        return figure4(picture=picture)
    return _figure5(request, picture) if request.name == "figure5" else _figure6(request, picture)


def _agreement(request: Request) -> "PaperTable":
    """Tables 1 to 5."""
    from ..paper.ablations import Ablations
    from ..paper.agreement import agreement_table
    from ..paper.sources import Sources, needs

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
    _say_needs(request.name, needs(layout, sources))
    try:
        return agreement_table(layout, sources)
    except KeyboardInterrupt:
        if sources.scores is not None:
            say(f"scores are kept in {sources.scores}: run the same command again to resume")
        raise


def _split(request: Request, dataset: str) -> "Split | str":
    """A test split of what was given, or what to give for it; the laboratory's without any."""
    from ..paper.data import Place, hub_split, lab_split, official_split, where

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


def _table6(request: Request) -> "PaperTable":
    from ..bench.score_table import read_table
    from ..paper.table6 import NEEDS, table6

    _say_needs(request.name, NEEDS)
    scorer = request.scorer[0] if request.scorer else None
    if len(request.scorer) > 1:
        msg = f"table6 is by one scorer, got {', '.join(request.scorer)}"
        raise ValueError(msg)
    if request.run:
        tables = [read_table(folder) for folder in request.run]
        return table6(tables, scorer=scorer, names=request.given)
    with _drawn(request, [scorer or LAB_SCORERS[0]]) as (table, _):
        return table6([table])


def _figure5(request: Request, picture: Path) -> "PaperTable":
    from ..bench.score_table import joined, read_table
    from ..paper.figure5 import NEEDS, figure5

    _say_needs(request.name, NEEDS)
    if request.run:
        table = joined([read_table(folder) for folder in request.run])
        return figure5(table, scorers=request.scorer, picture=picture)
    with _drawn(request, request.scorer or LAB_SCORERS) as (table, _):
        return figure5(table, picture=picture)


def _figure6(request: Request, picture: Path) -> "PaperTable":
    from ..bench.score_table import read_table
    from ..paper.figure6 import NEEDS, figure6

    _say_needs(request.name, NEEDS)
    shown = request.size or SHOWN
    if len(request.run) > 1:
        msg = f"figure6 is of one run, got {len(request.run)}"
        raise ValueError(msg)
    for folder in request.run:
        table = read_table(folder)
        return figure6(table, folder, scorers=request.scorer, prompts=shown, picture=picture)
    with _drawn(
        request, request.scorer or LAB_SCORERS,
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
) -> Iterator["tuple[ScoreTable, Path]"]:
    """The laboratory's run and its folder, which is kept if --out names one."""
    from ..bench.judges import load_judges
    from ..paper.drawn import RUN, drawn_run
    from ..shapes.people.generators import GENERATORS

    judges = load_judges(list(scorers), device=request.device, dtype=request.dtype)
    say("no --run is given: using a run in the laboratory instead")
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


def _say_needs(name: str, needed: Iterable[str]) -> None:
    say(f"{name} needs")
    for need in needed:
        say(f"  {need}")


def _write(folder: Path, table: "PaperTable") -> None:
    """Each file appears whole or not at all, the JSON file last."""
    from stablepref.output.durable import replacing

    texts = {
        f"{table.name}.csv": table.sheet().csv(),
        f"{table.name}.md": table.markdown(),
        f"{table.name}.json": json.dumps(table.as_dict(), indent=1) + "\n",
    }
    for name, text in texts.items():
        with replacing(folder / name) as staging:
            staging.write_text(text, encoding="utf-8")
    say(f"wrote {', '.join((*table.figures, *texts))} in {folder}")


def _show(table: "PaperTable", style: str) -> None:
    from stablepref.output.tables import print_table

    if style == "json":
        print(json.dumps(table.as_dict(), indent=1))
    elif style == "markdown":
        print(table.markdown(), end="")
    else:
        print_table(table.sheet())
        for note in table.notes:
            print(f"- {note}")
