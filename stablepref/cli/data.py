"""`stablepref data`: preference data checked before it is used, and how its annotators agree."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.ends import NOTHING_DONE, SOME_FAILED, say
from stablepref.cli.options import GROUPS, AsJson, Format, ImageFolder

app = typer.Typer(no_args_is_help=True, help="Check preference data before training or evaluation.")


@app.command()
def check(
    paths: Annotated[
        list[str],
        typer.Argument(help=f"{GROUPS} Several are taken as splits of one data set."),
    ],
    split: Annotated[
        list[str] | None,
        typer.Option(help="A split of a source that holds several; may be given several times."),
    ] = None,
    data_format: Format = "auto",
    images: ImageFolder = None,
    examples: Annotated[int, typer.Option(min=0, help="Groups shown of each split.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode images.")] = 8,
    as_json: AsJson = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with the images of the examples.")
    ] = None,
) -> None:
    """Decode every image, count groups, pairs and ties, and find faults and leaks."""
    from stablepref.data.check import check_data
    from stablepref.output.results import check_input, check_place

    if split and len(paths) > 1:
        msg = f"--split names splits of one source, and there are {len(paths)}"
        raise ValueError(msg)
    if html is not None:
        check_place("--html", html)
        check_input("--html", html, paths)
    report = check_data(
        dict.fromkeys(split, paths[0]) if split else _named(paths),
        data_format,
        images=images,
        select=bool(split),
        examples=examples,
        workers=workers,
    )
    print(json.dumps(report.as_dict(), indent=1) if as_json else "\n".join(report.lines()))
    if html is not None:
        from stablepref.data.report import write_examples

        write_examples(html, report)
        say(f"wrote {html}")
    if not report.clean:
        usable = any(split.usable_groups for split in report.splits)
        raise typer.Exit(SOME_FAILED if usable else NOTHING_DONE)


@app.command()
def agreement(
    answers: Annotated[Path, typer.Argument(help="A file that `stablepref label` wrote.")],
    resamples: Annotated[int, typer.Option(min=1, help="Of the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How steady annotators are, and how well they agree with each other."""
    from stablepref.data.labels import read_labels
    from stablepref.evaluation.label_agreement import label_agreement
    from stablepref.output.tables import print_table

    found = label_agreement(read_labels(answers))
    if as_json:
        print(json.dumps(found.as_dict(resamples=resamples, seed=seed), indent=1))
        return
    for table in found.tables(resamples=resamples, seed=seed):
        if table.rows:
            print_table(table)


def _named(paths: Sequence[str]) -> dict[str, str]:
    """The sources by their file's name without suffix, or as typed where two share a name."""
    names = [Path(path).stem for path in paths]
    if len(set(names)) < len(names):
        names = list(paths)
    if len(set(names)) < len(names):
        msg = f"a source is given twice: {', '.join(paths)}"
        raise ValueError(msg)
    return dict(zip(names, paths, strict=True))
