"""What the speed benchmark says of made-up measurements, worked by hand."""

import math
from typing import Any

import pytest

from stablepref.benchmarks.speed import run as speed_run
from stablepref.benchmarks.speed.report import score_table, sentences


def report() -> dict[str, Any]:
    """Made by hand: 10 pictures; ours takes 5 s, hpsv2 30 s, 40 s and 50 s."""
    row = {
        "first_seconds": 1.0,
        "second_seconds": 0.1,
        "peak_bytes": 2_000_000_000,
        "peak_gpu_bytes": 0,
        "unavailable": None,
    }
    return {
        "machine": {"cpu": "made up", "threads": 2, "torch": "2"},
        "model": "hps-v2.1",
        "pictures": 10,
        "rounds": 3,
        "flops": {"image": 100e9, "text": 25e9},
        "matrix_rates": {"float32": 200e9, "bfloat16": 400e9},
        "processor_rate": 100e9,
        "agreement": {"stablepref": (1.0, 0.9), "hpsv2": (0.5, 0.25)},
        "contenders": {
            "stablepref": {**row, "seconds": [5.0], "cpu_seconds": [12.5]},
            "hpsv2": {**row, "seconds": [50.0, 30.0, 40.0], "cpu_seconds": [40, 20, 30]},
            "imscore": {
                **row,
                "seconds": [],
                "cpu_seconds": [],
                "unavailable": "is not installed (no module)",
            },
        },
        "prompts_times_pictures": {
            "prompts": 8,
            "pictures": 10,
            "seconds": 36.0,
            "naive_pairs_measured": 4,
            "naive_seconds_extrapolated": 7200.0,
        },
    }


def test_table_and_sentences_are_worked_by_hand() -> None:
    table = score_table(report())
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["stablepref", "hpsv2", "imscore"]
    assert cells[1] == ["2.000", "0.250 (0.200 to 0.333)", "not measured"]
    assert cells[2] == ["1.00x", "8.00x", "-"]
    assert cells[3][:2] == ["1.25", "3.00"]
    assert cells[4][:2] == ["80%", "33%"]  # 100 GFLOP in 1.25 s and in 3 s, of 100 GFLOP/s
    assert cells[7][:2] == ["2.0", "2.0"]
    assert cells[8][:2] == ["200", "25"]
    assert cells[10] == ["0.90000", "0.25000", "-"]
    text = "\n".join(sentences(report()))
    assert "50.0% of the bfloat16 rate, 100.0% of the float32 rate" in text
    assert "2.50x as fast" in text  # 400 / 200 times 125 / 100
    assert "imscore is not installed (no module)" in text
    assert "200x as long" in text


def test_emulated_bfloat16_is_compared_with_nothing() -> None:
    made = report()
    made["matrix_rates"] = {"float32": 200e9, "bfloat16": 1e9}
    text = "\n".join(sentences(made))
    assert "stablepref's pictures reach 100.0% of the float32 rate, decoding" in text
    assert "no units for bfloat16" in text
    assert "perfect" not in text


def test_rank_agreement_by_hand() -> None:
    results = {
        "stablepref float32": speed_run.Result(scores=(1.0, 2.0, 3.0)),
        "hpsv2": speed_run.Result(scores=(1.0, 3.0, 2.0)),
        "imscore": speed_run.Result(unavailable="absent"),
    }
    found = speed_run.rank_agreement(results)
    assert set(found) == {"stablepref float32", "hpsv2"}
    assert found["hpsv2"] == pytest.approx((0.5, 1 / 3))
    assert math.isclose(found["stablepref float32"][1], 1)
