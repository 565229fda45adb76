"""One contender of the speed benchmark, measured in a process of its own.

    python -P contender.py JOB.json

It stands by itself, without relative imports: `run_contender` starts it with the interpreter of any
environment, for example one that has the peers but not this package. The job names the contender
and what it scores; the measurements go to the file that the job names.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import resource
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch import Tensor

    Score = Callable[[Sequence[str]], Sequence[float]]

Job = dict[str, Any]
HPS = ("hps-v2", "hps-v2.1")
IMAGEREWARD = "imagereward-v1"
ARCHITECTURES = {
    **dict.fromkeys(HPS, "ViT-H-14"),
    "clip-vit-h-14": "ViT-H-14",
    "clip-vit-l-14": "ViT-L-14-quickgelu",
}
"""What open_clip calls the architectures of models of the zoo."""


class NotOfferedError(Exception):
    """A package does not score with the model that is measured."""


def stablepref_score(job: Job, dtype: str = "auto") -> Score:
    """Ours: what `stablepref.score` does with paths; the first call loads the weights."""
    from stablepref import load  # noqa: PLC0415 (peers' environments need not have it)

    def run(paths: Sequence[str]) -> list[float]:
        scorer = load(job["weights"], like=_like(job), device=job["device"], dtype=dtype)
        options = {"batch_size": job["batch_size"], "progress": False}
        scores: Tensor = scorer.score(list(paths), job["prompt"], **options)
        return scores.tolist()

    return run


def stablepref_compiled(job: Job) -> Score:
    """Ours with `compile=True`; the first call loads, the first batch of each size compiles."""
    from stablepref import load  # noqa: PLC0415 (peers' environments need not have it)

    def run(paths: Sequence[str]) -> list[float]:
        scorer = load(job["weights"], like=_like(job), device=job["device"], compile=True)
        options = {"batch_size": job["batch_size"], "progress": False}
        scores: Tensor = scorer.score(list(paths), job["prompt"], **options)
        return scores.tolist()

    return run


def hpsv2_score(job: Job) -> Score:
    """`hpsv2.img_score.score`, which is what `hpsv2.score` calls, on a local checkpoint.

    Only the download of LAION's weights, which the checkpoint replaces anyway, is taken out. It
    uses the GPU if there is one.

    Raises:
        NotOfferedError: The model is not HPS.
    """
    _offered(job, HPS)
    img_score = _without_download("hpsv2.img_score")
    return lambda paths: img_score.score(list(paths), job["prompt"], cp=job["weights"])


def imscore_score(job: Job) -> Score:
    """`HPSv2` or `ImageReward` of imscore, as in its README, in batches of pictures of one size.

    Its README does not switch gradients off; here they are off, which makes it faster.

    Raises:
        NotOfferedError: The model is another one.
    """
    _offered(job, (*HPS, IMAGEREWARD))
    if job["model"] == IMAGEREWARD:
        model = _imscore_imagereward(Path(job["weights"]))
    else:
        model = _without_download("imscore.hps.model").HPSv2()
        model.model.load_state_dict(_state(job["weights"])["state_dict"])
    model = model.to(job["device"]).eval()

    def run(paths: Sequence[str]) -> list[float]:
        groups = defaultdict(list)
        for index, path in enumerate(paths):
            with Image.open(path) as image:
                groups[image.size].append((index, path))
        scores = [0.0] * len(paths)
        for group in groups.values():
            for start in range(0, len(group), job["batch_size"]):
                part = group[start : start + job["batch_size"]]
                pixels = torch.stack([_pixels(path) for _, path in part]).to(job["device"])
                with torch.no_grad():
                    found = model.score(pixels, [job["prompt"]] * len(part))
                for (index, _), score in zip(part, found.flatten().tolist(), strict=True):
                    scores[index] = score
        return scores

    return run


def open_clip_by_hand(job: Job, precision: str) -> Score:
    """open_clip as its README has it, in batches: its own preprocessing, one prompt encoded.

    Raises:
        NotOfferedError: The model is not a CLIP.
    """
    _offered(job, ARCHITECTURES)
    open_clip = importlib.import_module("open_clip")
    architecture = ARCHITECTURES[job["model"]]
    model, _, preprocess = open_clip.create_model_and_transforms(
        architecture,
        pretrained=job["weights"],
        precision=precision,
        device=job["device"],
    )
    model.eval()
    tokenizer = open_clip.get_tokenizer(architecture)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def run(paths: Sequence[str]) -> list[float]:
        scores: list[float] = []
        with torch.inference_mode():
            text = model.encode_text(tokenizer([job["prompt"]]).to(job["device"]), normalize=True)
            for start in range(0, len(paths), job["batch_size"]):
                part = paths[start : start + job["batch_size"]]
                images = torch.stack([preprocess(Image.open(path)) for path in part])
                images = images.to(device=job["device"], dtype=dtype)
                features = model.encode_image(images, normalize=True)
                scores += (features.float() @ text.float().T)[:, 0].tolist()
        return scores

    return run


CONTENDERS: dict[str, tuple[Callable[[Job], Score], tuple[str, ...]]] = {
    "stablepref": (stablepref_score, ("stablepref", "open_clip_torch")),
    "stablepref float32": (
        partial(stablepref_score, dtype="float32"),
        ("stablepref", "open_clip_torch"),
    ),
    "stablepref compiled": (stablepref_compiled, ("stablepref", "open_clip_torch")),
    "hpsv2": (hpsv2_score, ("hpsv2",)),
    "imscore": (imscore_score, ("imscore", "open_clip_torch")),
    "open_clip float32": (partial(open_clip_by_hand, precision="fp32"), ("open_clip_torch",)),
    "open_clip bfloat16": (partial(open_clip_by_hand, precision="bf16"), ("open_clip_torch",)),
}


def measure(job: Job) -> dict[str, object]:
    """Seconds of loading, of calls with one picture and of a call with all; scores; memory.

    `cpu_seconds` is the processor time of all threads in the call with all pictures, which counts
    no other program's.

    `first_seconds` is the time from nothing, imports included, to the first picture's score,
    `second_seconds` that of the same call again. A peer that cannot be imported gives the reason
    under `missing` instead, one that has no such model says so under `unavailable`.
    """
    build, packages = CONTENDERS[job["contender"]]
    first = [job["images"][0]]
    start = time.perf_counter()
    try:
        score = build(job)
    except (ImportError, FileNotFoundError) as error:  # hpsv2's wheel lacks a file that it opens
        return {"missing": f"{type(error).__name__}: {error}"}
    except NotOfferedError as error:
        return {"unavailable": str(error)}
    score(first)
    ready = time.perf_counter()
    score(first)
    again = time.perf_counter()
    if job["warm_up"]:
        score(job["images"])
    begun, busy = time.perf_counter(), time.process_time()
    scores = score(job["images"])
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - busy
    return {
        "first_seconds": ready - start,
        "second_seconds": again - ready,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "scores": [float(value) for value in scores],
        "peak_bytes": peak_bytes(),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", *packages)},
    }


def peak_bytes() -> int:
    """The largest resident memory of this process so far, mapped files included."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _without_download(name: str) -> Any:  # noqa: ANN401 - a module without types
    """A module whose models begin with random weights where it would fetch LAION's."""
    module: Any = importlib.import_module(name)
    create = module.create_model_and_transforms
    module.create_model_and_transforms = lambda model, _, **rest: create(model, None, **rest)
    return module


def _imscore_imagereward(weights: Path) -> Any:  # noqa: ANN401 - a module without types
    """ImageReward of imscore, with the vocabulary beside the weights in place of a hub's."""
    module: Any = importlib.import_module("imscore.imreward.model")
    tokens = module.BertTokenizer(str(weights.with_name("vocab.txt")))
    module.BertTokenizer = SimpleNamespace(from_pretrained=lambda _: tokens)
    model = module.ImageReward()
    model.load_state_dict(_state(str(weights)))
    return model


def _like(job: Job) -> str | None:
    """What tells an official file's model, whose name need not."""
    return job["model"] if Path(job["weights"]).is_file() else None


def _offered(job: Job, models: Collection[str]) -> None:
    """Refuse a model that is not one of them."""
    if job["model"] not in models:
        msg = f"has no scorer of {job['model']}"
        raise NotOfferedError(msg)


def _state(path: str) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _pixels(path: str) -> Tensor:
    """RGB in [0, 1], `(3, H, W)`."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255.0


def main(path: Path) -> None:
    """Read the job, measure, write."""
    job = json.loads(path.read_text())
    torch.set_num_threads(job["threads"])
    Path(job["out"]).write_text(json.dumps(measure(job)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
