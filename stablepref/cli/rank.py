"""`stablepref rank`: the images of each prompt, from best to worst."""

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
from stablepref.cli.score import outcomes, print_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stablepref.scoring.items import Item, Outcome


@with_options
def rank(
    *,
    images: Images,
    prompt: Prompt = None,
    columns: ManifestColumns,
    scorer: ScorerOptions,
    batch_size: BatchSize = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Show only this many images of each prompt.")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    spreadsheet: Spreadsheet = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page that shows the images in order.")
    ] = None,
) -> None:
    """Order images from best to worst for a prompt, or for each prompt of a manifest."""
    style = chosen(json=as_json, csv=as_csv)
    check_spreadsheet(spreadsheet, style)

    from stablepref.output.results import check_input, check_place

    items = columns.read(images, prompt, needed=scorer.needs_prompt)
    if html is not None:
        check_place("--html", html)
        check_input("--html", html, images)
        items = _not_written("--html", html, items)
    loaded = scorer.load()
    tally = Tally()
    ranked: dict[str, list[Outcome]] = {}
    failed: list[Outcome] = []
    for outcome in outcomes(
        loaded, items, images, tally, batch_size=batch_size, views=scorer.views
    ):
        kept = outcome if html is not None else outcome.without_image()
        if kept.score is None:
            failed.append(kept)
        else:
            ranked.setdefault(kept.item.prompt or "", []).append(kept)
    for text, group in ranked.items():
        ranked[text] = sorted(group, key=lambda o: -(o.score or 0.0))[:top]
    from stablepref.scoring.page import tied_first

    ties = {id(one) for group in ranked.values() for one in group[: tied_first(group)]}
    placed: list[tuple[int | None, Outcome]] = [
        pair for group in ranked.values() for pair in enumerate(group, start=1)
    ]
    if top is None:
        placed += [(None, outcome) for outcome in failed]
    views, uncertain = scorer.views > 0, loaded.predicts_uncertainty
    rows = [
        {"rank": place}
        | outcome.row(views=views, uncertain=uncertain)
        | ({"tie": id(outcome) in ties} if views else {})
        for place, outcome in placed
    ]
    print_rows(rows, loaded, style, spreadsheet=spreadsheet)
    if html is not None:
        from stablepref.scoring.page import write_page

        write_page(html, ranked, failed, model=loaded.name, unit=loaded.unit)
        say(f"wrote {html}")
    finish(tally)


def _not_written(option: str, path: Path, items: "Iterator[Item]") -> "Iterator[Item]":
    """The items as they come, from folders, patterns and manifests too.

    Raises:
        ValueError: One of them is the output.
    """
    from stablepref.output.results import check_input

    for item in items:
        check_input(option, path, [item.image])
        yield item
