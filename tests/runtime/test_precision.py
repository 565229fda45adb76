"""The number type that is chosen when the user names none."""

from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny_clip

import stablepref
from stablepref.runtime import precision
from stablepref.runtime.precision import automatic_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("amx", "avx", "chosen"),
    [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
    ],
)
def test_a_cpu_takes_bfloat16_if_it_multiplies_it(
    amx: bool, avx: bool, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert automatic_dtype(CPU) == chosen


@pytest.mark.parametrize(
    ("capability", "hip", "chosen"),
    [
        ((7, 5), None, torch.float32),
        ((8, 0), None, torch.bfloat16),
        ((9, 0), None, torch.bfloat16),
        ((9, 0), "6.2", torch.float32),
    ],
)
def test_a_gpu_takes_bfloat16_from_ampere_on(
    capability: tuple[int, int],
    hip: str | None,
    chosen: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert automatic_dtype(GPU) == chosen
    assert automatic_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("units", [True, False])
def test_loaded_scorers_follow_and_named_types_do_not(
    units: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_clip().save_pretrained(tmp_path)
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: units)
    expected = torch.bfloat16 if units else torch.float32
    assert stablepref.load(tmp_path, device="cpu").dtype == expected
    assert stablepref.load(tmp_path, device="cpu", dtype="auto").dtype == expected
    assert stablepref.load(tmp_path, device="cpu", dtype="float32").dtype == torch.float32
