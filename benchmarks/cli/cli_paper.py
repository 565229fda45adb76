"""`stablepref bench paper`: the tables and figures of the paper, its numbers beside ours."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.cli_options import AsJson, BatchSize, Device, Dtype
from stablepref.cli.ends import finish, reported


@reported
def paper(  # noqa: PLR0913, PLR0917 (the arguments of a command are its options)
    item: Annotated[
        str, typer.Argument(help="table1 to table6, figure4, figure5 or figure6.", metavar="ITEM")
    ],
    hpdv2: Annotated[
        Path | None,
        typer.Option(help="Tables 1 to 5: HPD v2's test.json, or the folder with it."),
    ] = None,
    hpdv2_images: Annotated[
        Path | None, typer.Option(help="Where its image paths start; by default beside the file.")
    ] = None,
    imagereward: Annotated[
        Path | None,
        typer.Option(help="Tables 1 to 5: ImageReward's test.json, or the folder with it."),
    ] = None,
    imagereward_images: Annotated[Path | None, typer.Option(help="Likewise.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="ROW=PATH, several times: weights of a row of Tables 1 to 5, such as "
            "sp-clip-h=run/best; of Table 6 what the runs call a row.",
        ),
    ] = None,
    ablations: Annotated[
        Path | None,
        typer.Option(help="Tables 1 to 5 in the laboratory: a finished run of its ablations."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Tables 1 to 5: fetch data and weights that are not here."),
    ] = False,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run", help="Table 6, Figures 5 and 6: a folder of `stablepref bench`; several times."
        ),
    ] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            "-s",
            help="Of the runs, several times; without --run what the laboratory is scored with.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Groups or prompts of the laboratory (100); prompts of Figure 6 (4)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for files; after a kill the same command goes on there."
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Make a table or figure of Stable Preference, on real data or in the laboratory."""
    if as_json and as_markdown:
        msg = "one of --json, --markdown, not both"
        raise ValueError(msg)
    # Checked before the next import, which brings torch.
    request = import_module("stablepref.benchmarks.paper.request").Request(
        name=item,
        out=out,
        style="json" if as_json else "markdown" if as_markdown else "table",
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
    finish(import_module("stablepref.benchmarks.cli.paper").paper(request))
