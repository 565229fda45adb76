"""Small models compute with one thread, and whatever a user chose stays."""

import os
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from stablepref.runtime import threads
from stablepref.runtime.inference import inference
from stablepref.runtime.threads import SMALL, threads_for, use_threads

small = nn.Linear(8, 8)
cores = os.cpu_count() or 1
pytestmark = pytest.mark.skipif(cores < 2, reason="with one core there is nothing to choose")


class Sized(nn.Module):
    """A module of so many weights, none of which takes memory."""

    def __init__(self, count: int, device: str = "cpu") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device=device).expand(count))


@pytest.fixture(autouse=True)
def own_number(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Torch's own number of threads, as where no user chose one."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(cores)
    monkeypatch.setattr(threads, "_chosen", [])
    yield cores
    torch.set_num_threads(before)


def inside(*models: nn.Module) -> int:
    """The number of threads with which such models compute."""
    with threads_for(*models):
        return torch.get_num_threads()


def test_small_models_compute_with_one_thread_and_it_is_set_back(own_number: int) -> None:
    assert inside(small) == 1
    assert torch.get_num_threads() == own_number
    with pytest.raises(KeyError), threads_for(small):
        raise KeyError
    assert torch.get_num_threads() == own_number
    with threads_for(small), threads_for(small):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == own_number


def test_what_is_small_is_counted_over_all_models(own_number: int) -> None:
    assert inside(Sized(SMALL - 1)) == 1
    assert inside(Sized(SMALL)) == own_number
    assert inside(Sized(SMALL // 2), Sized(SMALL - SMALL // 2)) == own_number
    assert inside(Sized(8, "meta")) == own_number, "what computes elsewhere is no concern"
    assert inside() == own_number
    assert inside(nn.ReLU()) == own_number, "nothing is known of what has no weights"


def test_a_model_that_calls_a_function_may_be_larger_than_its_weights(own_number: int) -> None:
    joint = Sized(8)
    joint.joint = True  # type: ignore[assignment] # as a scorer's attribute
    assert inside(joint) == own_number


def test_other_threads_keep_their_number(own_number: int) -> None:
    counts: list[int] = []
    go, end = threading.Event(), threading.Event()

    def other() -> None:
        counts.append(torch.get_num_threads())
        go.set()
        end.wait(10)
        counts.append(torch.get_num_threads())

    older = threading.Thread(target=other)
    older.start()
    go.wait(10)
    with threads_for(small):
        newer = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        newer.start()
        newer.join()
        end.set()
        older.join()
    assert counts == [own_number] * 3


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_variable_of_the_environment_wins(
    name: str, monkeypatch: pytest.MonkeyPatch, own_number: int
) -> None:
    monkeypatch.setenv(name, str(own_number))
    assert inside(small) == own_number


def test_a_number_that_was_set_before_wins() -> None:
    torch.set_num_threads(cores + 3)
    assert inside(small) == cores + 3


def test_a_number_that_is_set_meanwhile_stays() -> None:
    with threads_for(small):
        torch.set_num_threads(cores + 3)
    assert torch.get_num_threads() == cores + 3


def test_a_number_that_was_asked_for_wins(own_number: int) -> None:
    use_threads(None)
    assert inside(small) == 1
    use_threads(own_number)
    assert inside(small) == own_number
    use_threads(3)
    assert torch.get_num_threads() == inside(small) == 3
    with pytest.raises(ValueError, match="number of threads is 0"):
        use_threads(0)


def test_inference_of_a_small_model_takes_one_thread(own_number: int) -> None:
    with inference(small):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == own_number
