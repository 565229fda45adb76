"""Options that several commands share, each declared once; needs no torch."""

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    final,
    get_type_hints,
)

import typer

from stablepref.cli.ends import say
from stablepref.models.registry import check_dtype, check_model, model_name, needs_prompt

if TYPE_CHECKING:
    from stablepref.scorer import Scorer
    from stablepref.scoring.items import Item

T = TypeVar("T")
DEVICES: Final = (
    *("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "npu", "mlu", "musa", "xla", "ipu", "meta"),
    "privateuseone",
)
"""Kinds of devices that torch and its extensions have."""
GROUPS: Final = (
    "Ranked groups: a .jsonl, .json, .parquet or .tar file, a folder of such files or of "
    "PROMPT/RANK.png, or hf:user/repository."
)
"""Help of an option that takes preference data."""

Images = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders, globs, URLs, or one manifest (.jsonl, .json, .csv, .tsv, .parquet) "
        "with an image and its prompt in each row.",
    ),
]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", help="The prompt of all images.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="The data set's format: imagereward, hpdv2-test, ...; auto recognises it by its keys.",
    ),
]
ImageFolder = Annotated[
    Path | None,
    typer.Option(
        "--images", help="Folder that relative image paths start from; by default it is searched."
    ),
]
Like = Annotated[
    str | None,
    typer.Option(
        help="For a checkpoint file whose name does not say what it is: the name, in `stablepref "
        "models`, of a model with the same architecture."
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cuda, cpu, ...; by default the accelerator if there is one.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Number type of the scorer: float32 (exact), bfloat16, ...; by default bfloat16 on "
        "devices with hardware for it, else float32."
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Images per batch; chosen automatically by default.")
]
PipelineName = Annotated[
    str,
    typer.Argument(
        help="A diffusers pipeline: shapes (bundled), a folder, or the name of a hub repository."
    ),
]
PipelineDtype = Annotated[
    str | None,
    typer.Option(help="Number type of the pipeline: float32 (the default), bfloat16 or float16."),
]
PipelineScheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="Another scheduler for the pipeline: ddim, ddpm, euler, euler-ancestral, dpm++, "
        "unipc, lcm, or flow-euler for flow matching.",
        show_default="the pipeline's own",
    ),
]
SafetyChecker = Annotated[
    bool,
    typer.Option(
        "--safety-checker/--no-safety-checker",
        help="Load the pipeline's safety checker, if it has one; fine-tuning refuses it, as it "
        "blanks pictures.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Threads that torch computes with on the CPU; by default one for small models and "
        "torch's own number for others.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Spreadsheet = Annotated[
    bool,
    typer.Option(
        "--spreadsheet",
        help="With --csv, for a spreadsheet: texts that it would run as a formula get an "
        "apostrophe in front.",
    ),
]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown.")]


FORMER_SCORER: Final = typer.Option("--model", "-m", hidden=True)
"""What `--scorer` was called where a scorer is meant; for one release more."""


def renamed_scorer(given: T | None, former: T | None) -> T | None:
    """The scorer that was typed, with a note where it was by its former name.

    Raises:
        ValueError: It was typed by both names.
    """
    if not former:
        return given
    if given:
        msg = "--model is the former name of --scorer: leave it out"
        raise ValueError(msg)
    say("note: the scorer is chosen by --scorer (-s) now; --model (-m) ends with the next release")
    return former


@final
@dataclass(frozen=True)
class ScorerOptions:
    """Which scorer, and how it runs, as typed.

    Raises:
        ValueError: The model, the device or the number type is unknown; found without torch.
    """

    name: Annotated[
        str | None,
        typer.Option(
            "--scorer",
            "-s",
            help="A name from `stablepref models`, a folder, an official file, hf-hub:user/repo, "
            "a server's http://host:port/model, or judge:MODEL@URL.",
            show_default="$STABLEPREF_MODEL, else hps-v2.1",
        ),
    ] = None
    like: Like = None
    device: Device = None
    dtype: Dtype = None
    views: Annotated[
        int,
        typer.Option(
            min=0, help="Average each score over this many weak views too, and report their spread."
        ),
    ] = 0
    threads: Threads = None
    model: Annotated[str | None, FORMER_SCORER] = None

    def __post_init__(self) -> None:
        """Check what can be checked without torch."""
        if self.model is not None:
            object.__setattr__(self, "name", renamed_scorer(self.name, self.model))
            object.__setattr__(self, "model", None)
        check_model(model_name(self.name), None if self.like is None else model_name(self.like))
        check_device(self.device)
        if self.dtype not in (None, "auto"):
            check_dtype(self.dtype)

    @property
    def needs_prompt(self) -> bool | None:
        """Whether the scores depend on prompts; None where only loading the model can tell."""
        return needs_prompt(model_name(self.name), self.like)

    def load(self) -> "Scorer":
        """The scorer, on the device that was asked for.

        Raises:
            ValueError: There is no such device, or as `stablepref.load`.
            UnavailableError: As `stablepref.load`.
        """
        from stablepref.runtime.threads import use_threads
        from stablepref.zoo import load

        use_threads(self.threads)
        try:
            return load(self.name, device=self.device, dtype=self.dtype, like=self.like)
        except (RuntimeError, AssertionError) as error:  # what torch raises for a device
            if self.device is None:
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            msg = f"--device {self.device} cannot be used here: {reason}"
            raise ValueError(msg) from error


@final
@dataclass(frozen=True)
class ManifestColumns:
    """Which columns of a manifest hold the images and the prompts, as typed."""

    image_column: Annotated[
        str | None,
        typer.Option(
            help="The manifest's column of images.", show_default="image, path, file, ..."
        ),
    ] = None
    prompt_column: Annotated[
        str | None,
        typer.Option(
            help="The manifest's column of prompts.", show_default="prompt, caption or text"
        ),
    ] = None

    prompt_from: Annotated[
        Literal["caption", "metadata"] | None,
        typer.Option(
            help="Take each image's prompt from a .txt file of its name beside it (caption), or "
            "from what AUTOMATIC1111's web interface or ComfyUI wrote into it (metadata)."
        ),
    ] = None

    def read(
        self, images: Sequence[str], prompt: str | None, *, needed: bool | None = True
    ) -> "Iterator[Item]":
        """The images that a command was given, with their prompts; see `read_items`.

        Raises:
            ValueError: As `read_items`; or one path is given, and is not there.
        """
        from stablepref.data.manifest import Columns, check_image, is_manifest, read_items

        if len(images) == 1 and not is_manifest(images[0]):  # of several, rows say what is wrong
            check_image(images[0])
        columns, own = Columns(self.image_column, self.prompt_column), self.prompt_from
        return read_items(images, prompt, columns, prompt_from=own, needed=needed is True)


@final
@dataclass(frozen=True)
class PipelineCall:
    """Arguments of a pipeline's call, as typed; None is the pipeline's own default."""

    num_inference_steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Denoising steps.")
    ] = None
    guidance_scale: Annotated[
        float | None, typer.Option("--guidance", help="Scale of classifier-free guidance.")
    ] = None
    negative_prompt: Annotated[
        str | None, typer.Option(help="What the images should not show.")
    ] = None
    height: Annotated[int | None, typer.Option(min=1, help="Height of the images in pixels.")] = (
        None
    )
    width: Annotated[int | None, typer.Option(min=1, help="Width of the images in pixels.")] = None

    def arguments(self) -> dict[str, object]:
        """Those that were given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def check_device(device: str | None) -> None:
    """Refuse what torch has no device for; whether it is here is found out by using it.

    Raises:
        ValueError: It is no such name.
    """
    if device is None or re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", device):
        return
    close = get_close_matches(device.partition(":")[0].lower(), DEVICES, n=1)
    similar = f"; did you mean {close[0]}?" if close else ""
    msg = (
        f"--device {device} cannot be used: expected cpu, cuda, cuda:1, mps, xpu or another device "
        f"of torch{similar}"
    )
    raise ValueError(msg)


def check_folder(option: str, path: Path) -> None:
    """Refuse a folder for results that cannot be one.

    Raises:
        ValueError: It, or what it would lie in, is a file.
    """
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                named = "this" if place == path else str(place)
                msg = f"{option} {path}: {named} is a file; expected a folder"
                raise ValueError(msg)
            return


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of a parameter that is a dataclass of options.

    The fields' annotations are those that typer takes; the command is called with the dataclass.
    """
    hints = get_type_hints(command, include_extras=True)
    together = {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)
    }
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in together:
            kind = together[parameter.name]
            parameters += _options(kind, get_type_hints(kind, include_extras=True))
        else:
            hint = hints[parameter.name]
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hint))

    @functools.wraps(command)
    def run(**values: object) -> None:
        for name, kind in together.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what inspect looks for
    return run


def chosen(**wanted: bool) -> str | None:
    """The one output format that was asked for, such as `json=True`; None without any.

    Raises:
        ValueError: There are several.
    """
    names = [name for name, is_wanted in wanted.items() if is_wanted]
    if len(names) > 1:
        msg = f"expected one of {', '.join(f'--{name}' for name in names)}, not several"
        raise ValueError(msg)
    return names[0] if names else None


def check_spreadsheet(spreadsheet: bool, style: str | None) -> None:
    """Refuse `--spreadsheet` without `--csv`.

    Raises:
        ValueError: There is no CSV that it could be about.
    """
    if spreadsheet and style != "csv":
        msg = "--spreadsheet is about CSV that is printed: give --csv with it"
        raise ValueError(msg)


def _options(kind: type[Any], hints: dict[str, Any]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]
