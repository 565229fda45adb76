"""A whole module in a pickle is read for its weights, and nothing of it is imported or run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from stablepref.weights.errors import WeightsError
from stablepref.weights.files import read_weights

PLACE = "trainer.models.clip_model"
CODE = """
from torch import nn
import torch

class Settings:
    def __init__(self):
        self.sizes, self.names = (1, 2), {"a": 1.5, "b": [None, True, {3}]}

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.half = nn.Linear(4, 4).half()
        self.act = nn.functional.gelu
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("cached", torch.zeros(5), persistent=False)
        self.register_parameter("none", None)

class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.settings = Settings()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.view = nn.Parameter(torch.randn(6, 4)[1::2].t())
        self.tied = self.blocks[0].linear.weight
        self.loose = torch.ones(2)
"""


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A module whose classes are gone once this fixture's test has forgotten them."""
    for end in range(1, PLACE.count(".") + 2):
        name = ".".join(PLACE.split(".")[:end])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    exec(CODE, sys.modules[PLACE].__dict__)
    model: nn.Module = sys.modules[PLACE].Whole()
    return model


def test_its_state_dict_is_read_where_its_classes_are_not(
    whole: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "MPS_overall_checkpoint.pth"
    torch.save(whole, path)
    monkeypatch.delitem(sys.modules, PLACE)
    found = read_weights(path)
    expected = whole.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype
    assert PLACE not in sys.modules


class Evil:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """How pickle is asked to make it."""
        return os.mkdir, ("made",)


def test_nothing_that_it_names_is_called(
    whole: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole.extra = Evil()
    torch.save(whole, "whole.pt")
    assert read_weights(tmp_path / "whole.pt").keys() == whole.state_dict().keys()
    assert [path.name for path in tmp_path.iterdir()] == ["whole.pt"]


@pytest.mark.parametrize("content", [Evil(), {"a": torch.zeros(2), "b": Evil()}, [Path("x")]])
def test_what_is_no_module_is_refused_as_before(
    content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "no.pt")
    with pytest.raises(WeightsError, match="whose loading would run code, which is refused"):
        read_weights(tmp_path / "no.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["no.pt"]


def test_modules_that_share_modules_are_not_unfolded(tmp_path: Path) -> None:
    """Thirty levels of two names for one module are a thousand million modules."""
    part = nn.Module()
    part.register_parameter("weight", nn.Parameter(torch.zeros(1)))
    for _ in range(30):
        above = nn.Module()
        above.a = above.b = part
        part = above
    torch.save(part, tmp_path / "shared.pt")
    with pytest.raises(WeightsError, match="would run code"):
        read_weights(tmp_path / "shared.pt")
