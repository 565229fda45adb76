"""Names to scorers: the loader, and scoring in one call."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, TypeVar, Unpack, cast

import torch
from accelerate import PartialState
from accelerate.state import is_initialized

from stablepref.models.catalog import ENTRIES
from stablepref.models.recognise import entry_of_file, file_of_folder
from stablepref.models.registry import (
    HUB_PREFIX,
    check_dtype,
    check_model,
    entry_of,
    is_known,
    model_name,
)
from stablepref.runtime.precision import automatic_dtype
from stablepref.scorer import Scorer
from stablepref.weights.cache import is_cached
from stablepref.weights.errors import WeightsError
from stablepref.weights.folder import CONFIG_FILE, WEIGHTS_FILE, load_folder, read_config
from stablepref.weights.hub import UnavailableError, download_folder, fetch
from stablepref.weights.network import first_line

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from stablepref.models.entry import Entry
    from stablepref.scoring.compare import Comparison
    from stablepref.scoring.contract import ScoreOptions
    from stablepref.scoring.ranking import Ranking
    from stablepref.weights.remote import RemoteFile

OPEN_CLIP_CONFIG: Final = "open_clip_config.json"
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

log = logging.getLogger(__name__)

_loaded: dict[tuple[object, ...], Scorer] = {}
_loading = threading.Lock()


class _Remembering(Protocol[P, R_co]):
    """A function that gives the same object again until `cache_clear` is called."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def cache_clear(self) -> None:
        """Forget all objects."""


def _remembering(function: Callable[P, R_co]) -> _Remembering[P, R_co]:
    """The function itself, with `cache_clear` as an attribute."""
    function.__dict__["cache_clear"] = _forget
    return cast("_Remembering[P, R_co]", function)


def _forget() -> None:
    with _loading:
        _loaded.clear()


@_remembering
def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    like: str | None = None,
    compile: bool = False,  # noqa: A002 - torch's and diffusers' word
) -> Scorer:
    """Load a reward model, ready to score; the same object again for the same arguments.

    `load.cache_clear()` forgets the loaded models, as that of `functools.lru_cache` does: their
    memory is free once nothing else holds them.

    Args:
        name_or_path: A name of `stablepref models`, a folder that `save_pretrained` wrote (or the
            weights in it), an official checkpoint file, `hf-hub:user/repo`, a model that
            `stablepref serve` holds (`http://host:port/model`), or a judge (`judge:MODEL@URL`).
            None takes `$STABLEPREF_MODEL`, or "hps-v2.1".
        device: Where to put it; None takes the accelerator if there is one, else the CPU.
        dtype: Of the encoders' weights. None or "auto" is torch.bfloat16 where the device has
            units that multiply it (CPUs with AMX or AVX-512 BF16, CUDA from Ampere on), else
            torch.float32, which is exact everywhere.
        like: For a checkpoint file whose name does not tell: the zoo name whose architecture and
            protocol it has, or `open_clip:NAME`.
        compile: Compile the image encoder with `torch.compile`: the first batches take a minute or
            more, later ones less time.

    Raises:
        TypeError: It is neither a text nor a path.
        ValueError: The name or the number type is unknown, and the message lists the known ones; or
            the device holds no numbers.
        RuntimeError: There is no such device here.
        UnavailableError: The weights are not here and cannot be downloaded.
        WeightsError: A file is truncated, foreign, or does not fit.
    """
    name = model_name(name_or_path)
    like = None if like is None else model_name(like)
    check_model(name, like)
    place = _device(device)
    automatic = dtype in (None, "auto")
    chosen = automatic_dtype(place) if automatic else getattr(torch, check_dtype(dtype))
    key = (_identity(name), str(place), chosen, like, compile)
    with _loading:
        if key not in _loaded:
            # Whatever torch's default device is, and under autocast too.
            with torch.device("cpu"), torch.autocast("cpu", enabled=False):
                scorer = _read(name, like)
            scorer = scorer.to(device=place, dtype=chosen)
            log.info("loaded %s on %s in %s", name, place, str(chosen).removeprefix("torch."))
            if compile:
                scorer.compile_images()
            _loaded[key] = scorer
        return _loaded[key]


def score(
    images: object,
    prompt: str | Iterable[str | None] | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    **options: Unpack[ScoreOptions],
) -> Tensor:
    """Score images against a prompt: `load(model)` and its `Scorer.score`, `(n,)` float32."""
    return load(model, device=device, dtype=dtype).score(images, prompt, **options)


def rank(
    images: object,
    prompt: str | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    **options: Unpack[ScoreOptions],
) -> Ranking:
    """Images from best to worst: `load(model)` and its `Scorer.rank`."""
    return load(model, device=device, dtype=dtype).rank(images, prompt, **options)


def compare(
    a: object,
    b: object,
    prompt: str | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    views: int = 0,
) -> Comparison:
    """The preferred of two images, or a tie: `load(model)` and its `Scorer.compare`."""
    return load(model, device=device, dtype=dtype).compare(a, b, prompt, views=views)


def _read(name: str, like: str | None) -> Scorer:
    """The scorer on the CPU, in the dtype of its file."""
    if name.startswith(HUB_PREFIX):
        return load_folder(_hub_folder(name.removeprefix(HUB_PREFIX)), Scorer.of_kind)
    path = Path(name)
    if is_known(name) and like is None:
        return _read_entry(entry_of(name))
    if path.is_dir():
        if like is None and _is_saved(path):
            return load_folder(path, Scorer.of_kind)
        if like is None and (path / OPEN_CLIP_CONFIG).is_file():
            return _read_entry(entry_of(f"open_clip:{path}"))
        path = _official_file(path, like)
    return _read_file(path, like)


def _official_file(folder: Path, like: str | None) -> Path:
    """The official file in a folder without a saved scorer, or an error that says what it lacks."""
    try:
        return file_of_folder(folder, like)
    except WeightsError as error:
        if like is not None or not (folder / CONFIG_FILE).is_file():
            raise
        try:
            read_config(folder, Scorer.of_kind)
        except WeightsError as saved:  # a saved scorer that is damaged, or another library's model
            raise WeightsError(f"{saved}. {error}") from error
        raise


def _read_entry(entry: Entry) -> Scorer:
    try:
        files = [fetch(file, model=entry.name, page=entry.page) for file in entry.files]
    except UnavailableError as error:
        msg = f"{error}. {_loadable()}"
        raise UnavailableError(msg) from error
    return _built(entry, files)


def _built(entry: Entry, files: Sequence[Path]) -> Scorer:
    scorer = entry.build(files)
    if not isinstance(scorer, Scorer):
        msg = (
            f"the builder of the scorer {entry.name!r} returned a {type(scorer).__name__}; "
            "expected a stablepref.Scorer, such as stablepref.FunctionScorer"
        )
        raise TypeError(msg)
    return scorer


def _hub_folder(repository: str) -> Path:
    try:
        return download_folder(repository, Scorer.of_kind)
    except OSError as error:  # no network, no such repository, a full disk
        msg = f"cannot download {HUB_PREFIX}{repository} ({first_line(error)}). {_loadable()}"
        raise UnavailableError(msg) from error


def _loadable() -> str:
    """What can be loaded without a download, for messages."""
    here = ", ".join(f'stablepref.load("{e.name}")' for e in ENTRIES if is_cached(e.files))
    return (
        f"Loadable here: {here}, a local path; the environment variable STABLEPREF_MODEL sets the "
        "default"
    )


def _read_file(path: Path, like: str | None) -> Scorer:
    """An official file outside the cache; others it needs lie beside it, in the cache or hub."""
    if like is None and path.name == WEIGHTS_FILE and _is_saved(path.parent):
        return load_folder(path.parent, Scorer.of_kind)
    known = entry_of_file(path) if like is None else entry_of(like)
    if known is None:
        msg = (
            f"cannot tell which model {path} is from its name: pass like= with one of "
            f"{', '.join(e.name for e in ENTRIES if e.files)}"
        )
        raise ValueError(msg)
    entry = entry_of(known.name)  # which may have been registered anew
    rest = [
        _beside(path, file) or fetch(file, model=entry.name, page=entry.page)
        for file in entry.files[1:]
    ]
    return _built(entry, [path, *rest])


def _is_saved(folder: Path) -> bool:
    """Whether `save_pretrained` wrote the folder; PickScore's weights bear the same name."""
    try:
        read_config(folder, Scorer.of_kind)
    except WeightsError:
        return False
    return True


def _beside(path: Path, file: RemoteFile) -> Path | None:
    """The file, under any of its names, in the folder that `path` is in, if it is there."""
    return next(filter(Path.is_file, map(path.with_name, file.names)), None)


def _device(device: str | torch.device | None) -> torch.device:
    """The device in full, so that two names of one, such as "cuda" and "cuda:0", are one."""
    place = _default_device() if device is None else torch.device(device)
    if place.type == "meta":
        msg = 'the device "meta" holds no numbers; pass one that computes, such as "cpu" or "cuda"'
        raise ValueError(msg)
    return torch.empty(0, device=place).device


def _default_device() -> torch.device:
    """Under accelerate this process's device, else the accelerator, else the CPU."""
    if is_initialized():
        return PartialState().device
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _identity(name: str) -> tuple[object, ...]:
    """The name, and for files what tells a new version of them from the old."""
    path = Path(name)
    if is_known(name) or not path.exists():
        return (name,)
    marker = path / "model.safetensors" if path.is_dir() else path
    stat = marker.stat() if marker.exists() else path.stat()
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size
