"""A scorer on a server: the same scores as here, and what happens when it does not answer."""

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import safetensors.torch
import torch
from helpers.brightness import Brightness
from helpers.served import BASE, Through, grey, noisy, remote, served
from helpers.tiny import tiny_clip
from helpers.tiny_pipelines import build
from PIL import Image
from starlette.testclient import TestClient

import stablepref
from stablepref.data.groups import RankedGroup
from stablepref.evaluation import evaluate
from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.ensemble import Ensemble
from stablepref.integrations.reward import DifferentiableReward
from stablepref.models.remote import RemoteScorer, parse_address
from stablepref.models.wire import Deferred, pack, unpack
from stablepref.scorer import Scorer
from stablepref.scoring.contract import FailedInputsError
from stablepref.weights.fingerprint import weights_digest
from stablepref.weights.hub import UnavailableError

PROMPTS = ["a red fox", "a dog", "two owls", "a red fox", "日本"]


@pytest.fixture(scope="module")
def local() -> Scorer:
    return tiny_clip()


@pytest.fixture(scope="module")
def client(local: Scorer) -> Iterator[TestClient]:
    scorers = {"tiny": local, "hps": tiny_clip(protocol="hps")}
    with served(scorers) as client:
        yield client


@pytest.fixture(scope="module")
def far(client: TestClient) -> RemoteScorer:
    return remote(client, "tiny")


def test_it_describes_itself_as_the_model_does(far: RemoteScorer, local: Scorer) -> None:
    assert far.name == "tiny@127.0.0.1:8000"
    assert (far.unit, far.protocol) == (local.unit, local.protocol)
    assert (far.preference_scale, far.needs_prompt) == (local.preference_scale, local.needs_prompt)


@pytest.mark.parametrize(
    "images",
    [
        noisy(5),
        list(torch.rand(5, 3, 40, 52, generator=torch.Generator().manual_seed(0))),
        torch.rand(5, 3, 30, 33, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16),
        [torch.rand(3, size, 50) for size in (40, 41, 40, 60, 41)],
        (torch.rand(5, 40, 52, 3) * 255).to(torch.uint8).numpy(),
        [*noisy(2), *torch.rand(3, 3, 20, 20)],
    ],
    ids=["pictures", "floats", "bfloat16", "sizes", "levels", "mixed"],
)
@pytest.mark.parametrize("views", [0, 3])
def test_scores_are_equal_to_the_last_bit(
    far: RemoteScorer,
    local: Scorer,
    images: Any,  # noqa: ANN401 (in any form)
    views: int,
) -> None:
    expected = local.score(images, PROMPTS, views=views)
    assert torch.equal(far.score(images, PROMPTS, views=views), expected)


def test_views_of_large_pictures_are_equal_to_the_last_bit(
    far: RemoteScorer, local: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are made one by one, so that the pixels of several are never in memory together."""
    monkeypatch.setattr("stablepref.scoring.batching.LARGE", 30 * 30)
    images = noisy(3)
    expected = local.score(images, PROMPTS[:3], views=3)
    assert torch.equal(far.score(images, PROMPTS[:3], views=3), expected)


def test_rank_compare_stream_and_matrix(far: RemoteScorer, local: Scorer) -> None:
    images = noisy(4)
    assert far.rank(images, "a fox") == local.rank(images, "a fox")
    assert far.compare(*images[:2], "left of a fox") == local.compare(*images[:2], "left of a fox")
    streams = [list(one.stream(iter(images), "a", views=2)) for one in (far, local)]
    assert streams[0] == streams[1]
    torch.testing.assert_close(
        far.score_matrix(images, PROMPTS), local.score_matrix(images, PROMPTS)
    )


def test_pixels_without_gradient(far: RemoteScorer, local: Scorer) -> None:
    pixels = torch.rand(3, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(far(pixels, PROMPTS[:3]), local(pixels, PROMPTS[:3]))


def test_as_a_reward_of_policy_gradients(far: RemoteScorer, local: Scorer) -> None:
    """Which need no gradient: weak views of float pixels, as DDPO's rewards are."""
    pixels = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        found = [
            DifferentiableReward(one, views=2, reduce="min")(pixels, PROMPTS[:2])
            for one in (far, local)
        ]
    torch.testing.assert_close(*found)


def test_there_is_no_gradient_and_it_says_so(far: RemoteScorer) -> None:
    pixels = torch.rand(1, 3, 40, 40, requires_grad=True)
    with pytest.raises(TypeError, match=r"tiny@.* is a model on a server, without gradient"):
        far(pixels, ["a"])
    with pytest.raises(ValueError, match="no gradient"):
        DifferentiableReward(far)(pixels, ["a"])
    for refused in (lambda: far.encode_prompts(["a"]), far.config, far.towers):
        with pytest.raises((TypeError, ValueError), match="tiny@"):
            refused()


def test_in_an_ensemble(client: TestClient, far: RemoteScorer, local: Scorer) -> None:
    members = [local, tiny_clip(protocol="hps", name="hps")]
    there = Ensemble([far, remote(client, "hps")], weights=[1.0, 2.0])
    here = Ensemble(members, weights=[1.0, 2.0])
    images = noisy(3)
    torch.testing.assert_close(there.score(images, "a"), here.score(images, "a"))


def test_in_best_of_n(far: RemoteScorer, local: Scorer) -> None:
    pipe, arguments = build("sd")
    picked = [best_of_n(pipe, "a dog", one, 3, **arguments) for one in (far, local)]
    scores = [[candidate.score for candidate in one.candidates] for one in picked]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert picked[0].kept == picked[1].kept


def test_in_an_evaluation(far: RemoteScorer, local: Scorer) -> None:
    groups = [RankedGroup("a fox", noisy(3, seed), [0, 1, 2]) for seed in range(2)]
    reports = [evaluate(one, groups) for one in (far, local)]
    assert reports[0].accuracy == reports[1].accuracy


def test_bad_images_are_errors_in_their_places(client: TestClient) -> None:
    """What the server rejects is one image's error; the others keep their scores."""
    with served({"bright": Brightness()}, max_megapixels=0.001) as small:
        far = remote(small)
        images = [grey(51), grey(51, (50, 50)), "nowhere.png", grey(255)]
        with pytest.warns(UserWarning, match="2 of 4"):
            scores = far.score(images, "a", on_error="nan")
    assert scores.tolist() == pytest.approx([0.2, float("nan"), float("nan"), 1], nan_ok=True)


class Scripted(httpx2.BaseTransport):
    """A server that answers from a list, and then with the last of it."""

    def __init__(self, *answers: Callable[[httpx2.Request], httpx2.Response] | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        if request.method == "GET":
            return httpx2.Response(200, json=DESCRIBED)
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request)


DESCRIBED = {
    "models": [
        {
            "name": "m",
            "unit": "u",
            "preference_scale": None,
            "protocol": "clip",
            "needs_prompt": True,
            "fingerprint": "0",
        }
    ],
    "limits": {"max_request_bytes": 10_000, "max_pixels": 10**6},
}


def says(status: int, content: object, **headers: str) -> Callable[..., httpx2.Response]:
    return lambda _: httpx2.Response(status, json=content, headers=headers)


def good(request: httpx2.Request) -> httpx2.Response:
    rows = unpack(request.content).rows
    return httpx2.Response(200, json={"scores": [1.5] * len(rows), "errors": [None] * len(rows)})


def scripted(*answers: Any, **options: Any) -> tuple[RemoteScorer, Scripted]:  # noqa: ANN401
    transport = Scripted(*answers)
    return RemoteScorer(f"{BASE}/m", transport=transport, **options), transport


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("stablepref.models.remote.time.sleep", found.append)
    return found


@pytest.mark.parametrize(
    "failure",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("cut"),
        says(500, {"detail": "x"}),
        says(502, {}),
        says(503, {}, **{"Retry-After": "7"}),
        says(429, {}),
        says(408, {}),
        lambda _: httpx2.Response(200, content=b"not json"),
    ],
    ids=range(9),
)
def test_what_may_pass_is_tried_again(failure: Any, pauses: list[float]) -> None:  # noqa: ANN401
    far, transport = scripted(failure, failure, good)
    assert far.score(grey(1), "a").tolist() == [1.5]
    assert len(transport.requests) == 3
    assert len({request.content for request in transport.requests}) == 1
    assert len(pauses) == 2


def test_a_busy_server_says_when_to_come_back(pauses: list[float]) -> None:
    far, _ = scripted(*[says(503, {}, **{"Retry-After": "7"})] * 20, good)
    assert far.score(grey(1), "a").tolist() == [1.5]
    assert all(3.5 <= pause <= 10.5 for pause in pauses)
    assert len(pauses) == 20


def test_a_busy_server_is_not_waited_for_forever(pauses: list[float]) -> None:
    far, _ = scripted(says(503, {"detail": "256 requests wait"}), patience=0.0)
    with pytest.raises(UnavailableError, match="256 requests wait"):
        far.score(grey(1), "a")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_other_refusals_end_at_once_with_the_servers_words(
    status: int, pauses: list[float]
) -> None:
    far, transport = scripted(says(status, {"detail": "the server's own words"}))
    with pytest.raises(UnavailableError, match=rf"{status}: the server's own words"):
        far.score(grey(1), "a")
    assert len(transport.requests) == 1
    assert not pauses


def test_a_server_that_is_gone_is_given_up(pauses: list[float]) -> None:
    far, transport = scripted(httpx2.ConnectError("connection refused"), retries=2)
    with pytest.raises(UnavailableError, match="connection refused after 3 tries"):
        far.score(grey(1), "a")
    assert len(transport.requests) == 3


def test_too_few_scores_are_no_answer() -> None:
    far, _ = scripted(says(200, {"scores": [1.0], "errors": [None]}))
    with pytest.raises(UnavailableError, match="1 scores for 2 images"):
        far.score([grey(1), grey(2)], "a")


def test_a_batch_is_split_by_the_servers_largest_request() -> None:
    far, transport = scripted(good)
    images = [grey(level, (30, 20)) for level in range(20)]  # 1800 bytes each, 9000 are allowed
    assert far.score(images, "a", batch_size=20).tolist() == [1.5] * 20
    counts = [len(unpack(request.content).rows) for request in transport.requests]
    assert counts == [5, 5, 5, 5]
    assert all(len(request.content) <= 10_000 for request in transport.requests)


def test_an_image_larger_than_that_is_sent_and_refused_by_the_server() -> None:
    far, _ = scripted(says(413, {"detail": "too large"}))
    with pytest.raises(UnavailableError, match="too large"):
        far.score(grey(1, (100, 100)), "a")


def test_reasons_of_the_server(pauses: list[float]) -> None:
    far, _ = scripted(says(200, {"scores": [1.0, None], "errors": [None, "it is odd"]}))
    with pytest.raises(FailedInputsError, match="image 1 of its batch: it is odd"):
        far.score_inputs([grey(1), grey(2)], ["a", "b"])


def test_an_image_is_sent_once_for_all_its_views() -> None:
    far, transport = scripted(good)
    far.score(grey(3, (20, 20)), "a", views=4)
    sent = safetensors.torch.load(transport.requests[1].content)
    assert sent["pixels.0"].shape == (1, 3, 20, 20)
    assert sent["pixels.0"].dtype == torch.uint8
    assert sent["boxes.0"].shape == (1, 4, 4)


def test_copies_and_pickles(far: RemoteScorer) -> None:
    scorer, _ = scripted(good)
    scorer.score(grey(1), "a")
    for made in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
        assert made.score(grey(1), "a").tolist() == [1.5]


def test_fingerprints_follow_the_servers_model(client: TestClient, far: RemoteScorer) -> None:
    assert weights_digest(far) == weights_digest(remote(client, "tiny"))
    assert weights_digest(far) != weights_digest(remote(client, "hps"))


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STABLEPREF_TOKEN", raising=False)
    assert parse_address("http://host:1/m") == ("http://host:1", "m", None)
    assert parse_address("https://host/a/b/m") == ("https://host/a/b", "m", None)
    assert parse_address("http://host:1") == ("http://host:1", "", None)
    assert parse_address("http://host:1/") == ("http://host:1", "", None)
    assert parse_address("http://:a%2Fb@host/m%20n") == ("http://host", "m n", "a/b")
    monkeypatch.setenv("STABLEPREF_TOKEN", "t")
    assert parse_address("http://[::1]:1/m") == ("http://[::1]:1", "m", "t")
    with pytest.raises(ValueError, match="not http://host:port/model"):
        parse_address("http:///m")


def test_the_token_is_sent_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STABLEPREF_TOKEN", raising=False)
    with served(token="abc") as client:
        far = RemoteScorer("http://:abc@127.0.0.1:8000/bright", transport=Through(client))
        assert far.score(grey(255), "a").tolist() == pytest.approx([1])
        assert "abc" not in far.name
        with pytest.raises(UnavailableError, match=r"401.*Bearer TOKEN"):
            remote(client)


@pytest.mark.parametrize(
    ("model", "words"),
    [("none", "no model 'none'; expected .*tiny, hps"), ("", "several models")],
)
def test_models_that_the_server_does_not_have(client: TestClient, model: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        remote(client, model)


def test_something_else_than_a_server_of_stablepref() -> None:
    class Other(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, json={"hello": "world"})

    with pytest.raises(UnavailableError, match="not a server of stablepref"):
        RemoteScorer(BASE, transport=Other())


def test_load_takes_an_address(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = httpx2.Client
    monkeypatch.setattr(
        "stablepref.models.remote.httpx2.Client",
        lambda **options: plain(**options | {"transport": Through(client)}),
    )
    stablepref.load.cache_clear()
    far = stablepref.load(f"{BASE}/tiny", device="cpu", dtype="bfloat16")
    assert isinstance(far, RemoteScorer)
    assert stablepref.load(f"{BASE}/tiny", device="cpu", dtype="bfloat16") is far
    stablepref.load.cache_clear()


def _bytes(tensors: dict[str, torch.Tensor], **request: object) -> bytes:
    return safetensors.torch.save(tensors, metadata={"request": json.dumps(request)})


PICTURE = torch.zeros(4, 5, 3, dtype=torch.uint8)
PIXELS = torch.zeros(2, 3, 4, 5)
BOX = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4).contiguous()


@pytest.mark.parametrize(
    ("tensors", "row"),
    [
        ({"picture.0": PICTURE.float()}, ["picture", 0, None, None, 0]),
        ({"picture.0": PICTURE[:, :, :2].contiguous()}, ["picture", 0, None, None, 0]),
        ({"picture.x": PICTURE}, ["picture", 0, None, None, 0]),
        ({"picture.0": PICTURE[:0]}, ["picture", 0, None, None, 0]),
        ({"picture.0": PICTURE}, ["picture", 1, None, None, 0]),
        ({"picture.0": PICTURE}, ["picture", 0, None, None, 1]),
        ({"picture.0": PICTURE}, ["picture", 0, None, None, -1]),
        ({"picture.0": PICTURE}, ["picture", [], None, None, 0]),
        ({"picture.0": PICTURE}, ["other", 0, None, None, 0]),
        ({"picture.0": PICTURE}, ["picture"]),
        ({"pixels.0": PIXELS[0].contiguous()}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS + 2}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS * float("nan")}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS.int()}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS}, ["pixels", 0, 2, None, 0]),
        ({"pixels.0": PIXELS}, ["pixels", 0, None, None, 0]),
        ({"pixels.0": PIXELS}, ["pixels", 0, 0, 0, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX}, ["pixels", 0, 0, 1, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX * 2}, ["pixels", 0, 0, 0, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX.flip(2).contiguous()}, ["pixels", 0, 0, 0, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX[:1].contiguous()}, ["pixels", 0, 0, 0, 0]),
        ({"pixels.0": PIXELS, "hflip.0": torch.zeros(2, 1)}, ["pixels", 0, 0, 0, 0]),
        ({"pieces.0": PIXELS, "boxes.0": BOX, "hflip.0": BOX[:, :, 0] > 0}, ["pixels", 0, 0, 0, 0]),
        ({"pieces.0": PICTURE.permute(2, 0, 1)[None].contiguous()}, ["pixels", 0, 0, None, 0]),
    ],
    ids=range(25),
)
def test_a_request_that_only_looks_like_one(
    client: TestClient, tensors: dict[str, torch.Tensor], row: list[object]
) -> None:
    body = _bytes(tensors, prompts=["a"], rows=[row])
    answer = client.post("/v1/models/tiny/tensors", content=body)
    assert answer.status_code == 400, answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello world, hello world",
        b"\xff" * 100,
        _bytes({"picture.0": PICTURE}, prompts=["a"]),
        _bytes({"picture.0": PICTURE}, prompts="a", rows=[["picture", 0, None, None, 0]]),
        _bytes({"picture.0": PICTURE}, prompts=[1], rows=[["picture", 0, None, None, 0]]),
        safetensors.torch.save({"picture.0": PICTURE}),
        _bytes({"picture.0": PICTURE}, prompts=["a"], rows=[])[:-1],
    ],
    ids=range(8),
)
def test_a_body_that_is_no_request(client: TestClient, body: bytes) -> None:
    assert client.post("/v1/models/tiny/tensors", content=body).status_code == 400


def test_views_of_pictures_of_several_sizes_keep_their_rows() -> None:
    preprocess = Deferred("clip")
    boxes = torch.tensor([0.1, 0.2, 0.8, 0.9]).expand(2, 3, 4)
    pixels = [torch.rand(3, 4, 5), torch.rand(3, 6, 7)]
    rows = preprocess(pixels, boxes, None)
    request = unpack(pack([rows[1][2]], ["a"]))
    assert request.rows[0][1:4] == (0, 0, 2)
    assert next(iter(request.pixels.values())).pixels.shape == (1, 3, 6, 7)


def test_pictures_come_through_as_they_are() -> None:
    image = noisy(1)[0]
    (found,) = unpack(pack([image, image], ["a", "b"])).pictures.values()
    assert found.tobytes() == image.tobytes()
    assert isinstance(found, Image.Image)
