"""The distributed engine: what is refused, and how it ends."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from helpers.ranked import SMALL

from stablepref.runtime import precision
from stablepref.training.distributed import engine, refuse_what_cannot_work


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def running(**changes: Any) -> Any:  # noqa: ANN401 (as much of an Accelerator as is looked at)
    given = {
        "distributed_type": DistributedType.NO,
        "num_processes": 1,
        "device": torch.device("cpu"),
        "mixed_precision": "no",
    }
    return SimpleNamespace(**given | changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mixed_precision": "fp16"}, "fp16 needs a GPU"),
        ({"distributed_type": DistributedType.FSDP}, "FSDP needs GPUs"),
        ({"distributed_type": DistributedType.DEEPSPEED}, "does not run on DEEPSPEED"),
        (
            {"distributed_type": DistributedType.MEGATRON_LM, "device": torch.device("cuda")},
            "does not run on MEGATRON_LM; configure accelerate for DDP or FSDP",
        ),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], told: str) -> None:
    refuse_what_cannot_work(running())
    with pytest.raises(ValueError, match=told):
        refuse_what_cannot_work(running(**changes))


def test_fsdp_and_fp16_are_fine_on_gpus() -> None:
    gpus = {"device": torch.device("cuda"), "mixed_precision": "fp16"}
    refuse_what_cannot_work(running(distributed_type=DistributedType.FSDP, **gpus))


def test_fsdp_that_accelerate_would_ignore_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP needs GPUs"), engine(SMALL, tmp_path):
        pass


def test_processes_that_would_train_copies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    refuse_what_cannot_work(running(num_processes=4))
    with pytest.raises(ValueError, match="started 4 processes, but accelerate runs 1"):
        refuse_what_cannot_work(running(num_processes=1))


def test_another_precision_in_the_same_process_is_refused_in_our_words(tmp_path: Path) -> None:
    with engine(replace(SMALL, mixed_precision="no"), tmp_path):
        pass
    with engine(replace(SMALL, mixed_precision=None), tmp_path):  # no precision asked for
        pass
    again = engine(replace(SMALL, mixed_precision="bf16"), tmp_path)
    with pytest.raises(ValueError, match=r"already runs accelerate in another precision.*restart"):
        again.__enter__()


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize(
    ("asked", "configured", "expected"),
    [
        (None, None, {True: "bf16", False: "no"}),
        (None, "no", {True: "no", False: "no"}),
        (None, "bf16", {True: "bf16", False: "bf16"}),
        ("no", "bf16", {True: "no", False: "no"}),
        ("bf16", None, {True: "bf16", False: "bf16"}),
    ],
)
def test_the_device_decides_where_nobody_has(
    asked: Any,  # noqa: ANN401 (a precision or None)
    configured: str | None,
    expected: dict[bool, str],
    units: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: units)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if configured is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", configured)
    with engine(replace(SMALL, mixed_precision=asked), tmp_path) as accelerator:
        assert accelerator.mixed_precision == expected[units]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="pip install wandb"):
        engine(replace(SMALL, log_with="wandb"), tmp_path).__enter__()


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt(), ValueError("bad data")])
def test_trackers_are_closed_however_it_ends(tmp_path: Path, error: BaseException) -> None:
    closed = []

    def failing() -> None:
        with engine(SMALL, tmp_path) as accelerator:
            accelerator.trackers.append(SimpleNamespace(finish=lambda: closed.append(True)))
            raise error

    with pytest.raises(type(error)):
        failing()
    assert closed == [True]
