"""Rewards without gradient, called as trainers call them: threads, shapes, types, keywords."""

import asyncio
import inspect
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_clip
from PIL import Image
from torch import Tensor

from stablepref import load
from stablepref.integrations import sampled_rewards
from stablepref.integrations.sampled_rewards import (
    TTScaleFluxVerifier,
    ddpo_pytorch,
    flow_grpo,
    flow_grpo_multi_score,
    verl_omni,
)

PROMPTS = ("a red circle", "a dog", "two owls")  # trainers pass the tuples that zip gives


@pytest.fixture(scope="module")
def floats() -> Tensor:
    return torch.rand(3, 3, 40, 52, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 40, 52, 3), dtype=np.uint8)


def pictures(levels: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(array) for array in levels]


def close(found: object, expected: Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(found).float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_ddpo_pytorch(floats: Tensor, dtype: torch.dtype) -> None:
    """As its train.py: a factory without arguments, futures of two threads, tensors, one cat."""
    scorer = tiny_clip()
    reward_fn = ddpo_pytorch(scorer)()
    images = floats.to(dtype)
    batches = [images, images.flip(0), images[:2]]
    prompts = [PROMPTS, PROMPTS[::-1], PROMPTS[:2]]
    metadata = tuple({"index": i} for i in range(3))
    with ThreadPoolExecutor(max_workers=2) as executor:
        pending = [
            executor.submit(reward_fn, batch, texts, metadata)
            for batch, texts in zip(batches, prompts, strict=True)
        ]
    rewards = []
    for future in pending:
        values, info = future.result()
        assert info == {}
        rewards.append(torch.as_tensor(values, device="cpu"))
    expected = [
        scorer.score(batch, list(texts)) for batch, texts in zip(batches, prompts, strict=True)
    ]
    close(torch.cat(rewards), torch.cat(expected))


def test_uint8_arrays_are_scored_as_the_pictures_that_they_are(levels: np.ndarray) -> None:
    scorer = tiny_clip()
    expected = scorer.score(pictures(levels), list(PROMPTS))
    close(ddpo_pytorch(scorer)()(levels, PROMPTS, {})[0], expected)
    close(flow_grpo(scorer)("cpu")(levels, PROMPTS, {})[0], expected)


@pytest.fixture
def two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two saved scorers; the first stands in for PickScore under flow_grpo's name."""
    folders = {}
    for name, protocol in (("pickscore-v1", "clip"), ("own", "hps")):
        folders[name] = tmp_path / name
        tiny_clip(protocol=protocol, name=name).save_pretrained(folders[name])
    monkeypatch.setattr(
        sampled_rewards,
        "load",
        lambda name, **kwargs: load(folders.get(str(name), name), dtype="float32", **kwargs),
    )
    return folders


def flow_grpo_step(reward_fn: Callable[..., Any], *arguments: object) -> dict[str, Tensor]:
    """As its train_sd3.py: eight threads, a tensor under each name, one cat, a caption."""
    with ThreadPoolExecutor(max_workers=8) as executor:
        pending = [executor.submit(reward_fn, *arguments, only_strict=True) for _ in range(4)]
    samples = []
    for future in pending:
        rewards, info = future.result()
        assert info == {}
        assert isinstance(f"avg: {rewards['avg'][0]:.2f}", str)
        samples.append({key: torch.as_tensor(value).float() for key, value in rewards.items()})
    return {key: torch.cat([sample[key] for sample in samples]) for key in samples[0]}


def test_flow_grpo_multi_score(floats: Tensor, two_models: dict[str, Path]) -> None:
    own = str(two_models["own"])
    reward_fn = flow_grpo_multi_score(torch.device("cpu"), {"pickscore": 0.5, own: 2.0})
    found = flow_grpo_step(reward_fn, floats, list(PROMPTS), [{}] * 3)
    assert list(found) == ["pickscore", own, "avg"]
    pick = tiny_clip().score(floats, list(PROMPTS)) / 26
    other = tiny_clip(protocol="hps").score(floats, list(PROMPTS))
    for name, expected in (
        ("pickscore", pick),
        (own, other),
        ("avg", 0.5 * pick + 2.0 * other),
    ):
        close(found[name], expected.repeat(4))
    # Its editing scripts also send reference images, by position.
    again = flow_grpo_step(reward_fn, floats, list(PROMPTS), [{}] * 3, [None] * 3)
    close(again["avg"], found["avg"])


def test_flow_grpo_names_are_those_of_the_zoo() -> None:
    from stablepref.models.catalog import BY_NAME  # noqa: PLC0415 - of this test alone

    assert {name for name, _ in sampled_rewards.FLOW_GRPO_NAMES.values()} <= set(BY_NAME)
    with pytest.raises(ValueError, match="empty"):
        flow_grpo_multi_score("cpu", {})
    with pytest.raises(ValueError, match="unknown model 'jpeg'"):
        flow_grpo_multi_score("cpu", {"jpeg": 1.0})


def test_flow_grpo_multi_score_with_functions_of_the_users(floats: Tensor) -> None:
    """Functions, factories with and without a device, scorers, and what they ask for by name."""
    scorer = tiny_clip()
    seen: dict[str, object] = {}

    def plain(images: Tensor, prompts: list[str], metadata: list[dict[str, float]]) -> object:
        return np.array([row["bonus"] for row in metadata]), {}

    def similar(images: Tensor, ref_images: list[float]) -> object:
        return ref_images, {}

    def without_device() -> Callable[..., object]:
        return lambda images, prompts, metadata: (-torch.ones(len(images)), {})

    def with_device(device: torch.device) -> Callable[..., object]:
        seen["device"] = device
        return lambda images, prompts, metadata, only_strict: (
            [1.0, 0.0, 1.0],
            [0.5, 0.5, 1.0],
            [float(only_strict)] * 3,
            {"colors": [0.5]},
            {"colors": [1.0]},
        )

    functions = {
        "plain": plain, "similar": similar, "minus": without_device, "geneval": with_device,
        "mine": scorer,
    }  # fmt: skip
    weights = {"plain": 2.0, "similar": 1.0, "minus": 0.5, "geneval": 3.0, "mine": 0.1}
    device = torch.device("cpu")
    reward = flow_grpo_multi_score(device, weights, functions=functions)
    rows = [{"bonus": 0.5}, {"bonus": 1.5}, {"bonus": 2.5}]
    found, info = reward(floats, PROMPTS, rows, [0.1, 0.2, 0.3], only_strict=False)
    own = scorer.score(floats, list(PROMPTS))
    by_hand = [1.0 + 0.1 - 0.5 + 3.0, 3.0 + 0.2 - 0.5 + 0.0, 5.0 + 0.3 - 0.5 + 3.0]
    close(found["avg"], torch.tensor(by_hand) + 0.1 * own)
    assert info == {}
    assert seen["device"] == device
    assert found["strict_accuracy"] == [0.0] * 3
    assert found["accuracy"] == [0.5, 0.5, 1.0]
    assert (found["colors_accuracy"], found["colors_strict_accuracy"]) == ([0.5], [1.0])
    assert found["plain"] == [0.5, 1.5, 2.5]


def test_flow_grpo_names_have_its_divisors(
    floats: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hpsv2_scorer.py returns the cosine, pickscore_scorer.py / 26, clip_scorer.py / 30."""
    tiny_clip(name="any").save_pretrained(tmp_path / "any")
    asked: list[str] = []

    def loaded(name: str, **kwargs: object) -> object:
        asked.append(name)
        return load(tmp_path / "any", dtype="float32")

    monkeypatch.setattr(sampled_rewards, "load", loaded)
    names = {"hpsv2": 100, "hpsv2_score": 100, "clipscore": 30, "pickscore": 26, "imagereward": 1}
    found, _ = flow_grpo_multi_score("cpu", dict.fromkeys(names, 1.0))(floats, PROMPTS, [{}] * 3)
    for name, divisor in names.items():
        close(found[name], tiny_clip().score(floats, list(PROMPTS)) / divisor)
    assert asked == [
        "hps-v2.1", "hps-v2.1", "clip-vit-l-14", "pickscore-v1", "imagereward-v1",
    ]  # fmt: skip


def test_flow_grpos_own_functions_come_from_its_package(
    floats: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flow_grpo", None)
    with pytest.raises(ImportError, match=r"'ocr' is a reward of flow_grpo itself.*functions="):
        flow_grpo_multi_score("cpu", {"ocr": 1.0})
    theirs = ModuleType("flow_grpo.rewards")
    vars(theirs)["ocr_score"] = lambda device: lambda images, prompts, metadata: ([0.25] * 3, {})
    monkeypatch.setitem(sys.modules, "flow_grpo", ModuleType("flow_grpo"))
    monkeypatch.setitem(sys.modules, "flow_grpo.rewards", theirs)
    reward = flow_grpo_multi_score("cpu", {"ocr": 2.0})
    assert reward(floats, PROMPTS, [{}] * 3)[0] == {"ocr": [0.25] * 3, "avg": [0.5] * 3}


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (
            lambda images, prompts, metadata: ([1.0], {}),
            ValueError,
            "'own' returned 1 scores for 3",
        ),
        (
            lambda images, prompts, metadata: [1.0] * 3,
            ValueError,
            "a list; expected \\(scores, info",
        ),
        (lambda images: 1.0, TypeError, "called as a factory"),
        (3.0, TypeError, "functions\\['own'\\] is a float"),
    ],
)
def test_functions_that_return_something_else_are_refused(
    floats: Tensor, function: Callable[..., object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        flow_grpo_multi_score("cpu", {"own": 1.0}, functions={"own": function})(
            floats, PROMPTS, [{}] * 3
        )


def test_verl_omni_single_reward(levels: np.ndarray) -> None:
    """As its VisualRewardManager: keywords only, in the loop's executor, one uint8 CHW tensor."""
    scorer = tiny_clip()
    compute_score = verl_omni(scorer)
    images = torch.from_numpy(levels).permute(0, 3, 1, 2)

    async def run_single(i: int) -> float:
        assert not inspect.iscoroutinefunction(compute_score)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(
            None,
            lambda: compute_score(
                data_source="lab",
                solution_image=images[i],
                ground_truth=PROMPTS[i],
                extra_info={"num_turns": None},
                reward_router_address="localhost",
                sampling_params={},
            ),
        )
        assert set(result) == {"score"}
        assert type(result["score"]) is float
        return result["score"]

    async def run_all() -> list[float]:
        return list(await asyncio.gather(*(run_single(i) for i in range(3))))

    close(asyncio.run(run_all()), scorer.score(pictures(levels), list(PROMPTS)))


def test_verl_omni_among_several_rewards(levels: np.ndarray) -> None:
    """As its MultiVisualRewardManager, which passes only keywords that the signature names."""
    scorer = tiny_clip()
    compute_score = verl_omni(scorer)
    keywords = {
        "data_source": "lab",
        "solution_image": torch.from_numpy(levels[0]).permute(2, 0, 1),
        "ground_truth": PROMPTS[0],
        "extra_info": {},
    }
    signature = inspect.signature(compute_score)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    assert takes_all or set(keywords) <= set(signature.parameters)
    assert float(compute_score(**keywords)["score"]) == pytest.approx(
        scorer.score(pictures(levels[:1]), PROMPTS[0]).item(), abs=1e-5
    )
    frames = torch.from_numpy(levels).permute(0, 3, 1, 2)
    with pytest.raises(ValueError, match="one image at a time, got 3"):
        compute_score(**{**keywords, "solution_image": frames})


def test_tt_scale_flux_verifier(levels: np.ndarray) -> None:
    """As its main.py: inputs of a list of images and prompts, then sorting by the metric."""
    scorer = tiny_clip()
    verifier = TTScaleFluxVerifier(scorer)
    images = pictures(levels)
    inputs = verifier.prepare_inputs(images=images, prompts=["a dog"] * 3)
    outputs = verifier.score(inputs=inputs, max_new_tokens=300)
    metric = "overall_score"
    assert metric in verifier.SUPPORTED_METRIC_CHOICES
    assert len(outputs) == len(images)
    merged = [{**row, "noise": None, "seed": seed} for seed, row in enumerate(outputs)]
    order = [row["seed"] for row in sorted(merged, key=lambda row: row[metric], reverse=True)]
    assert order == [item.index for item in scorer.rank(images, "a dog")]
    close([row[metric] for row in outputs], scorer.score(images, "a dog"))


def test_tt_scale_flux_makes_the_verifier_of_its_configuration(
    levels: np.ndarray, model: Path
) -> None:
    """As its main.py: a class of the registry, called with all of the file's verifier_args."""
    arguments = {
        "name": "stablepref",
        "model": str(model),
        "max_new_tokens": 800,
        "use_low_gpu_vram": False,
        "choice_of_metric": "overall_score",
    }
    assert "overall_score" in TTScaleFluxVerifier.SUPPORTED_METRIC_CHOICES
    verifier = TTScaleFluxVerifier(**arguments)
    inputs = verifier.prepare_inputs(images=pictures(levels), prompts=["a dog"] * 3)
    rows = verifier.score(inputs=inputs, max_new_tokens=None)
    close([row["overall_score"] for row in rows], load(model).score(pictures(levels), "a dog"))
    del arguments["model"]
    with pytest.raises(TypeError, match=r"verifier_args has .*name.* and no model"):
        TTScaleFluxVerifier(**arguments)
    with pytest.raises(TypeError, match="choice_of_metric"):
        TTScaleFluxVerifier(model, metric="score")


def test_models_load_by_path_when_the_factory_is_called(
    floats: Tensor, model: Path, tmp_path: Path
) -> None:
    factory = ddpo_pytorch(tmp_path / "later")
    with pytest.raises(ValueError, match="unknown model"):
        factory()
    expected = load(model).score(floats, list(PROMPTS))
    close(ddpo_pytorch(model)()(floats, PROMPTS, {})[0], expected)
