"""`stablepref score`: a score for every image, printed or written as it comes."""

import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stablepref.cli.ends import Tally, finish, say
from stablepref.cli.options import (
    AsCsv,
    AsJson,
    BatchSize,
    Images,
    ManifestColumns,
    Prompt,
    ScorerOptions,
    Spreadsheet,
    check_spreadsheet,
    chosen,
    with_options,
)

if TYPE_CHECKING:
    from stablepref.output.results import ResultsFile
    from stablepref.scorer import Scorer
    from stablepref.scoring.items import Item, Outcome


@with_options
def score(
    *,
    images: Images,
    prompt: Prompt = None,
    columns: ManifestColumns,
    scorer: ScorerOptions,
    batch_size: BatchSize = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    spreadsheet: Spreadsheet = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write a .jsonl, .json or .csv file; if interrupted, run the same command again "
            "to resume."
        ),
    ] = None,
) -> None:
    """Score images against a prompt, or each row of a manifest against its own."""
    if out is not None and (as_json or as_csv):
        msg = "--out takes the format from the file's name: leave --json and --csv out"
        raise ValueError(msg)
    style = chosen(json=as_json, csv=as_csv)
    check_spreadsheet(spreadsheet, style)
    tally = Tally()
    if out is not None:
        from stablepref.output.locks import sole_writer
        from stablepref.output.results import ResultsFile, check_input

        file = ResultsFile(out)
        check_input("--out", out, images)
        with sole_writer(out):  # before the input is begun, which may be a pipe
            items = columns.read(images, prompt, needed=scorer.needs_prompt)
            _score_to_file(file, items, images, scorer, tally, batch_size)
    else:
        items = columns.read(images, prompt, needed=scorer.needs_prompt)
        loaded = scorer.load()
        scored = outcomes(loaded, items, images, tally, batch_size=batch_size, views=scorer.views)
        with closing(scored):
            shown = {"views": scorer.views > 0, "uncertain": loaded.predicts_uncertainty}
            rows = (outcome.row(**shown) for outcome in scored)
            print_rows(rows, loaded, style, spreadsheet=spreadsheet)
    finish(tally)


def outcomes(
    scorer: "Scorer",
    items: "Iterator[Item]",
    images: Sequence[str],
    tally: Tally,
    *,
    batch_size: int | None,
    views: int,
    done: int = 0,
) -> "Generator[Outcome]":
    """Scores under a progress bar; what is wrong with an item goes to standard error at once.

    Args:
        scorer: The model.
        items: What to score.
        images: The command's arguments, for the length of the progress bar.
        tally: Counts the items.
        batch_size: Images per batch; None chooses it.
        views: Weak views that each score is averaged over too.
        done: Items at the beginning that are scored already.
    """
    from stablepref.data.manifest import count_items
    from stablepref.output.progress import progress_bar
    from stablepref.scoring.items import score_items

    total = count_items(images)
    with progress_bar("scoring", total=total and total - done) as advance:
        for outcome in score_items(scorer, items, start=done, batch_size=batch_size, views=views):
            if outcome.error is None:
                tally.scored += 1
            else:
                tally.failed += 1
                say(f"{outcome.item.name}: {outcome.error}")
            yield outcome
            advance(1)


def print_rows(
    rows: Iterable[dict[str, object]],
    scorer: "Scorer",
    style: str | None,
    *,
    spreadsheet: bool = False,
) -> None:
    """Print results: None is a table, else "json" or "csv", which may be for a spreadsheet."""
    from stablepref.output.results import results_table, write_rows
    from stablepref.output.tables import print_table

    if style is None:
        print_table(results_table(list(rows), title=f"{scorer.name}: {scorer.unit}"))
    else:
        write_rows(rows, sys.stdout, f".{style}", spreadsheet=spreadsheet)


def _score_to_file(
    file: "ResultsFile",
    items: "Iterator[Item]",
    images: Sequence[str],
    options: ScorerOptions,
    tally: Tally,
    batch_size: int | None,
) -> None:
    """Write the file, or find that it is there."""
    there = file.path.exists()
    if there:
        file.check_finished(_identities(items))
    scorer = options.load()

    from stablepref.weights.fingerprint import weights_digest

    settings = {
        "model": scorer.name,
        "weights": weights_digest(scorer),
        "dtype": str(scorer.dtype).removeprefix("torch."),
        "views": options.views,
    }
    if there:
        done, tally.failed = file.finished(settings)
        tally.scored = done - tally.failed
        say(f"{file.path} is complete: nothing to do")
        return
    done, tally.failed = file.resume(settings, _identities(items))
    tally.scored = done - tally.failed
    if done:
        say(f"{file.partial.path} has {done} results already; resuming after them")
    try:
        with file.writing() as write:
            for outcome in outcomes(
                scorer, items, images, tally, batch_size=batch_size, views=options.views, done=done
            ):
                write(outcome.row(views=options.views > 0, uncertain=scorer.predicts_uncertainty))
    except KeyboardInterrupt:
        say(
            f"{file.partial.kept()} results are kept in {file.partial.path}: "
            "run the same command again to resume"
        )
        raise
    say(f"wrote {file.path}")


def _identities(items: "Iterable[Item]") -> "Iterator[dict[str, object]]":
    return ({"image": item.name, "prompt": item.prompt} for item in items)
