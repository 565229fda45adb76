"""The Python of the pages on the reward, best of n and guidance runs, as a reader would type it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.docs import python_blocks
from helpers.places import DOCS

RUNNING = ("reward.md", "best_of_n.md", "guidance.md")
TRAINERS = ("ddpo_pytorch.rewards", "flow_grpo.rewards", "verifiers", "alignprop_trainer")


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of trainers that are not installed here, with what their scripts look for."""
    parent: ModuleType | None = None
    for end in range(1, name.count(".") + 2):
        module = ModuleType(".".join(name.split(".")[:end]))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        if parent is not None:
            setattr(parent, name.split(".")[end - 1], module)
        parent = module
    if name == "verifiers":
        vars(parent).update(SUPPORTED_VERIFIERS={}, SUPPORTED_METRICS={})


@pytest.fixture(autouse=True)
def trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TRAINERS:
        stand_in(name, monkeypatch)


FEW = {
    "num_inference_steps=10": "num_inference_steps=4",
    "n=8": "n=4",
    "n=6": "n=3",
    "n=4, num": "n=2, num",
    "iterations=5": "iterations=2",
    "views=4": "views=2",
    "range(3)": "range(2)",
}
"""What the pages' Python asks for, and what is enough to see that it runs."""


def in_small(text: str) -> str:
    """A block with fewer steps and candidates."""
    for asked, few in FEW.items():
        text = text.replace(asked, few)
    return text


def test_the_pages_ask_for_what_is_made_less() -> None:
    texts = [(DOCS / page).read_text() for page in RUNNING]
    for asked in FEW:
        assert any(asked in block for text in texts for block in python_blocks(text)), asked


@pytest.mark.parametrize("page", RUNNING)
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    blocks = list(python_blocks((DOCS / page).read_text()))
    assert blocks
    for block in blocks:
        exec(compile(in_small(block), page, "exec"), names)
    if page == "best_of_n.md":
        assert (tmp_path / "best.png").is_file()
        assert (tmp_path / "circles" / "candidates.html").is_file()


def test_each_trainer_calls_what_its_block_leaves() -> None:
    """As their scripts do, after the page's blocks: none shadows the package of its trainer."""
    images, prompts = torch.rand(2, 3, 64, 64), ["a red circle", "a blue square"]
    for text in python_blocks((DOCS / "reward.md").read_text()):
        if any(f"import {name}" in text for name in TRAINERS):
            exec(compile(text, "reward.md", "exec"), {})

    made = sys.modules["ddpo_pytorch.rewards"].stablepref()
    plain, _ = made(images, prompts, ({}, {}))
    weights = {"shapes": 1.0, "brightness": 0.1}
    multi = sys.modules["flow_grpo.rewards"].multi_score(torch.device("cpu"), weights)
    scores, _ = multi(images, prompts, [{}, {}], only_strict=True)
    expected = [s + 0.1 * float(image.mean()) for s, image in zip(plain, images, strict=True)]
    assert scores["avg"] == pytest.approx(expected, abs=1e-4)

    arguments = {"name": "stablepref", "model": "shapes", "choice_of_metric": "overall_score"}
    client = sys.modules["verifiers"]
    verifier = client.SUPPORTED_VERIFIERS["stablepref"](**arguments)
    inputs = verifier.prepare_inputs(images=list(images), prompts=prompts)
    rows = verifier.score(inputs=inputs, max_new_tokens=None)
    assert [row["overall_score"] for row in rows] == pytest.approx(list(plain), abs=1e-4)
    assert client.SUPPORTED_METRICS["stablepref"] == ["overall_score"]

    loss_fn = sys.modules["alignprop_trainer"].hps_loss_fn(torch.float32, torch.device("cpu"))
    _, rewards = loss_fn(images, tuple(prompts))  # in [0, 1], as its pipeline returns them
    assert rewards.tolist() == pytest.approx(list(plain), abs=1e-3)
