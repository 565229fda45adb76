"""`stablepref label`: a local page on which people choose between pictures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stablepref.cli.ends import say
from stablepref.cli.options import Device, Dtype, ScorerOptions, Threads


def label(
    *,
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Folders of pictures, such as one for each model."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The .jsonl file of answers; run the same command to continue it."
        ),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="A list of prompts, whose places or ids the pictures are named after (00012.png, "
            "00012-1.png), or a manifest with an image and its prompt in each row."
        ),
    ] = None,
    prompt_from: Annotated[
        Literal["caption", "metadata"] | None,
        typer.Option(help="In place of --prompts: each picture's own prompt, as for `score`."),
    ] = None,
    show: Annotated[
        Literal["pairs", "groups"],
        typer.Option(help="All pairs of a prompt's pictures, or up to nine of them at once."),
    ] = "pairs",
    scorer: Annotated[
        str | None,
        typer.Option(
            "--scorer",
            "--model",
            "-s",
            "-m",
            help="The current scorer, as for `score`: what it is least sure of is asked first.",
            show_default="random order",
        ),
    ] = None,
    questions: Annotated[
        int | None, typer.Option(min=1, help="Ask only the first so many; all by default.")
    ] = None,
    annotators: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many annotators answer each question; by default everybody all of them.",
        ),
    ] = None,
    repeats: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of questions asked a second time, for self-agreement."
        ),
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the order, the sides and the repeats.")] = 0,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen at; for others than this machine's own, "
            "browsers need the key that is printed."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8010,
    browser: Annotated[
        bool, typer.Option("--open", help="Open the page in this machine's browser.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Show pictures on a local page, and write down which ones people prefer."""
    options = None
    if scorer is not None:
        options = ScorerOptions(scorer, device=device, dtype=dtype, threads=threads)
    if out.suffix.lower() != ".jsonl":
        msg = f"--out {out}: answers are JSON Lines; expected a name such as answers.jsonl"
        raise ValueError(msg)

    try:
        from ..label.run import run
    except ImportError as error:
        msg = f"labelling needs FastAPI and uvicorn: pip install 'stablepref[label]' ({error})"
        raise ImportError(msg) from error

    from stablepref.evaluation.label_agreement import label_agreement
    from stablepref.output.locks import sole_writer
    from stablepref.output.results import check_input, check_place
    from stablepref.output.tables import print_table

    from ..label.journal import Journal
    from ..label.questions import least_sure_first, make_questions, read_pictures
    from ..label.session import Session
    from ..serve.address import check_address

    check_place("--out", out)
    check_input("--out", out, [] if prompts is None else [prompts])
    asked = make_questions(read_pictures(folders, prompts, prompt_from), show, seed=seed)
    with sole_writer(out):
        journal = Journal(out)
        if options is not None:
            check_address(host, port)  # before minutes are spent on scores
            asked, failed = least_sure_first(asked, options.load())
            for path, reason in failed.items():
                say(f"{path}: {reason}")
        session = Session(
            asked[:questions], journal, repeats=repeats, annotators=annotators, seed=seed
        )
        if journal.labels:
            say(f"{out} has {len(journal.labels)} answers already; they stay")

        def ready(address: str) -> None:
            say(f"{len(session.questions)} questions at {address} (Ctrl-C ends)")
            if browser:
                import webbrowser

                webbrowser.open(address)

        run(session, host=host, port=port, ready=ready)
        if journal.labels:
            for table in label_agreement(list(journal.labels.values())).tables():
                if table.rows:
                    print_table(table)
        say(f"{len(journal.labels)} answers are in {out}")
