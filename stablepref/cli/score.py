"""What the commands do, once the command line is parsed."""

from __future__ import annotations

import json
import math
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, final

from rich.console import Console

import stablepref
from stablepref.models.catalog import ENTRIES
from stablepref.models.modelnames import check_dtype, check_model, model_name
from stablepref.output.progress import progress_bar
from stablepref.output.results import (
    ResultsFile,
    check_input,
    check_place,
    results_table,
    write_rows,
)
from stablepref.output.tables import Table, print_table
from stablepref.scoring.items import Outcome, count_items, read_items, score_items

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stablepref.models.catalog import Entry
    from stablepref.scorer import Scorer
    from stablepref.scoring.manifest import Item

log = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


@final
@dataclass(frozen=True)
class Options:
    """The options that `score`, `rank` and `compare` share, as typed.

    Raises:
        ValueError: The model or the number type is unknown; found without torch.
    """

    model: str | None
    like: str | None
    device: str | None
    dtype: str | None
    views: int
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without torch."""
        check_model(model_name(self.model), self.like)
        if self.dtype not in (None, "auto"):
            check_dtype(self.dtype)

    def load(self) -> Scorer:
        """The model, where it was asked for.

        Raises:
            ValueError: There is no such device, or as `stablepref.load`.
            UnavailableError: As `stablepref.load`.
        """
        try:
            return stablepref.load(self.model, device=self.device, dtype=self.dtype, like=self.like)
        except (RuntimeError, AssertionError) as error:  # what torch raises for a device
            if self.device is None:
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            msg = f"--device {self.device} cannot be used here: {reason}"
            raise ValueError(msg) from error


@final
@dataclass
class Tally:
    """How many items were scored and how many could not be."""

    scored: int = 0
    failed: int = 0


def score(
    images: Sequence[str], prompt: str | None, options: Options, *, style: str, out: Path | None
) -> Tally:
    """Score every item, and print or write one row each as it comes.

    Args:
        images: Files, folders, globs, URLs or one manifest.
        prompt: For all images; None with a manifest.
        options: Model and how it runs.
        style: "table", ".json" or ".csv".
        out: Write a file in place of printing.
    """
    tally = Tally()
    if out is not None:
        _score_to_file(images, prompt, options, out, tally)
        return tally
    items = read_items(images, prompt)
    scorer = options.load()
    outcomes = _outcomes(scorer, items, images, options, tally)
    rows = (outcome.row(views=options.views > 0) for outcome in outcomes)
    with closing(outcomes):
        _print_rows(rows, scorer, style)
    return tally


def rank(
    images: Sequence[str],
    prompt: str | None,
    options: Options,
    *,
    style: str,
    top: int | None,
    html: Path | None,
) -> Tally:
    """Order the images of each prompt from best to worst.

    Args:
        images: As in `score`.
        prompt: As in `score`.
        options: As in `score`.
        style: As in `score`.
        top: Only so many of each prompt, and no failed ones.
        html: Write a page of pictures too.
    """
    tally = Tally()
    items = read_items(images, prompt)
    if html is not None:
        check_place("--html", html)
        check_input("--html", html, images)
        items = _not_written("--html", html, items)
    scorer = options.load()
    ranked: dict[str, list[Outcome]] = {}
    failed = []
    for outcome in _outcomes(scorer, items, images, options, tally):
        kept = outcome if html is not None else outcome.without_image()
        if kept.score is None or kept.item.prompt is None:
            failed.append(kept)
        else:
            ranked.setdefault(kept.item.prompt, []).append(kept)
    for text, group in ranked.items():
        ranked[text] = sorted(group, key=lambda o: -(o.score or 0.0))[:top]
    placed: list[tuple[int | None, Outcome]] = [
        pair for group in ranked.values() for pair in enumerate(group, start=1)
    ]
    if top is None:
        placed += [(None, outcome) for outcome in failed]
    rows = [{"rank": place} | outcome.row(views=options.views > 0) for place, outcome in placed]
    _print_rows(rows, scorer, style)
    if html is not None:
        page = import_module("stablepref.scoring.page")
        page.write_page(html, ranked, failed, model=scorer.name, unit=scorer.unit)
        log.print(f"wrote {html}")
    return tally


def compare(a: str, b: str, prompt: str, options: Options, *, as_json: bool) -> None:
    """Print which of two images is preferred, or that it is a tie.

    Raises:
        ValueError: An image cannot be used, or has no finite score.
    """
    scorer = options.load()
    result = scorer.compare(a, b, prompt, views=options.views)
    if not all(map(math.isfinite, result.scores)):
        msg = f"no choice between the scores {result.scores[0]} and {result.scores[1]}"
        raise ValueError(msg)
    if as_json:
        given = {"a": a, "b": b, "prompt": prompt, "model": scorer.name, "unit": scorer.unit}
        print(json.dumps(given | asdict(result), indent=1))
        return
    winner = {"a": a, "b": b}.get(result.preferred)
    print("tie: neither is preferred" if winner is None else f"preferred: {winner}")
    width = max(len(a), len(b))
    for name, value in ((a, result.scores[0]), (b, result.scores[1])):
        print(f"{name:{width}}  {value:.4f}")
    over = "more than" if winner is not None else "within"
    print(f"margin {result.margin:+.4f}, {over} the spread over weak views, {result.spread:.4f}")
    if result.probability is None:
        print(f"no probability: {result.note}")
    else:
        print(f"probability that {a} is preferred: {result.probability:.3f}")
    print(f"model {scorer.name}, {scorer.unit}")


def models(*, as_json: bool) -> None:
    """Print the models that can be loaded by name."""
    is_cached = import_module("stablepref.weights.hub").is_cached
    here: dict[str, bool] = {entry.name: is_cached(entry) for entry in ENTRIES}
    if as_json:
        print(json.dumps([asdict(e) | {"here": here[e.name]} for e in ENTRIES], indent=1))
        return
    print_table(_models_table(ENTRIES, here))
    print()
    print("here: loads without a download. More about each model: stablepref models --json")
    for test, short in _test_sets(ENTRIES).items():
        print(f"{short}: published pairwise agreement with people on {test}, in per cent")


def _models_table(entries: Sequence[Entry], here: Mapping[str, bool]) -> Table:
    """The zoo in 80 columns, with the published numbers of each test set."""
    tests = _test_sets(entries)
    names = ("name\nbackbone", "MB", "here", "unit\nprotocol", "licence", *tests.values())
    return Table(
        columns=names,
        rows=[
            (
                f"{entry.name}\n{entry.backbone}",
                str(entry.size_mb),
                here[entry.name],
                f"{entry.unit}\n{entry.protocol}",
                entry.licence,
                *(str(entry.published.get(test, "-")) for test in tests),
            )
            for entry in entries
        ],
        right=("MB", *tests.values()),
        unbroken=("MB", "here", "licence", *tests.values()),
        compact=True,
    )


def _test_sets(entries: Sequence[Entry]) -> dict[str, str]:
    """The test sets of published numbers, with the short name of each."""
    tests = dict.fromkeys(test for entry in entries for test in entry.published)
    return {test: "".join(filter(str.isupper, test)) for test in tests}


def _not_written(option: str, path: Path, items: Iterator[Item]) -> Iterator[Item]:
    """The items as they come, out of folders, patterns and manifests too.

    Raises:
        ValueError: One of them is the output.
    """
    for item in items:
        check_input(option, path, [item.image])
        yield item


def _score_to_file(
    images: Sequence[str], prompt: str | None, options: Options, out: Path, tally: Tally
) -> None:
    file = ResultsFile(out)
    check_input("--out", out, images)
    items = read_items(images, prompt)
    if out.exists():
        msg = (
            f"--out {out} is there already, and whole: delete it to score again, or choose another "
            "--out"
        )
        raise ValueError(msg)
    scorer = options.load()
    settings = {
        "model": scorer.name,
        "weights": import_module("stablepref.weights.fingerprint").weights_digest(scorer),
        "dtype": str(scorer.dtype).removeprefix("torch."),
        "views": options.views,
    }
    expected = ({"image": item.name, "prompt": item.prompt} for item in items)
    done, tally.failed = file.resume(settings, expected)
    tally.scored = done - tally.failed
    if done:
        log.print(f"{file.partial.path} has {done} results already; going on after them")
    try:
        with file.writing() as write:
            for outcome in _outcomes(scorer, items, images, options, tally, done=done):
                write(outcome.row(views=options.views > 0))
    except KeyboardInterrupt:
        log.print(
            f"{file.partial.kept()} results are kept in {file.partial.path}: "
            "the same command goes on there"
        )
        raise
    log.print(f"wrote {out}")


def _outcomes(
    scorer: Scorer,
    items: Iterator[Item],
    images: Sequence[str],
    options: Options,
    tally: Tally,
    *,
    done: int = 0,
) -> Generator[Outcome]:
    """Outcomes with a progress bar; what is wrong with an item goes to standard error at once."""
    total = count_items(images) if sys.stderr.isatty() else None
    with progress_bar("scoring", total=total and total - done) as advance:
        for outcome in score_items(
            scorer, items, start=done, batch_size=options.batch_size, views=options.views
        ):
            if outcome.error is None:
                tally.scored += 1
            else:
                tally.failed += 1
                log.print(f"{outcome.item.name}: {outcome.error}")
            yield outcome
            advance(1)


def _print_rows(rows: Iterable[dict[str, object]], scorer: Scorer, style: str) -> None:
    if style == "table":
        print_table(results_table(list(rows), title=f"{scorer.name}: {scorer.unit}"))
    else:
        write_rows(rows, sys.stdout, style)
