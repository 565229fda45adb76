"""`stablepref serve`: scorers behind HTTP."""

import os
from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.options import Device, Dtype
from stablepref.models.registry import check_dtype, check_model, model_name

from ..serve.settings import PROTOCOLS, USUAL, ServeSettings

TOKEN_VARIABLE = "STABLEPREF_TOKEN"


def serve(
    *,
    models: Annotated[
        list[str],
        typer.Argument(
            help="What to serve: names of `stablepref models`, folders, hf-hub:user/repo; each may "
            "be given as NAME=MODEL, and is then called NAME by clients."
        ),
    ],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File whose text clients must send as their token; needed for any address that "
            "other machines can reach.",
            show_default="$STABLEPREF_TOKEN",
        ),
    ] = None,
    protocol: Annotated[
        list[str], typer.Option(help=f"A trainer's protocol: some of {', '.join(PROTOCOLS)}.")
    ] = list(USUAL),  # noqa: B006 (typer takes a copy)
    device: Device = None,
    dtype: Dtype = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Images scored at once; chosen automatically.")
    ] = None,
    max_delay: Annotated[
        float, typer.Option(min=0, help="Milliseconds for which an image waits for others.")
    ] = 5,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Requests at once; more are refused with 503.")
    ] = 256,
    max_request: Annotated[float, typer.Option(help="Megabytes of one request.")] = 64,
    max_total: Annotated[
        float, typer.Option(help="Megabytes of all requests at once; more are refused with 503.")
    ] = 2048,
    max_pixels: Annotated[float, typer.Option(help="Megapixels of one image.")] = 64,
    max_images: Annotated[int, typer.Option(min=1, help="Images of one request.")] = 1024,
    vae: Annotated[
        str | None,
        typer.Option(help="Of the protocol latents: a diffusers pipeline, by name or folder."),
    ] = None,
    allow_folder: Annotated[
        list[Path] | None,
        typer.Option(help="Let requests name image files in this folder; may be repeated."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes, each with all models; more for several CPUs.")
    ] = 1,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds for finishing accepted requests at the end.")
    ] = 60,
) -> None:
    """Serve scorers over HTTP: for `stablepref.load`, trainers, and whatever sends JSON."""
    settings = ServeSettings(
        models=tuple(models),
        device=device,
        dtype=dtype,
        host=host,
        port=port,
        token=_token(token_file),
        protocols=tuple(dict.fromkeys(protocol)),
        max_batch=max_batch,
        max_delay=max_delay / 1000,
        max_waiting=max_waiting,
        max_request_mb=max_request,
        max_total_mb=max_total,
        max_megapixels=max_pixels,
        max_images=max_images,
        vae=vae,
        folders=tuple(str(folder.resolve()) for folder in allow_folder or ()),
        workers=workers,
        grace=grace,
    )
    for _, model in settings.named_models():
        check_model(model_name(model), None)
    if dtype not in (None, "auto"):
        check_dtype(dtype)

    try:
        from ..serve.run import run
    except ImportError as error:
        msg = f"serving needs FastAPI and uvicorn: pip install 'stablepref[serve]' ({error})"
        raise ImportError(msg) from error

    run(settings)


def _token(file: Path | None) -> str | None:
    """The token of a file, or of the environment.

    Raises:
        ValueError: The file holds none.
    """
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    token = file.read_text(encoding="utf-8").strip()
    if not token or not token.isprintable():
        msg = f"{file} must hold one line of text, the token"
        raise ValueError(msg)
    return token
