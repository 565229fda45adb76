"""The server's own protocol, and what watches it."""

import json
from pathlib import Path

import pytest
from helpers.brightness import Brightness
from helpers.served import b64, grey, noisy, png, remote, served
from starlette.testclient import TestClient

LEVELS = [0, 51, 255]


@pytest.fixture(scope="module")
def client() -> TestClient:
    with served() as client:
        yield client


def test_json(client: TestClient) -> None:
    images = [b64(grey(level)) for level in LEVELS]
    images[1] = "data:image/png;base64," + images[1]
    answer = client.post("/v1/score", json={"images": images, "prompts": "a lamp"}).json()
    assert answer["model"] == "bright"
    assert answer["unit"] == "brightness"
    assert answer["scores"] == pytest.approx([level / 255 for level in LEVELS], abs=1e-6)
    assert answer["errors"] == [None] * 3


def test_each_image_has_its_prompt_and_its_model(client: TestClient) -> None:
    red = noisy(1)[0].point([255] * 256 + [0] * 512)
    asked = {"images": [b64(red)] * 2, "prompts": ["red", "all"], "model": "double"}
    answer = client.post("/v1/score", json=asked).json()
    assert answer["scores"] == pytest.approx([2, 2 / 3], abs=1e-6)


def test_multipart(client: TestClient) -> None:
    files = [("images", (f"{level}.png", png(grey(level)), "image/png")) for level in LEVELS]
    for prompts in (["a"], ["a", "b", "c"]):
        answer = client.post("/v1/score/files", files=files, data={"prompts": prompts}).json()
        assert answer["scores"] == pytest.approx([level / 255 for level in LEVELS], abs=1e-6)


def test_a_bad_image_or_prompt_is_an_error_in_its_own_place(client: TestClient) -> None:
    good = b64(grey(51))
    images = [good, "aGVsbG8=", good, "not base64!", good, b64(grey(9))[:60]]
    prompts = ["a", "a", " ", "a", "a", "a"]
    answer = client.post("/v1/score", json={"images": images, "prompts": prompts}).json()
    assert [score is None for score in answer["scores"]] == [False, True, True, True, False, True]
    assert [error is None for error in answer["errors"]] == [True, False, False, False, True, False]
    assert "its prompt is empty" in answer["errors"][2]
    assert "b'hello'" in answer["errors"][1]


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"images": [], "prompts": "a"}, 422, "0 images"),
        ({"images": ["aa"], "prompts": ["a", "b"]}, 422, "1 images and 2 prompts"),
        ({"images": ["aa"], "prompts": "a", "model": "none"}, 404, "bright, double"),
        ({"prompts": "a"}, 422, "images: Field required"),
        ({"images": [7], "prompts": "a"}, 422, "images.0"),
    ],
)
def test_a_wrong_request_is_explained(
    client: TestClient, asked: dict[str, object], status: int, words: str
) -> None:
    answer = client.post("/v1/score", json=asked)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_what_came_is_not_repeated(client: TestClient) -> None:
    answer = client.post("/v1/score", json={"images": [["secret" * 50]], "prompts": "a"})
    assert answer.status_code == 422
    assert "secret" not in answer.text


def test_a_model_that_needs_no_prompt_takes_none() -> None:
    """Beside one that needs prompts, whose images then have an error each."""
    free = Brightness()
    free.needs_prompt = False
    with served({"free": free, "bright": Brightness()}) as client:
        for model, scores in (("free", [pytest.approx(0.2)]), ("bright", [None])):
            asked = {"images": [b64(grey(51))], "model": model}
            assert client.post("/v1/score", json=asked).json()["scores"] == scores
        files = [("images", ("a.png", png(grey(51)), "image/png"))]
        answer = client.post("/v1/score/files", files=files).json()
        assert answer["scores"] == [pytest.approx(0.2)]
        far = remote(client, "free")
        assert far.score(grey(51)).tolist() == pytest.approx([0.2])
        assert far.rank([grey(51), grey(102)])[0].index == 1


def test_models_and_health(client: TestClient) -> None:
    found = client.get("/models").json()
    assert [one["name"] for one in found["models"]] == ["bright", "double"]
    assert found["models"][0]["unit"] == "brightness"
    assert found["models"][0]["fingerprint"] != found["models"][1]["fingerprint"]
    assert found["limits"]["max_pixels"] == 64_000_000
    assert client.get("/health").json()["rewards"] == {"bright": ["score"], "double": ["score"]}


def test_documentation_lists_all_paths(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/score", "/score", "/compute", "/", "/api/reward/enqueue", "/health"} <= set(paths)
    assert client.get("/docs").status_code == 200


def test_protocols_that_were_not_asked_for_are_not_there() -> None:
    with served({"bright": Brightness()}, protocols=("unirl",)) as client:
        assert client.post("/compute", json={"prompt": []}).status_code == 404
        assert client.post("/", content=b"").status_code in (404, 405)


def test_metrics() -> None:
    with served() as client:
        images = [b64(grey(level)) for level in LEVELS]
        client.post("/v1/score", json={"images": [*images, "aa"], "prompts": "a"})
        client.get("/nowhere/at/all")
        text = client.get("/metrics").text
    assert 'stablepref_images_total{model="bright",outcome="scored"} 3.0' in text
    assert 'stablepref_images_total{model="bright",outcome="failed"} 1.0' in text
    assert 'stablepref_requests_total{path="/v1/score",status="200"} 1.0' in text
    assert 'stablepref_requests_total{path="unknown",status="404"} 1.0' in text
    assert 'stablepref_batch_images_count{model="bright"} 1.0' in text


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """An allowed folder, a file beside it, and a link from the one to the other."""
    (tmp_path / "open" / "more").mkdir(parents=True)
    grey(51).save(tmp_path / "open" / "more" / "a.png")
    grey(51).save(tmp_path / "secret.png")
    (tmp_path / "open" / "link.png").symlink_to(tmp_path / "secret.png")
    return tmp_path


@pytest.mark.parametrize("path", ["more/a.png", "{}/open/more/a.png", "more/../more/a.png"])
def test_files_of_an_allowed_folder(folders: Path, path: str) -> None:
    with served(folders=(str(folders / "open"),)) as client:
        asked = {"images": [{"path": path.format(folders)}], "prompts": "a"}
        answer = client.post("/v1/score", json=asked).json()
    assert answer["errors"] == [None]
    assert answer["scores"] == pytest.approx([0.2], abs=1e-6)


@pytest.mark.parametrize(
    "path", ["../secret.png", "{}/secret.png", "link.png", "more", "/etc/passwd", "a\0b", "", "no"]
)
def test_other_files_are_not_opened_and_nothing_is_said_of_them(folders: Path, path: str) -> None:
    with served(folders=(str(folders / "open"),)) as client:
        asked = {"images": [{"path": path.format(folders)}], "prompts": "a"}
        answer = client.post("/v1/score", json=asked).json()
    assert answer["scores"] == [None]
    assert answer["errors"][0].startswith("the server opens no file of this path")


def test_without_a_folder_no_file_is_opened(folders: Path) -> None:
    with served() as client:
        path = str(folders / "open" / "more" / "a.png")
        for image in ({"path": path}, path, f"file://{path}"):
            answer = client.post("/v1/score", json={"images": [image], "prompts": "a"})
            assert answer.json()["scores"] == [None]


def test_no_address_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as base64 nor as a path, whatever the protocol."""

    def opened(*arguments: object, **_: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr("stablepref.images.decoding.fetch", opened)
    monkeypatch.setattr("socket.create_connection", opened)
    monkeypatch.setattr("urllib.request.urlopen", opened)
    url = "http://169.254.169.254/latest/meta-data"
    with served(folders=("/tmp",)) as client:
        for image in (url, {"path": url}, f"data:{url}", url.replace("http", "ftp")):
            answer = client.post("/v1/score", json={"images": [image], "prompts": "a"}).json()
            assert answer["scores"] == [None]
        turn = {"text": "a", "image_b64": url}
        asked = {"requests": [{"history": [turn], "required_rewards": ["bright"]}]}
        answer = client.post("/score", json=asked).json()
        assert answer["results"] == [{}]
        answer = client.post("/compute", json={"prompt": ["a"], "image": [url]}).json()
        assert "no address" in answer["error"]


def test_answers_are_plain_json(client: TestClient) -> None:
    """NaN is no JSON: a model that gives it gives an error."""
    with served({"none": Brightness(float("nan"))}) as broken:
        answer = broken.post("/v1/score", json={"images": [b64(grey(3))], "prompts": "a"})
    found = json.loads(answer.text, parse_constant=pytest.fail)
    assert found["scores"] == [None]
    assert "nan" in found["errors"][0]
