"""`stablepref serve` as a process: a real socket, a real client, a real SIGTERM."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import torch
import uvicorn
from helpers.forked import Command, command
from helpers.places import ROOT
from helpers.served import b64, noisy

import stablepref
from stablepref.integrations.serve import run
from stablepref.integrations.serve.settings import ServeSettings
from stablepref.weights.hub import UnavailableError

SECONDS = 120
MODEL = "shapes"


def started(*arguments: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """The process of a server at a free port, once it listens, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stablepref", "serve", MODEL, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        cwd=ROOT,
    )
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if found := re.search(r"running on (http://\S+:\d+)", line):
            return process, found[1]
    pytest.fail(seen)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text("a long secret\n")
    return path


@pytest.fixture(scope="module")
def server(token: Path) -> Iterator[tuple[Command, str]]:
    """One that has not had to import torch itself, and its address."""
    words = ("serve", MODEL, "--port", 0, "--token-file", token, "--device", "cpu")
    with command(*words, "--dtype", "float32", "--max-delay", 2000) as process:
        while not (found := re.search(r"running on (http://\S+:\d+)", said(process))):
            assert process.poll() is None, said(process)
            time.sleep(0.05)
        yield process, found[1]


def said(process: Command) -> str:
    return process.stdout() + process.stderr()


def test_unirls_own_client(server: tuple[Command, str]) -> None:
    """The reward client of the `unirl` package, where that is installed."""
    client = pytest.importorskip("unirl.reward.remote")
    types = pytest.importorskip("unirl.types.reward")
    primitives = pytest.importorskip("unirl.types.primitives")
    address = server[1].replace("://", "://:a%20long%20secret@")
    spec = client.RemoteRewardSpec(
        base_url=address, required_rewards=(MODEL,), require_identity_echo=True, image_format="PNG"
    )
    backend = client.RemoteRewardBackend(config=spec, base_device="cpu")
    assert backend.is_available()
    levels = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    prompts = ["a red circle", "a blue star", "two squares"]
    request = types.RewardRequest(
        generated={"image": primitives.Images.from_dense(((levels + 0.25) / 255).clamp(max=1))},
        generation_prompt=primitives.Texts(prompts),
        sample_ids=["a", "b", "c"],
    )
    found = backend.compute_rewards(request)
    local = stablepref.load(MODEL, device="cpu", dtype="float32")
    expected = local.score(levels.byte(), prompts)
    assert found.rewards == pytest.approx(expected.tolist(), abs=1e-4)
    assert found.successes == [True] * 3
    missing = client.RemoteRewardSpec(base_url=address, required_rewards=("none",))
    with pytest.raises(ValueError, match="none"):
        client.RemoteRewardBackend(config=missing, base_device="cpu").is_available()


def test_a_real_client_and_then_the_end(
    server: tuple[Command, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores as here, to the last bit; and what was accepted before SIGTERM is finished."""
    process, address = server
    monkeypatch.delenv("STABLEPREF_TOKEN", raising=False)
    with pytest.raises(UnavailableError, match="401"):
        stablepref.load(f"{address}/{MODEL}")
    monkeypatch.setenv("STABLEPREF_TOKEN", "a long secret")
    images = noisy(5)
    far = stablepref.load(f"{address}/{MODEL}", device="cpu")
    local = stablepref.load(MODEL, device="cpu", dtype="float32")
    assert torch.equal(far.score(images, "a red circle"), local.score(images, "a red circle"))

    answers: list[httpx2.Response] = []
    client = httpx2.Client(headers={"Authorization": "Bearer a long secret"}, timeout=SECONDS)
    asked = {"images": [b64(images[0])], "prompts": "a red circle"}

    def ask() -> None:
        answers.append(client.post(f"{address}/v1/score", json=asked))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    metrics = ""
    while "active_requests 4.0" not in metrics and threads[0].is_alive():  # they wait for a batch
        metrics = client.get(f"{address}/metrics").text
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(SECONDS)
    expected = local.score(images[0], "a red circle").tolist()
    for answer in answers:
        assert answer.json()["scores"] == pytest.approx(expected, abs=1e-4)
    assert len(answers) == 4
    process.wait(SECONDS)
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in said(process)
    with pytest.raises(httpx2.TransportError):
        client.get(f"{address}/health")


def test_workers_have_time_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that imports torch may answer nothing for 5 s, after which uvicorn would kill it."""
    given: dict[str, object] = {}
    monkeypatch.setattr(run.uvicorn, "run", lambda place, **options: given.update(options))
    monkeypatch.setattr(run, "keep_freed_memory", lambda: None)
    monkeypatch.setenv(run.SETTINGS_VARIABLE, "")
    monkeypatch.setenv(run.SHARED_FOLDER, "")
    run.run(ServeSettings((MODEL,), port=0, workers=2, protocols=("unirl",)))
    assert given["timeout_worker_healthcheck"] >= 60  # type: ignore[operator]
    uvicorn.Config("none:none", **given)  # type: ignore[arg-type] # as this version knows them


@pytest.mark.slow
def test_workers_share_a_port_and_their_counts(token: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process, address = started(
        "--workers", "2", "--protocol", "unirl", "--device", "cpu", "--port", str(port)
    )
    try:
        asked = {"images": [b64(noisy(1)[0])], "prompts": "a red circle"}
        # However long workers take to import and load, they are waited for; the parent ends with
        # an error where they cannot begin.
        healthy = False
        while not healthy:
            assert process.poll() is None, process.communicate()[0]
            try:
                healthy = httpx2.get(f"{address}/health", timeout=5).is_success
            except httpx2.TransportError:
                time.sleep(0.5)
        scores = [
            httpx2.post(f"{address}/v1/score", json=asked, timeout=None).json()["scores"]
            for _ in range(20)
        ]
        assert len({tuple(one) for one in scores}) == 1
        text = httpx2.get(f"{address}/metrics").text
        assert 'stablepref_images_total{model="shapes",outcome="scored"} 20.0' in text
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()
    assert "died" not in output  # no worker was taken for hung
    assert "Traceback" not in output
