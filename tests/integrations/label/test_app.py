"""The page's server: what it answers, what it refuses, and what it does not give away."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.labelling import draw, session_of
from PIL import Image
from starlette.testclient import TestClient

from stablepref.integrations.label.app import create_app
from stablepref.integrations.label.session import Session

HERE = "http://127.0.0.1:8010"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return session_of(draw(tmp_path / "pictures"), tmp_path / "out.jsonl")


@pytest.fixture
def client(session: Session) -> TestClient:
    return TestClient(create_app(session), base_url=HERE)


def ask(client: TestClient, path: str, **body: object) -> dict[str, Any]:
    answer = client.post(path, json={"annotator": "ann"} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_answer_and_the_next_question(client: TestClient, session: Session) -> None:
    first = ask(client, "/next")
    assert (first["done"], first["total"]) == (0, 9)
    second = ask(client, "/answer", token=first["token"], answer="ranked", ranks=[2, 1], seconds=3)
    assert second["done"] == 1
    assert second["token"] != first["token"]
    (label,) = session.journal.labels.values()
    assert label.ranks_of([label.images[place] for place in label.shown]) == (2, 1)
    assert label.seconds == 3
    again = ask(client, "/undo")
    assert again == first
    assert ask(client, "/undo")["note"] == "nothing to undo"


def test_pictures_are_shown_blind(client: TestClient, session: Session, tmp_path: Path) -> None:
    found = ask(client, "/next")
    assert set(found) == {"token", "prompt", "images", "done", "total"}
    names = {path.stem for one in session.questions.values() for path in one.images}
    assert not any(name in str(found) for name in names | {str(tmp_path)})
    answer = client.get(found["images"][0])
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (16, 12)


def test_pictures_are_those_that_scorers_see(tmp_path: Path) -> None:
    folder = draw(tmp_path / "pictures", images=2, prompts=("p",))
    red = Image.new("RGBA", (30, 20), (255, 0, 0, 0))
    exif = red.getexif()
    exif[0x0112] = 6  # turned by a quarter
    red.save(folder / "00000.png", exif=exif, pnginfo=None)
    big = Image.fromarray(np.zeros((10, 3000, 3), np.uint8))
    big.save(folder / "00000-1.png")
    session = session_of(folder, tmp_path / "out.jsonl")
    with TestClient(create_app(session), base_url=HERE) as client:
        pictures = [
            Image.open(io.BytesIO(client.get(one).content))
            for one in ask(client, "/next")["images"]
        ]
    assert {picture.size for picture in pictures} == {(20, 30), (2048, 7)}
    assert {picture.mode for picture in pictures} == {"RGB"}


def test_only_by_id(client: TestClient, tmp_path: Path) -> None:
    for path in ("/images/00000.png", "/images/..%2fprompts.txt", f"/images/{tmp_path}/out.jsonl"):
        assert client.get(path).status_code == 404
    assert client.get("/openapi.json").status_code == 404


def test_a_picture_that_became_unreadable(client: TestClient, session: Session) -> None:
    for one in session.questions.values():
        for path in one.images:
            path.write_bytes(b"no picture")
    found = ask(client, "/next")
    answer = client.get(found["images"][0])
    assert answer.status_code == 410
    assert ".png" not in answer.text
    ask(client, "/answer", token=found["token"], answer="skip", ranks=[])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8010", "192.168.1.2:8010", "", "["])
def test_other_names_of_this_machine_are_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 403
    assert client.post("/next", json={"annotator": "a"}, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8010", "127.0.0.1", "[::1]:8010"])
def test_this_machines_own_names(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_requests_of_other_pages_are_refused(client: TestClient, session: Session) -> None:
    body = {"annotator": "ann"}
    for origin in ("http://evil.example", "http://127.0.0.1:9999", "null"):
        answer = client.post("/undo", json=body, headers={"Origin": origin})
        assert answer.status_code == 403, origin
    assert client.post("/undo", json=body, headers={"Origin": HERE}).status_code == 200
    # What a form of another page can send without being asked.
    plain = client.post(
        "/undo", content='{"annotator": "a"}', headers={"Content-Type": "text/plain"}
    )
    assert plain.status_code == 415
    assert client.post("/next", json={"annotator": "x" * 70_000}).status_code == 413


@pytest.mark.parametrize(
    "body",
    [{}, {"annotator": ""}, {"annotator": "  "}, {"annotator": "x" * 61}, {"annotator": "a\nb"}],
)
def test_names_that_are_none(client: TestClient, body: dict[str, str]) -> None:
    assert client.post("/next", json=body).status_code == 422


def test_wrong_answers_leave_nothing(client: TestClient, session: Session) -> None:
    token = ask(client, "/next")["token"]
    for wrong in ({"answer": "maybe"}, {"ranks": [1, 1]}, {"ranks": [5, 1]}, {"seconds": -1}):
        body = {"annotator": "ann", "token": token, "answer": "ranked", "ranks": [1, 2]} | wrong
        assert client.post("/answer", json=body).status_code == 422, wrong
    found = ask(client, "/answer", token="of another window", answer="tie", ranks=[1, 1])
    assert "already" in found["note"]
    assert found["token"] == token
    assert not session.journal.labels


def test_a_full_disk_is_reported(
    client: TestClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = ask(client, "/next")["token"]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stablepref.integrations.label.journal.os.fsync", full)
    body = {"annotator": "ann", "token": token, "answer": "ranked", "ranks": [1, 2]}
    answer = client.post("/answer", json=body)
    assert answer.status_code == 507
    assert "No space left" in answer.json()["detail"]


def test_with_a_key(session: Session) -> None:
    app = create_app(session, key="abc-123")
    with TestClient(app, base_url="http://192.168.1.2:8010", follow_redirects=False) as client:
        assert client.get("/").status_code == 401
        assert client.get("/?key=wrong").status_code == 401
        assert client.get("/", headers={"Cookie": "stablepref-label-key=no"}).status_code == 401
        first = client.get("/?key=abc-123")
        assert (first.status_code, first.headers["location"]) == (303, "/")
        assert client.get("/").status_code == 200  # the cookie
        assert client.post("/next", json={"annotator": "ann"}).status_code == 200
        assert "HttpOnly; SameSite=Strict" in first.headers["set-cookie"]


def test_the_page_of_agreement(client: TestClient) -> None:
    assert "Nobody has answered yet" in client.get("/agreement").text
    for name in ("ann", "<b>bob"):
        token = ask(client, "/next", annotator=name)["token"]
        ask(client, "/answer", annotator=name, token=token, answer="tie", ranks=[1, 1])
    text = client.get("/agreement").text
    assert "&lt;b&gt;bob and ann, with each other" in text
    assert "<b>bob" not in text
    known = client.post("/annotators", json={}).json()
    assert known == {"annotators": {"ann": 1, "<b>bob": 1}}
