"""verl-omni's latent rewards, by an imitation of its client `latent_http_scorer_client`."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.brightness import Brightness
from helpers.served import served
from helpers.small_vae import vae as small_vae
from safetensors.torch import save
from starlette.testclient import TestClient

from stablepref.integrations.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder, as far as it is looked at: its VAE, with SD 3.5's scale."""
    folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    small_vae(16, scaling_factor=1.5305, shift_factor=0.0609).save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    plain, worded = Brightness(), Brightness()
    plain.needs_prompt = False
    scorers = {"worded": worded, "plain": plain}
    with served(scorers, vae=str(folder), max_megapixels=0.001) as client:
        yield client


def batched(value: Any, rank: int) -> torch.Tensor:  # noqa: ANN401
    value = value.detach()
    value = value.unsqueeze(0) if value.ndim == rank - 1 else value
    assert value.shape[0] == 1
    return value.cpu().contiguous()


def payload(latents: torch.Tensor, seed: int | None = 0, **changed: torch.Tensor) -> bytes:
    tensors = {
        "latents": batched(latents, 4),
        "prompt_embeds": batched(torch.zeros(333, 8, dtype=torch.bfloat16), 3),
        "pooled_prompt_embeds": batched(torch.zeros(8), 2),
        "u": torch.tensor([0.4], dtype=torch.float32),
    }
    if seed is not None:
        tensors["seeds"] = torch.tensor([seed], dtype=torch.int64)
    return save(tensors | changed)


def request_score(client: TestClient, path: str, body: bytes) -> float:
    headers = {"content-type": "application/octet-stream", "x-drm-protocol-version": "1"}
    response = client.post(path, content=body, headers=headers)
    if response.status_code != 200:
        raise RuntimeError(f"DRM server returned HTTP {response.status_code}: {response.text}")
    result = response.json()
    assert isinstance(result, dict)
    assert result.get("protocol_version") == "1"
    raw_scores = result.get("raw_scores")
    assert isinstance(raw_scores, list)
    assert len(raw_scores) == 1
    raw_score = float(raw_scores[0])
    assert math.isfinite(raw_score)
    return raw_score


@pytest.mark.parametrize("path", ["/latents", "/models/plain/latents"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_picture_is_scored(
    client: TestClient, folder: Path, path: str, dtype: torch.dtype
) -> None:
    latents = torch.randn(16, 6, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    vae = small_vae(16).from_pretrained(folder / "vae")
    with torch.no_grad():
        picture = vae.decode(latents[None].float() / 1.5305 + 0.0609).sample
    expected = Brightness().score((picture / 2 + 0.5).clamp(0, 1), "any").item()
    found = [request_score(client, path, payload(latents, seed)) for seed in (0, None)]
    assert found == pytest.approx([expected] * 2, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/models/worded/latents", payload(torch.zeros(16, 4, 4)), "worded needs a prompt"),
        ("/models/none/latents", payload(torch.zeros(16, 4, 4)), "404.*worded, plain"),
        ("/latents", payload(torch.zeros(4, 4, 4)), "400.*float \\(16, h, w\\)"),
        ("/latents", payload(torch.zeros(16, 4, 4, dtype=torch.uint8)), "400.*float"),
        ("/latents", payload(torch.full((16, 4, 4), torch.inf)), "400.*not finite"),
        ("/latents", payload(torch.zeros(16, 4, 4), u=torch.tensor([1.5])), "400.*noise level"),
        ("/latents", payload(torch.zeros(16, 4, 4), u=torch.tensor([torch.nan])), "400.*noise"),
        # Old versions of safetensors read no tensor of nothing.
        (
            "/latents",
            payload(torch.zeros(16, 4, 4), u=torch.zeros(0)),
            r"400.*(u must|gth \(0)",
        ),
        ("/latents", save({"latents": torch.zeros(1, 16, 4, 4)}), "400.*prompt_embeds.*nothing"),
        ("/latents", b"\x80\x04N.", "400.*not a safetensors file"),
        ("/latents", payload(torch.zeros(16, 40, 40)), "413.*1000 pixels"),
    ],
)
def test_what_cannot_be_scored(client: TestClient, path: str, body: bytes, words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        request_score(client, path, body)


def test_another_version_of_the_protocol(client: TestClient) -> None:
    for headers in ({}, {"x-drm-protocol-version": "2"}):
        answer = client.post("/latents", content=payload(torch.zeros(16, 4, 4)), headers=headers)
        assert answer.status_code == 400
        assert "speaks '1'" in answer.json()["detail"]


def test_what_the_protocol_needs(folder: Path) -> None:
    with pytest.raises(ValueError, match="pass --vae"):
        ServeSettings(("a",), protocols=("latents",))
    with pytest.raises(ValueError, match="bright needs some: serve a model that needs none"):
        served({"bright": Brightness()}, vae=str(folder)).__enter__()
    plain = Brightness()
    plain.needs_prompt = False
    with pytest.raises(OSError, match="cannot be loaded"):
        served({"plain": plain}, vae=str(folder / "none")).__enter__()
