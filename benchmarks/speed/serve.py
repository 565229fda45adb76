"""Scores over HTTP beside scores in the process: images per second, and the wait for one answer."""

from __future__ import annotations

import math
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import numpy as np
import psutil  # type: ignore[import-untyped]
from httpx2 import Client
from PIL import Image
from rich.table import Table

import stablepref
from stablepref.models.remote import RemoteScorer
from stablepref.scoring.batching import CPU_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stablepref.scorer import Scorer

PROMPT = "a red fox asleep under a wooden bridge, oil on canvas"
SIDE = 512
START_SECONDS = 120.0


def made_pictures(count: int) -> list[Image.Image]:
    """Pictures of noise, 512 x 512, as a pipeline would give them."""
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(count)
    ]


@contextmanager
def server(model: str, *, device: str, dtype: str) -> Iterator[tuple[str, int]]:
    """A server process of one model: its address and its number."""
    command = [sys.executable, "-m", "stablepref", "serve", f"model={model}", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--device", device, "--dtype", dtype, "--max-waiting", "4096"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"running on (http://\S+:\d+)", line):
                # Read on, so that the server never waits for a full pipe.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield found[1], process.pid
                return
        msg = f"the server ended with {process.wait()} before it listened: {' '.join(command)}"
        raise RuntimeError(msg)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)


def in_process(scorer: Scorer, images: Sequence[Image.Image], seconds: float) -> float:
    """Images per second of `scorer.score`, in calls of 64 images, or of a batch if that is slow."""
    started = time.perf_counter()
    scorer.score(images[:4], PROMPT)
    scorer.score(images[:4], PROMPT)
    count = len(images) if time.perf_counter() - started < seconds / 10 else CPU_BATCH
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        scorer.score(images[:count], PROMPT, progress=False)
        done += count
    return done / (time.perf_counter() - started)


@final
class _Clients:
    """Clients that ask again and again, each from a thread, until the time is over."""

    def __init__(self, address: str, images: Sequence[Image.Image], per_request: int) -> None:
        self.address, self.images, self.per_request = address, images, per_request
        self.waits: list[float] = []
        self.failed = 0
        self._lock = threading.Lock()

    def run(self, clients: int, seconds: float) -> dict[str, float]:
        """Images per second and quantiles of the wait, in seconds."""
        scorers = [RemoteScorer(f"{self.address}/model") for _ in range(clients)]
        barrier = threading.Barrier(clients + 1)
        threads = [
            threading.Thread(target=self._ask, args=(scorer, row, barrier, seconds))
            for row, scorer in enumerate(scorers)
        ]
        for thread in threads:
            thread.start()
        barrier.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        passed = time.perf_counter() - started
        waits = sorted(self.waits)
        return {
            "clients": clients,
            "images_per_second": len(waits) * self.per_request / passed,
            "median_wait": statistics.median(waits),
            "p95_wait": waits[math.ceil(0.95 * len(waits)) - 1],
            "requests": len(waits),
            "failed": self.failed,
        }

    def _ask(
        self, scorer: RemoteScorer, row: int, barrier: threading.Barrier, seconds: float
    ) -> None:
        count = self.per_request
        own = [self.images[(row * count + i) % len(self.images)] for i in range(count)]
        barrier.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            try:
                scorer.score(own, PROMPT, progress=False)
            except (OSError, ValueError):
                with self._lock:
                    self.failed += 1
                continue
            with self._lock:
                self.waits.append(time.perf_counter() - started)


def malformed(
    address: str, pid: int, *, clients: int, images: Sequence[Image.Image]
) -> dict[str, Any]:
    """Requests of many clients, one in a hundred of them malformed.

    Returns:
        How many answers were right, errors and wrong; and the server's memory in bytes after a
        tenth of the requests and at the end, where the system tells it.
    """
    expected = RemoteScorer(f"{address}/model").score(images, PROMPT).tolist()
    tally = {"right": 0, "errors": 0, "wrong": 0}
    memory: list[int | None] = []
    lock = threading.Lock()
    with Client(timeout=120) as client:

        def one(row: int) -> None:
            which = row % len(images)
            bad = row % 100 == 7
            found: float | None = None
            try:
                if bad:
                    answer = client.post(f"{address}/v1/models/model/tensors", content=b"\xff" * 99)
                    outcome = "errors" if answer.status_code == 400 else "wrong"
                else:
                    found = RemoteScorer(f"{address}/model").score(images[which], PROMPT).item()
                    # Batches of another size round another way in the last bits.
                    near = math.isclose(found, expected[which], rel_tol=1e-2, abs_tol=1e-2)
                    outcome = "right" if near else "wrong"
            except (OSError, ValueError):
                outcome = "wrong"
            with lock:
                tally[outcome] += 1
                if sum(tally.values()) in (clients // 10, clients):
                    memory.append(resident_bytes(pid))

        for start in range(0, clients, 100):
            rows = range(start, min(start + 100, clients))
            threads = [threading.Thread(target=one, args=(row,)) for row in rows]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return tally | {"memory": memory}


def resident_bytes(pid: int) -> int | None:
    """Memory that a process holds; None where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:  # noqa: PTH123 (not a real file)
            found = re.search(r"VmRSS:\s+(\d+) kB", file.read())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def measure(
    model: str,
    *,
    device: str,
    dtype: str,
    clients: Sequence[int],
    seconds: float,
    per_request: int,
    requests: int,
) -> dict[str, Any]:
    """All of it, one after the other, so that nothing shares the machine.

    Scoring in the process is measured before and after the server, since machines that are shared
    do not keep their speed; `in_process` is the mean of the two.
    """
    images = made_pictures(64)
    scorer = stablepref.load(model, device=device, dtype=dtype)
    alone = [in_process(scorer, images, seconds / 2)]
    with server(model, device=device, dtype=dtype) as (address, pid):
        _Clients(address, images, per_request).run(1, min(seconds, 2.0))  # warm
        rows = []
        for count in clients:
            before = processor_seconds(pid)
            row = _Clients(address, images, per_request).run(count, seconds)
            used = processor_seconds(pid) - before
            rows.append(row | {"processor_seconds": used / (row["requests"] * per_request)})
        hostile = None
        if requests:
            hostile = malformed(address, pid, clients=requests, images=images[:10])
    alone.append(in_process(scorer, images, seconds / 2))
    return {
        "in_process": statistics.mean(alone),
        "in_process_before_and_after": alone,
        "served": rows,
        "malformed": hostile,
    }


def processor_seconds(pid: int) -> float:
    """Of a process so far; 0 where there is no such process."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def serve_table(report: Mapping[str, Any]) -> Table:
    """One row for scoring in the process, and one for each number of clients."""
    found = report["measured"]
    table = Table(
        "clients",
        "images/s",
        "of in-process",
        "median wait, ms",
        "95 % wait, ms",
        "requests",
        "server's processor s/image",
        title=f"{report['model']}, {SIDE} x {SIDE} pictures, {report['per_request']} a request",
    )
    alone = found["in_process"]
    table.add_row("in process", f"{alone:.1f}", "100 %", "-", "-", "-", "-")
    for row in found["served"]:
        table.add_row(
            str(row["clients"]),
            f"{row['images_per_second']:.1f}",
            f"{100 * row['images_per_second'] / alone:.0f} %",
            f"{1000 * row['median_wait']:.0f}",
            f"{1000 * row['p95_wait']:.0f}",
            f"{row['requests']}" + (f", {row['failed']} failed" if row["failed"] else ""),
            f"{row['processor_seconds']:.3f}",
        )
    return table
