"""Running for numbers alone changes nothing that stays."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from stablepref.runtime.inference import inference


@pytest.mark.parametrize("first", [True, False])
def test_every_part_gets_its_own_mode_back(first: bool) -> None:
    module = nn.Sequential(nn.Dropout(), nn.Linear(2, 2), nn.Sequential(nn.Dropout()))
    module.train(first)
    module[0].train(not first)  # a frozen part of a model in training, or the other way round
    before = [part.training for part in module.modules()]
    with inference(module):
        assert not any(part.training for part in module.modules())
        assert torch.is_inference_mode_enabled()
    assert [part.training for part in module.modules()] == before
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_modes_come_back_after_an_error() -> None:
    module = nn.Dropout()
    with pytest.raises(KeyError), inference(module):
        raise KeyError
    assert module.training


def test_the_mode_comes_back_when_the_last_thread_leaves() -> None:
    """Two threads hold parts that they share, and leave in the order in which they came."""
    shared = nn.Linear(2, 2)
    first, second = nn.Sequential(shared, nn.Dropout()), nn.Sequential(nn.Dropout(), shared)
    entered, left = threading.Barrier(2, timeout=60), threading.Event()
    seen: list[bool] = []

    def stay() -> None:
        with inference(second):
            entered.wait()
            assert left.wait(60)
            seen.extend(part.training for part in second.modules())

    with ThreadPoolExecutor() as pool:
        with inference(first):
            staying = pool.submit(stay)
            entered.wait()
        assert [part.training for part in first] == [False, True]  # the shared part is still held
        left.set()
        staying.result()
    assert seen == [False, False, False]
    assert all(part.training for part in (*first.modules(), *second.modules()))
