"""A client that means harm, at a real socket: slow, endless, ambiguous, deep, swollen requests."""

import json
import pickle
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence

import httpx2
import pytest
import safetensors.torch
import torch
import uvicorn
from helpers.served import app_of, b64, grey, png, served
from starlette.websockets import WebSocketDisconnect

from stablepref.integrations.serve.connection import TimedConnection
from stablepref.models.function import FunctionScorer
from stablepref.runtime.bounded_json import MOST_PARTS, loads

ASKED = json.dumps({"images": [b64(grey(51))], "prompts": "a"}).encode()
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
gate = threading.Event()


def held(images: Sequence[object], prompts: Sequence[str]) -> list[float]:
    gate.wait(30)
    return [1.0] * len(images)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Uvicorn as `stablepref serve` has it, in a thread."""
    scorer = FunctionScorer(held, name="held", unit="1")
    app = app_of({"held": scorer}, body_timeout=0.5, max_request_mb=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimedConnection, "seconds", 0.5)
        config = uvicorn.Config(app, port=0, http=TimedConnection, ws="none", log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
        gate.set()
        server.should_exit = True
        thread.join()


@pytest.fixture(autouse=True)
def _open() -> None:
    gate.set()


def sent(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that the server says until it closes the connection, or until nothing came for 5 s."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(5)
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while data := connection.recv(65536):
                answer += data
        except TimeoutError:
            answer += b"[open]"
        except ConnectionError:
            pass
        return answer


def still_answers(port: int) -> bool:
    whole = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(ASKED) + ASKED
    return b'"scores":[1.0]' in sent(port, whole)


def test_headers_that_never_end(port: int) -> None:
    """A connection that sends nothing, or a header now and then, is closed."""
    assert sent(port) == b""
    drops = [b"POST /v1/score HTTP/1.1\r\n"] + [b"X-%d: a\r\n" % row for row in range(20)]
    assert sent(port, *drops, pause=0.1) == b""
    # So is one that begins another request on a connection that has had an answer.
    again = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert sent(port, again, b"GET /health HT", pause=0.2).count(b"HTTP/1.1 200") == 1
    assert still_answers(port)


def test_headers_that_are_too_long(port: int) -> None:
    answer = sent(port, HEAD + b"X: " + b"a" * 200_000)
    assert answer.startswith(b"HTTP/1.1 400") or answer == b""  # reset while it still sends
    assert still_answers(port)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
    ],
)
def test_bodies_whose_end_is_ambiguous(port: int, headers: bytes) -> None:
    """What a proxy could read in another way is refused, and nothing after it is a request."""
    smuggled = b"GET /models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    answer = sent(port, HEAD + headers + b"\r\n0\r\n\r\n" + smuggled)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 501"))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert still_answers(port)


def test_chunks_without_an_end(port: int) -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    endless = sent(port, head, *[chunk] * 40)
    assert endless.startswith(b"HTTP/1.1 413") or endless == b""  # reset while it still sends
    assert b" 408 " in sent(port, head, b"5\r\nabcde\r\n").partition(b"\r\n")[0]
    assert b" 400 " in sent(port, head, b"zz\r\nabcde\r\n").partition(b"\r\n")[0]
    assert still_answers(port)


def test_a_websocket(port: int) -> None:
    upgrade = (
        b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade, close\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    assert sent(port, upgrade).startswith(b"HTTP/1.1 401")
    with (
        served() as client,
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/v1/score"),
    ):
        pass


def test_clients_that_leave_are_forgotten(port: int) -> None:
    """In the middle of a body, and while their score is computed."""
    gate.clear()
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(ASKED) + ASKED
    for part in (whole[:-9], whole, whole):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(part)
        # Reset, not closed in order.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    gate.set()
    assert still_answers(port)
    for _ in range(100):
        text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        if "stablepref_active_requests 0.0" in text:
            return
        time.sleep(0.05)
    pytest.fail(text)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"[" * 200_000, "application/json", (400, 422)),
        (b'{"images":' + b"[" * 900_000, "application/json", (400, 422)),
        (b"[" + b"{}," * MOST_PARTS + b"{}]", "application/json", (413,)),
        (b'{"images":[' + b"1," * 400_000 + b'1],"prompts":"a"}', "application/json", (422,)),
        (b'{"images":[' + b'"",' * 2000 + b'""],"prompts":"a"}', "application/json", (413,)),
        (b'{"images":["a"],"model":' + b"9" * 9999 + b"}", "application/json", (400, 422)),
        (ASKED, "text/plain", (422,)),
        (ASKED, "multipart/form-data", (400, 422)),
        (ASKED, "application/x-www-form-urlencoded", (422,)),
        (b"\xff\xfe" * 99, "application/json; charset=utf-16", (400, 422)),
    ],
)  # fmt: skip
def test_bodies_that_would_swell(body: bytes, kind: str, status: Sequence[int]) -> None:
    with served() as client:
        answer = client.post("/v1/score", content=body, headers={"Content-Type": kind})
        assert answer.status_code in status
        assert len(answer.text) < 1000
        assert client.post("/v1/score", content=ASKED, headers=JSON).json()["errors"] == [None]


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/v1/models/bright/tensors", "/api/reward/enqueue", "/"])
@pytest.mark.parametrize("kind", ["nested", "swollen"])
def test_other_forms_that_would_swell(path: str, kind: str) -> None:
    """Descriptions of tensors and images that are deep or long, and pickles of one-byte lists."""
    value = "[" * 300_000 if kind == "nested" else "[" + "{}," * MOST_PARTS + "{}]"
    bodies = {
        "/v1/models/bright/tensors": safetensors.torch.save(
            {"picture.0": torch.zeros(2, 2, 3, dtype=torch.uint8)}, metadata={"request": value}
        ),
        "/api/reward/enqueue": value.encode() + b"\n",
        "/": b"\x80\x04" + (b"]" * 1_100_000 if kind == "swollen" else b"]" * 300_000 + b"."),
    }
    with served() as client:
        answer = client.post(path, content=bodies[path])
        assert answer.status_code == 400
        assert len(answer.content) < 1000


@pytest.mark.parametrize(
    ("rows", "pixels", "views"), [(3000, 1, 1), (1, 1, 300_000), (1, 300_000, 1)]
)
def test_tensors_that_would_swell(rows: int, pixels: int, views: int) -> None:
    tensors = {
        "pixels.0": torch.zeros(pixels, 3, 1, 1, dtype=torch.uint8),
        "hflip.0": torch.zeros(pixels, views, dtype=torch.bool),
    }
    request = json.dumps({"prompts": ["a"], "rows": [["pixels", 0, 0, 0, 0]] * rows})
    body = safetensors.torch.save(tensors, metadata={"request": request})
    with served() as client:
        answer = client.post("/v1/models/bright/tensors", content=body)
    assert answer.status_code == 413
    assert str(max(rows, pixels * views)) in answer.json()["detail"]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_a_picture_that_inflates_a_thousand_times() -> None:
    """Compressed text, profiles and rows of a PNG that are far longer than the picture says."""
    data = png(grey(51, (8, 8)))
    zeros = zlib.compress(bytes(50_000_000), 1)
    start = data.index(b"IDAT") - 4
    with served() as client:
        for bomb in (chunk(b"zTXt", b"a\0\0" + zeros), chunk(b"iCCP", b"a\0\0" + zeros)):
            swollen = data[:start] + bomb + data[start:]
            answer = client.post(
                "/v1/score/files", files=[("images", swollen)], data={"prompts": "a"}
            )
            (score,), (error,) = answer.json()["scores"], answer.json()["errors"]
            assert (score is None) != (error is None)
        rows = data[:start] + chunk(b"IDAT", zeros) + chunk(b"IEND", b"")
        answer = client.post("/v1/score/files", files=[("images", rows)], data={"prompts": "a"})
        assert answer.json()["errors"][0] or answer.json()["scores"] == [0.0]


def test_equal_names_of_samples_are_no_confusion() -> None:
    """Scores go by place, whatever the samples are called."""
    item = {"required_rewards": ["bright"], "request_id": "s", "sample_id": "s"}
    items = [item | {"history": [{"text": "a", "image_b64": b64(grey(v))}]} for v in (0, 51, 255)]
    with served() as client:
        found = client.post("/score", json={"requests": items}).json()["results"]
    scores = [one["bright"]["score"] for one in found]
    assert scores == pytest.approx([0, 0.2, 1], abs=1e-6)


def test_json_within_bounds_is_read() -> None:
    assert loads('{"a": [1, 2]}') == {"a": [1, 2]}
    assert loads(b"[1,2]", most=2) == [1, 2]
    with pytest.raises(ValueError, match="has 3 commas and brackets; at most 2 are read"):
        loads("[1,2,3]", most=2)
    with pytest.raises(ValueError, match="nested too deeply"):
        loads("[" * 500_000)


def test_pickles_are_read_beside_the_others() -> None:
    """A long one holds up nobody else's answer."""
    data = pickle.dumps({"images": [], "prompts": [], "more": list(range(300_000))})
    with served() as client:
        assert client.post("/", content=data).status_code == 200
