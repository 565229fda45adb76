"""A scorer on a server: the same scores as here, under the same names."""

from typing import Any

import httpx2
import pytest
import torch
from helpers.brightness import Brightness
from helpers.served import BASE, Through, grey, noisy, remote, served
from helpers.tiny import tiny_clip
from helpers.tiny_pipelines import build
from starlette.testclient import TestClient

import stablepref
from stablepref.data.groups import RankedGroup
from stablepref.evaluation import evaluate
from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.ensemble import Ensemble
from stablepref.integrations.reward import DifferentiableReward
from stablepref.models.remote import RemoteScorer, parse_address
from stablepref.scorer import Scorer
from stablepref.weights.fingerprint import weights_digest
from stablepref.weights.hub import UnavailableError

PROMPTS = ["a red fox", "a dog", "two owls", "a red fox", "日本"]


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
