"""The protocols of trainers, by imitations of their clients' own code."""

import base64
import hashlib
import io
import json
import pickle
import time
from typing import Any

import numpy as np
import pytest
import torch
from helpers.served import b64, grey, noisy, served
from PIL import Image
from starlette.testclient import TestClient

LEVELS = [0, 51, 255]
EXPECTED = pytest.approx([0, 0.2, 1], abs=1e-6)


@pytest.fixture(scope="module")
def client() -> TestClient:
    with served() as client:
        yield client


def jpeg(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", **options)
    return buffer.getvalue()


# UniRL: RemoteRewardBackend of unirl 0.2.0.


def unirl_item(image: str, prompt: str, rewards: list[str], number: int) -> dict[str, object]:
    return {
        "history": [{"text": prompt, "image_b64": image}],
        "required_rewards": rewards,
        "metadata": None,
        "request_id": f"s{number}",
        "sample_id": f"s{number}",
        "group_id": "g",
        "source_rank": None,
        "policy_version": None,
        "scorer_version": None,
        "idempotency_key": hashlib.sha256(image.encode()).hexdigest(),
    }


def unirl_post(client: TestClient, items: list[dict[str, object]]) -> dict[str, Any]:
    answer = client.post("/score", json={"protocol_version": "1", "requests": items})
    answer.raise_for_status()
    raw: dict[str, Any] = answer.json()
    assert raw.get("protocol_version") in (None, "1")
    assert len(raw["results"]) == len(raw["errors"]) == len(raw["identities"]) == len(items)
    for sent, echoed in zip(items, raw["identities"], strict=True):
        for key in (
            "request_id",
            "sample_id",
            "group_id",
            "source_rank",
            "policy_version",
            "idempotency_key",
        ):
            assert echoed.get(key) == sent.get(key)
    return raw


def test_unirl(client: TestClient) -> None:
    health = client.get("/health").json()
    assert isinstance(health["rewards"], dict)
    images = [base64.b64encode(jpeg(grey(level), quality=95)).decode() for level in LEVELS]
    rewards = ["bright", "double"]
    raw = unirl_post(client, [unirl_item(im, "a", rewards, i) for i, im in enumerate(images)])
    first = [next(iter(result["bright"].values())) for result in raw["results"]]
    assert first == EXPECTED
    second = [result["double"]["score"] for result in raw["results"]]
    assert second == pytest.approx([0, 0.4, 2], abs=1e-6)
    assert raw["errors"] == [{}] * 3


def test_unirl_scores_the_last_turn_and_keeps_failures_in_their_places(client: TestClient) -> None:
    good, bad = b64(grey(51)), base64.b64encode(b"no image").decode()
    items = [unirl_item(one, "a", ["bright"], i) for i, one in enumerate((good, bad, good))]
    items[2]["history"] = [{"text": "a", "image_b64": b64(grey(0))}, *items[2]["history"]]  # type: ignore[misc]
    items.append(unirl_item(good, "a", ["double"], 3))
    items.append(items[0] | {"history": [{"text": "a", "video_b64": "AAAA"}]})
    raw = unirl_post(client, items)
    scores = [result.get("bright", {}).get("score") for result in raw["results"]]
    assert scores[::2] == [pytest.approx(0.2, abs=1e-6), pytest.approx(0.2, abs=1e-6), None]
    assert raw["results"][1] == {}
    assert "not an image" in raw["errors"][1]["bright"]
    assert raw["results"][3] == {"double": {"score": pytest.approx(0.4, abs=1e-6)}}
    assert "videos" in raw["errors"][4]["bright"]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"required_rewards": ["none"]}, 400),
        ({"history": []}, 400),
        ({"history": [{"text": "a"}]}, 422),
        ({"history": [{"text": "a", "video_b64": "A", "video_path": "/etc/passwd"}]}, 422),
    ],
)
def test_unirl_refuses(client: TestClient, changed: dict[str, object], status: int) -> None:
    item = unirl_item(b64(grey(1)), "a", ["bright"], 0) | changed
    assert client.post("/score", json={"requests": [item]}).status_code == status


# Flow-Factory: RemoteRewardClient of my_reward_remote.py.


def flow_factory_payload(prompts: list[str], images: list[Any]) -> dict[str, object]:
    def encoded(image: Image.Image | torch.Tensor) -> str:
        if isinstance(image, torch.Tensor):
            array = (image.clamp(0, 1).permute(1, 2, 0).cpu().numpy() * 255).astype("uint8")
            image = Image.fromarray(array)
        return b64(image)

    return {
        "prompt": prompts,
        "image": [encoded(image) for image in images] if images else None,
        "video": None,
        "condition_images": None,
        "condition_videos": None,
        "kwargs": {"metadata": "{}"},
    }


@pytest.mark.parametrize(("server", "factor"), [("", 1), ("/models/double", 2)])
def test_flow_factory(client: TestClient, server: str, factor: int) -> None:
    assert client.get(f"{server}/health").status_code == 200
    for images in (
        [grey(level) for level in LEVELS],
        [torch.full((3, 9, 9), level / 255 + 1e-4) for level in LEVELS],
    ):
        payload = flow_factory_payload(["a", "b", "c"], images)
        answer = client.post(f"{server}/compute", json=payload)
        answer.raise_for_status()
        data = answer.json()
        assert not data.get("error")
        assert data["rewards"] == pytest.approx([0, factor / 5, factor], abs=1e-6)


def test_flow_factory_has_one_error_for_all(client: TestClient) -> None:
    payload = flow_factory_payload(["a", "b"], [grey(1), grey(2)])
    payload["image"][1] = "AAAA"  # type: ignore[index]
    error = client.post("/compute", json=payload).json()["error"]
    assert error.startswith("image 1: ")
    payload = flow_factory_payload(["a", "b"], [grey(1)])
    assert "1 images and 2 prompts" in client.post("/compute", json=payload).json()["error"]
    payload = {"prompt": ["a"], "image": None, "video": [["AAAA"]]}
    assert "videos" in client.post("/compute", json=payload).json()["error"]
    assert client.get("/models/none/health").status_code == 404


# flow_grpo's reward-server and verl-omni's HTTP scorer.


def test_flow_grpo_deqa(client: TestClient) -> None:
    data = pickle.dumps({"images": [jpeg(grey(x)) for x in LEVELS], "prompts": ["a", "b", "c"]})
    answer = client.post("/", content=data)
    assert answer.status_code == 200
    assert pickle.loads(answer.content)["outputs"] == EXPECTED


def test_flow_grpo_geneval(client: TestClient) -> None:
    metas = [
        {"tag": tag, "include": [{"class": "fox", "count": 1}], "prompt": "a fox"}
        for tag in ("counting", "colors", "counting")
    ]
    asked = {"images": [jpeg(grey(x)) for x in LEVELS], "meta_datas": metas, "only_strict": True}
    found = pickle.loads(client.post("/", content=pickle.dumps(asked)).content)
    for key in ("scores", "rewards", "strict_rewards"):
        assert found[key] == EXPECTED
    for key in ("group_rewards", "group_strict_rewards"):
        assert found[key]["counting"] == pytest.approx([0, -10, 1], abs=1e-6)
        assert found[key]["colors"] == pytest.approx([-10, 0.2, -10], abs=1e-6)


def test_verl_omni(client: TestClient) -> None:
    for url, expected in (("/", 0.2), ("/models/double/pickle", 0.4)):
        tensor = torch.full((3, 10, 12), 51, dtype=torch.uint8)
        image = Image.fromarray(tensor.permute(1, 2, 0).cpu().numpy())
        payload = pickle.dumps({"images": [jpeg(image)], "prompts": ["a"], "metadata": {}})
        found = pickle.loads(client.post(url, content=payload).content)
        assert "error" not in found
        assert float(found["scores"][0]) == pytest.approx(expected, abs=1e-6)


def test_errors_of_the_pickled_forms(client: TestClient) -> None:
    """verl-omni reads an error from a good answer; flow_grpo looks for scores in it."""
    asked: dict[str, object] = {"images": [b"no image"], "prompts": ["a"]}
    answer = client.post("/", content=pickle.dumps(asked))
    assert answer.status_code == 422
    assert "image 0" in pickle.loads(answer.content)["error"]
    answer = client.post("/", content=pickle.dumps(asked | {"metadata": {}}))
    assert answer.status_code == 200
    assert "image 0" in pickle.loads(answer.content)["error"]
    for wrong in (
        [],
        {"images": [b""]},
        {"images": [b""], "prompts": []},
        {"images": ["a"], "prompts": ["a"]},
        {"images": b"", "prompts": ""},
    ):
        answer = client.post("/", content=pickle.dumps(wrong))
        assert answer.status_code == 400
        assert "images" in pickle.loads(answer.content)["error"]
    answer = client.post("/", content=b"cos\nsystem\n(S'true'\ntR.")
    assert answer.status_code == 400
    assert "os.system" in pickle.loads(answer.content)["error"]


# cosmos-rl's reward service.


def cosmos_body(images: np.ndarray, **changed: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    meta = {
        "media_type": "image",
        "prompts": ["a"] * len(images),
        "reward_fn": {"bright": 1.0, "double": 0.5, "unused": 0},
    } | changed
    return json.dumps(meta).encode() + b"\n" + buffer.getvalue()


def cosmos_pull(client: TestClient, uuid: str, name: str) -> dict[str, Any]:
    for _ in range(200):
        answer = client.post("/api/reward/pull", data={"uuid": uuid, "type": name})
        if answer.status_code == 200:
            return answer.json()  # type: ignore[no-any-return] # JSON
        assert answer.status_code == 400, answer.text
        time.sleep(0.05)
    pytest.fail("no result")


def test_cosmos_rl(client: TestClient) -> None:
    ping = client.post("/api/reward/ping", data={"info_data": json.dumps({"prompts": []})})
    assert ping.status_code == 200
    images = np.stack([np.full((10, 12, 3), level, np.uint8) for level in LEVELS])
    answer = client.post(
        "/api/reward/enqueue",
        content=cosmos_body(images),
        headers={"Content-Type": "application/octet-stream"},
    )
    answer.raise_for_status()
    uuid = answer.json()["uuid"]
    found = cosmos_pull(client, uuid, "bright")
    assert found["scores"] == {"bright": EXPECTED}
    assert found["type"] == "bright"
    assert found["duration"] >= 0
    # A weight only says that a reward is wanted; another pull finds the rest.
    assert cosmos_pull(client, uuid, "double")["scores"]["double"] == pytest.approx(
        [0, 0.4, 2], abs=1e-6
    )
    assert set(cosmos_pull(client, uuid, "all")["scores"]) == {"bright", "double"}


def test_cosmos_rl_names_the_image_that_has_no_score(client: TestClient) -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    body = cosmos_body(images, prompts=["a", ""], reward_fn={"bright": 1})
    uuid = client.post("/api/reward/enqueue", content=body).json()["uuid"]
    for _ in range(100):
        answer = client.post("/api/reward/pull", data={"uuid": uuid, "type": "bright"})
        if answer.status_code != 400:
            break
        time.sleep(0.05)
    assert answer.status_code == 422
    assert "image 1: its prompt is empty" in answer.json()["detail"]


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


HEAD = json.dumps({"prompts": ["a"], "reward_fn": {"bright": 1}}).encode() + b"\n"
SMALL = np.zeros((1, 2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON"),
        (b"[]\n", "reward_fn"),
        (HEAD, "numpy.save"),
        (HEAD + b"\x93NUMPY", "numpy.save"),
        (HEAD + npy(SMALL.astype(np.float32)), "float32"),
        (HEAD + npy(SMALL)[:-1], "11 bytes"),
        (HEAD + npy(SMALL).replace(b"(1, 2, 2, 3)", b"(9, 9, 9, 3)"), "(9, 9, 9, 3)"),
        (HEAD + npy(np.array([{}], dtype=object), allow_pickle=True), "object"),
        (HEAD + npy(np.zeros((2, 2, 2, 3), np.uint8)), "1 prompts"),
        (HEAD.replace(b"bright", b"none") + npy(SMALL), "no reward 'none'"),
        (HEAD.replace(b'{"p', b'{"media_type": "video", "p') + npy(SMALL), "videos"),
        (HEAD.replace(b"1}", b'"x"}') + npy(SMALL), "weights"),
    ],
    ids=range(12),
)
def test_cosmos_rl_refuses(client: TestClient, body: bytes, words: str) -> None:
    answer = client.post("/api/reward/enqueue", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_cosmos_rl_knows_no_other_request(client: TestClient) -> None:
    answer = client.post("/api/reward/pull", data={"uuid": "none", "type": "bright"})
    assert answer.status_code == 404


def test_all_protocols_give_the_same_score() -> None:
    image = noisy(1)[0]
    with served() as client:
        own = client.post("/v1/score", json={"images": [b64(image)], "prompts": "a"}).json()
        item = unirl_item(b64(image), "a", ["bright"], 0)
        theirs = unirl_post(client, [item])["results"][0]["bright"]["score"]
        other = client.post("/compute", json={"prompt": ["a"], "image": [b64(image)]}).json()
    assert own["scores"] == [theirs] == other["rewards"]
