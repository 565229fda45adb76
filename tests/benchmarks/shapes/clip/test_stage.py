"""The steps of a training: which are left, which are saved, and what resumes."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stablepref.benchmarks.shapes.clip.stage import Stage


@dataclass(frozen=True)
class Config:
    """Seven steps."""

    steps: int = 7
    warmup: int = 0
    learning_rate: float = 0.1


class Numbers(Dataset[Tensor]):
    """The batch of each step is its number."""

    def __len__(self) -> int:
        """Of all steps."""
        return Config.steps

    def __getitem__(self, step: int) -> Tensor:
        """Of one step."""
        return torch.tensor(float(step))


def trained(folder: Path, stop_after: int | None = None, steps: int = 7) -> tuple[float, list[int]]:
    """A weight that is pulled to the batches, with momentum, and the steps that were taken."""
    config = Config(steps=steps)
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9)
    stage = Stage(
        "one", folder, config, {"network": network}, [optimizer],
        settings={"steps": steps}, device="cpu", checkpoint_every=3, stop_after=stop_after,
    )  # fmt: skip
    assert stage.complete is (stop_after is None)
    taken = []
    for step, batch in stage.steps(Numbers()):
        loss = (network.weight - batch).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        taken.append(step)
        if stage.taken(step, loss.item()):
            stage.save(step, {"loss": loss.item()})
    return network.weight.item(), taken


def rows(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_what_is_stopped_resumes_with_weights_momentum_and_batches(tmp_path: Path) -> None:
    whole, taken = trained(tmp_path / "whole")
    assert taken == [0, 1, 2, 3, 4, 5, 6]
    assert rows(tmp_path / "whole") == [3, 6, 7]
    folder = tmp_path / "broken"
    assert trained(folder, stop_after=4)[1] == [0, 1, 2, 3]
    weight, taken = trained(folder)
    assert taken == [4, 5, 6]
    assert weight == whole
    assert rows(folder) == [3, 4, 6, 7]
    assert trained(folder) == (whole, [])
    assert trained(folder, stop_after=2) == (whole, [])


def test_other_settings_and_checkpoints_of_other_versions_are_refused(tmp_path: Path) -> None:
    trained(tmp_path, stop_after=3)
    with pytest.raises(ValueError, match="steps was 7 and is 8"):
        trained(tmp_path, steps=8)
    path = tmp_path / "one.pt"
    state = torch.load(path)
    state["optimizer"] = state.pop("optimizers")[0]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"one\.pt has no optimizers: another version .* remove"):
        trained(tmp_path)
