"""A small benchmark, and processes that are killed while they run it, again and again.

`python bench_case.py PIPELINE PICTURES OUT` runs the case once, also under torchrun.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline  # noqa: F401 (imported once for all children)
from PIL import Image

from helpers.brightness import Brightness
from helpers.children import child_environment
from stablepref.benchmarks.bench import score
from stablepref.benchmarks.bench.judges import ModelJudge
from stablepref.benchmarks.bench.prompt_sets import PromptSet
from stablepref.benchmarks.bench.run import bench
from stablepref.benchmarks.bench.score_table import ScoreTable
from stablepref.data.prompts import ListedPrompt
from stablepref.integrations.best_of_n import candidates

WORDS = ["a red circle", "a blue square", "a dog", "a red circle", "two green stars"]
PROMPTS = PromptSet(
    "case",
    tuple(
        ListedPrompt(f"{place:05d}", words, {"category": words.split()[-1]})
        for place, words in enumerate(WORDS)
    ),
)
IMAGES = 2
CALL: dict[str, object] = {"num_inference_steps": 1, "height": 16, "width": 16}
PICTURES = 2 * IMAGES * len(WORDS) + len(WORDS)
"""Two pipelines, and one picture of each prompt that is there already."""


def save_pipeline(folder: Path) -> Path:
    """A tiny pipeline as a user has one."""
    from helpers.tiny_pipelines import build  # noqa: PLC0415 (many pipelines, which this program spares)

    pipe, _ = build("sd")
    pipe.save_pretrained(folder)
    return folder


def program(*arguments: Path, launcher: tuple[str, ...] = ()) -> None:
    """This program in a process of its own."""
    done = subprocess.run(
        [sys.executable, *launcher, __file__, *map(str, arguments)],
        env=child_environment(),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def draw_finished(folder: Path, *, broken: int | None = 2) -> Path:
    """One picture of each prompt in DrawBench's layout, one of them broken."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for place in range(len(WORDS)):
        path = folder / f"{place:05d}.png"
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
        if place == broken:
            path.write_bytes(path.read_bytes()[:90])
    return folder


def run_case(pipeline: Path, pictures: Path, out: Path, *, retry: bool = False) -> ScoreTable:
    """The benchmark: one pipeline twice, with and without guidance, beside finished pictures."""
    return bench(
        PROMPTS,
        [f"plain={pipeline}", f"free={pipeline},guidance=1", f"finished={pictures}"],
        [ModelJudge(Brightness(), name="bright"), ModelJudge(Brightness(-1.0), name="dark")],
        out=out,
        images=IMAGES,
        seed=7,
        arguments=CALL,
        batch_size=1,
        retry=retry,
        progress=False,
    )


def failing(monkeypatch: pytest.MonkeyPatch, wrong: set[str]) -> None:
    """Let the pipeline raise for some prompts."""
    call = candidates._call

    def sometimes(pipe: object, prompts: list[str], *rest: object) -> object:
        for prompt in prompts:
            if prompt in wrong:
                msg = f"no {prompt}"
                raise IndexError(msg)
        return call(pipe, prompts, *rest)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(candidates, "_call", sometimes)


def rows_of(out: Path) -> list[dict[str, object]]:
    """All rows of scores as they are on the disk, whoever wrote them; half a line is left out."""
    rows = []
    for path in (out / "scores").glob("*.jsonl"):
        whole = path.read_bytes().rpartition(b"\n")[0]
        rows += [json.loads(line) for line in whole.splitlines()[1:]]
    return rows


def done(out: Path) -> dict[str, int]:
    """What is on the disk: images with the time they were written, and rows of scores."""
    images = {str(path): path.stat().st_mtime_ns for path in (out / "images").rglob("*.png")}
    rows = {str((row["model"], row["prompt"], row["image"])): 0 for row in rows_of(out)}
    return images | rows


def _die_at(access: int) -> None:
    """Kill this process a moment after it has opened or renamed that many pictures.

    It counts its own, as a watcher beside it would sleep through them on a busy machine. The moment
    ends at the next access: a process that sleeps through it must not finish its work.
    """
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in {"open", "os.rename"} or ".png" not in str(arguments[0]):
            return
        seen += 1
        if seen == access:
            moment = random.random() / 30  # anywhere between two writes
            threading.Timer(moment, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif seen > access:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def _start(
    processes: int, pipeline: Path, pictures: Path, out: Path, *, die_at: int | None = None
) -> list[int]:
    """Children that run the case together, as a launcher starts them; the first may be killed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            if processes > 1:
                launched = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
                launched |= {"RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in launched.items()})
                os.environ["MASTER_ADDR"] = "localhost"
            if rank == 0 and die_at is not None:
                _die_at(die_at)
            run_case(pipeline, pictures, out)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    return children


def _killed(pipeline: Path, pictures: Path, out: Path) -> list[dict[str, int]]:
    """What was there after each kill; there are kills until the work is done.

    That takes three or more: the case has 85 accesses, the first process makes at most 15 of them
    each time, and a second one waits for it after its half of a model's pictures.
    """
    seen: list[dict[str, int]] = []
    while True:
        processes = 2 - len(seen) % 2
        children = _start(processes, pipeline, pictures, out, die_at=random.randint(3, 14))
        _, status = os.waitpid(children[0], 0)
        for child in children[1:]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return seen
        assert code == -signal.SIGKILL, f"exit code {code} after {len(seen)} kills"
        seen.append(done(out))


def _in_small() -> None:
    torch.set_num_threads(1)
    score.DECODED = 3  # type: ignore[misc] # many small batches


def kill(pipeline: Path, pictures: Path, out: Path, told: Path) -> None:
    """In a process of its own, run the case in its children, two processes and one in turn.

    They are killed at random moments until they finish; what was on the disk each time is written
    to a file. It is also run in two processes to its end, in a folder beside, `out` with "-pair".
    """
    _in_small()
    seen = _killed(pipeline, pictures, out)
    pair = _start(2, pipeline, pictures, out.with_name(f"{out.name}-pair"))
    codes = [os.waitpid(child, 0)[1] for child in pair]
    assert codes == [0, 0]
    told.write_text(json.dumps(seen))


if __name__ == "__main__":
    _in_small()
    run_case(*map(Path, sys.argv[1:4]))
