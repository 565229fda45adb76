"""The nodes, loaded from their folder and run as ComfyUI does it."""

import importlib.util
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.places import ROOT
from PIL import Image

import stablepref

FOLDER = ROOT / "integrations" / "comfyui"
SAMPLER = {
    "model": "model",
    "positive": "+",
    "negative": "-",
    "steps": 4,
    "cfg": 7.5,
    "sampler_name": "euler",
    "scheduler": "normal",
    "denoise": 1.0,
}
BUILT_IN = {
    "CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"),
    "CLIPTextEncode": ("CONDITIONING",),
    "EmptyLatentImage": ("LATENT",),
    "KSampler": ("LATENT",),
    "VAEDecode": ("IMAGE",),
    "SaveImage": (),
}
"""Return types of ComfyUI's own nodes in the workflows."""


def common_ksampler(**inputs: Any) -> tuple[dict[str, Any]]:  # noqa: ANN401 (as there)
    """Latents of one grey, which the seed decides; other inputs must be those of ComfyUI's."""
    assert set(inputs) == {*SAMPLER, "seed", "latent"}
    shade = (inputs["seed"] * 37 % 256) / 255
    return ({"samples": torch.full_like(inputs["latent"]["samples"], shade)},)


class Vae:
    """Decodes each latent to a plain grey picture."""

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        return samples[:, :1, :1, :1].expand(-1, 16, 24, 3)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, Any]]:
    """The table of the folder, loaded by its path where ComfyUI's own modules are at hand."""
    samplers = ModuleType("comfy.samplers")
    samplers.KSampler = SimpleNamespace(SAMPLERS=["euler"], SCHEDULERS=["normal"])  # type: ignore[attr-defined]
    comfy = ModuleType("comfy")
    comfy.samplers = samplers  # type: ignore[attr-defined]
    own = ModuleType("nodes")
    own.common_ksampler = common_ksampler  # type: ignore[attr-defined]
    for name, module in (("comfy", comfy), ("comfy.samplers", samplers), ("nodes", own)):
        monkeypatch.setitem(sys.modules, name, module)
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)
    yield module.NODE_CLASS_MAPPINGS
    for loaded in [one for one in sys.modules if one.startswith(f"{name}.")]:
        del sys.modules[loaded]


@pytest.fixture
def bright() -> stablepref.FunctionScorer:
    """Scores the mean level of the first channel."""

    def levels(images: list[Image.Image], prompts: list[str]) -> list[float]:
        return [float(np.asarray(one)[..., 0].mean()) for one in images]

    return stablepref.FunctionScorer(levels, name="bright", unit="levels", preference_scale=0.01)


def run(node: Any, **inputs: Any) -> tuple[Any, ...]:  # noqa: ANN401 (of every type)
    """Call a node as ComfyUI does: by keyword, and with one value for each of its outputs."""
    known = node.INPUT_TYPES()
    allowed = {**known["required"], **known.get("optional", {})}
    assert set(known["required"]) <= set(inputs) <= set(allowed)
    done = getattr(node(), node.FUNCTION)(**inputs)
    assert isinstance(done, tuple)
    assert len(done) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    for value, is_list in zip(
        done, getattr(node, "OUTPUT_IS_LIST", [False] * len(done)), strict=True
    ):
        assert isinstance(value, list) == is_list
    return done


def greys(*levels: float, channels: int = 3) -> torch.Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 8, 12, channels) / 255


def test_scores_are_those_of_the_files_that_are_saved(
    nodes: Mapping[str, Any], bright: stablepref.FunctionScorer
) -> None:
    """Save Image cuts off what is outside [0, 1], and rounds down."""
    images = greys(-20.0, 10.7, 300.0, channels=4)
    scores, mean, text = run(
        nodes["StableprefScoreImages"], reward=bright, images=images, prompt="a cat"
    )
    assert scores == [0, 10, 255]
    assert mean == pytest.approx(265 / 3)
    assert text.splitlines() == ["bright, levels", "0: 0.0000", "1: 10.0000", "2: 255.0000"]


def test_the_best_are_picked_unchanged(
    nodes: Mapping[str, Any], bright: stablepref.FunctionScorer
) -> None:
    images = greys(10, 200, 30.5, 90)
    node = nodes["StableprefPickBest"]
    best, scores, places = run(node, reward=bright, images=images, prompt="a cat", keep=2)
    assert places == [1, 3]
    assert scores == [200, 90]
    assert torch.equal(best, images[[1, 3]])
    everything, _, order = run(node, reward=bright, images=images, prompt="a cat", keep=9)
    assert order == [1, 3, 2, 0]
    assert torch.equal(everything, images[order])


@pytest.mark.parametrize(
    ("a", "b", "preferred", "shown"), [(10, 90, "b", 90), (90, 10, "a", 90), (50, 50, "tie", 50)]
)
def test_two_are_compared(
    a: float, b: float, preferred: str, shown: float,
    nodes: Mapping[str, Any], bright: stablepref.FunctionScorer,
) -> None:  # fmt: skip
    found, probability, margin, spread, image = run(
        nodes["StableprefCompare"],
        reward=bright,
        image_a=greys(a),
        image_b=greys(b),
        prompt="a cat",
    )
    assert (found, margin, spread) == (preferred, a - b, 0)
    assert probability == pytest.approx(1 / (1 + math.exp(-0.01 * (a - b))))
    assert torch.equal(image, greys(shown))


def test_a_model_without_probabilities_gives_nan(nodes: Mapping[str, Any]) -> None:
    plain = stablepref.FunctionScorer(lambda i, p: [1.0] * len(i), name="plain", unit="none")
    probability = run(
        nodes["StableprefCompare"],
        reward=plain,
        image_a=greys(1),
        image_b=greys(2),
        prompt="a",
    )[1]
    assert math.isnan(probability)


@pytest.mark.parametrize(("n", "keep"), [(7, 3), (2, 5), (1, 1)])
def test_best_of_n_seeds(
    n: int, keep: int, nodes: Mapping[str, Any], bright: stablepref.FunctionScorer
) -> None:
    seed = 2**64 - 3  # the seeds go on from 0 after the largest
    latent = {"samples": torch.zeros(1, 4, 2, 3), "noise_mask": "kept"}
    images, made, scores, seeds = run(
        nodes["StableprefBestOfN"],
        reward=bright, latent_image=latent, vae=Vae(), prompt="a", n=n, keep=keep, seed=seed,
        **SAMPLER,
    )  # fmt: skip
    every = [(seed + number) % 2**64 for number in range(n)]
    expected = sorted(every, key=lambda one: -(one * 37 % 256))[:keep]
    assert seeds == expected
    assert scores == [one * 37 % 256 for one in expected]
    assert images.shape == (min(n, keep), 16, 24, 3)
    assert (255 * images[:, 0, 0, 0]).round().tolist() == scores
    assert (255 * made["samples"][:, 0, 0, 0]).round().tolist() == scores
    assert made["noise_mask"] == "kept"


def test_of_equal_scores_the_earlier_seed_is_kept(nodes: Mapping[str, Any]) -> None:
    plain = stablepref.FunctionScorer(lambda i, p: [1.0] * len(i), name="plain", unit="none")
    seeds = run(
        nodes["StableprefBestOfN"],
        reward=plain, latent_image={"samples": torch.zeros(1, 4, 2, 3)}, vae=Vae(), prompt="a",
        n=5, keep=2, seed=10, **SAMPLER,
    )[3]  # fmt: skip
    assert seeds == [10, 11]


def test_wrong_batches_are_named(
    nodes: Mapping[str, Any], bright: stablepref.FunctionScorer
) -> None:
    score = nodes["StableprefScoreImages"]
    with pytest.raises(ValueError, match=r"shape \(8, 12, 3\); expected \(batch, height, width, 3"):
        run(score, reward=bright, images=greys(1)[0], prompt="a")
    with pytest.raises(ValueError, match=r"shape \(1, 8, 12, 1\)"):
        run(score, reward=bright, images=greys(1, channels=1), prompt="a")
    with pytest.raises(ValueError, match="hold NaN: look at the VAE"):
        run(score, reward=bright, images=greys(math.nan), prompt="a")
    with pytest.raises(ValueError, match="image_b is a batch of 2 images; expected one"):
        run(
            nodes["StableprefCompare"],
            reward=bright, image_a=greys(1), image_b=greys(1, 2), prompt="a",
        )  # fmt: skip
    with pytest.raises(ValueError, match="latent_image is a batch of 2; expected one"):
        run(
            nodes["StableprefBestOfN"],
            reward=bright, latent_image={"samples": torch.zeros(2, 4, 2, 3)}, vae=Vae(),
            prompt="a", n=2, keep=1, seed=0, **SAMPLER,
        )  # fmt: skip


def test_a_reward_is_loaded_by_name_or_from_a_folder(
    nodes: Mapping[str, Any], model: Path, tmp_path: Path
) -> None:
    load = nodes["StableprefLoadReward"]
    (names, *_) = load.INPUT_TYPES()["required"]["model"]
    assert {"hps-v2.1", "shapes"} <= set(names)
    (named,) = run(load, model="shapes", dtype="float32", device="cpu")
    assert named.name == "shapes"
    own = names[-1]
    given = {"model": own, "path": str(model)}
    (loaded,) = run(load, **given, dtype="float32", device="auto")
    assert isinstance(loaded, stablepref.Scorer)
    assert load.VALIDATE_INPUTS(**given) is True
    assert "does not exist" in load.VALIDATE_INPUTS(own, str(tmp_path / "none"))


def test_a_model_that_was_trained_again_is_another_one(
    nodes: Mapping[str, Any], tmp_path: Path
) -> None:
    load = nodes["StableprefLoadReward"]
    own = load.INPUT_TYPES()["required"]["model"][0][-1]
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    before = load.IS_CHANGED(own, path=str(tmp_path))
    assert load.IS_CHANGED(own, path=str(tmp_path)) == before
    stat = weights.stat()
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert load.IS_CHANGED(own, path=str(tmp_path)) != before
    assert load.IS_CHANGED("shapes") == load.IS_CHANGED("shapes", path="anything")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("workflows/*.json")), ids=lambda p: p.stem)
def test_the_workflow_fits_the_nodes(path: Path, nodes: Mapping[str, Any]) -> None:
    """Every input is there and of its type, every link leads to an output of that type."""
    workflow = json.loads(path.read_text())
    types = {**BUILT_IN, **{name: node.RETURN_TYPES for name, node in nodes.items()}}
    assert any(step["class_type"] in nodes for step in workflow.values())
    for step in workflow.values():
        if step["class_type"] not in nodes:
            assert step["class_type"] in BUILT_IN
            continue
        known = nodes[step["class_type"]].INPUT_TYPES()
        allowed = {**known["required"], **known.get("optional", {})}
        assert set(known["required"]) <= set(step["inputs"]) <= set(allowed)
        for name, value in step["inputs"].items():
            kind = allowed[name][0]
            if isinstance(value, list):
                source, output = value
                assert types[workflow[source]["class_type"]][output] == kind
            elif isinstance(kind, list):
                assert value in kind
            else:
                assert isinstance(value, {"STRING": str, "INT": int, "FLOAT": float}[kind])
