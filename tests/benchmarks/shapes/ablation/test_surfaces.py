"""What was tried and chosen, as tables and figures of made-up results."""

from pathlib import Path

from helpers.ablation_rows import CHOICE, cell, cells_of, watched

from stablepref.benchmarks.shapes.ablation.cells import Result
from stablepref.benchmarks.shapes.ablation.plan import START
from stablepref.benchmarks.shapes.ablation.plots import draw_surfaces
from stablepref.benchmarks.shapes.ablation.suite import Suite
from stablepref.benchmarks.shapes.ablation.surfaces import (
    by_rate,
    choices,
    margin_grid,
    range_of_settings,
    surface,
)


def test_a_surface_has_rates_steps_and_norms() -> None:
    results = [
        watched("ce", [0.5, 0.6], learning_rate=1e-5), watched("ce", [0.7], learning_rate=1e-2)
    ]  # fmt: skip
    assert cells_of(surface(results)) == [
        ["rate", "step 10", "step 20"],
        ["---"] * 3,
        ["1e-05", "50.0; 1; 3.0", "60.0; 1.2; 3.0"],
        ["0.01", "70.0; 1.4; 3.0", "diverged"],
    ]


def test_how_wide_the_range_of_settings_is() -> None:
    before = Result(cell(START), {"watched": [{"step": 0, "people": 0.6, "oracle": 0.70}]})
    surfaces = {
        "ce": [watched("ce", [0.70, 0.725]), watched("ce", [0.74, 0.68])],
        "sp": [watched("sp", [0.76, 0.735]), watched("sp", [0.695])],
    }
    _, _, ce, sp = cells_of(range_of_settings(before, surfaces))
    # Half of the greatest gain is 3 points, and the point that diverged is worse.
    assert ce == ["cross-entropy", "+4.0", "1 of 4", "1 of 4", "1 of 4"]
    assert sp == ["Stable Preference", "+6.0", "1 of 4", "2 of 4", "1 of 4"]
    flat = {"ce": [watched("ce", [0.692, 0.695])], "sp": [watched("sp", [])]}
    table = cells_of(range_of_settings(before, flat))
    assert table[2][1:] == ["-0.5", "2 of 2", "0 of 2", "0 of 2"]
    assert table[3][1:] == ["diverged", "0 of 2", "0 of 2", "2 of 2"]


def test_every_rate_has_its_best_and_its_last() -> None:
    surfaces = {
        "ce": [watched("ce", [0.8, 0.7], learning_rate=r) for r in (1e-5, 1e-4)],
        "sp": [watched("sp", [0.75], learning_rate=1e-5), watched("sp", [], learning_rate=1e-4)],
    }
    assert cells_of(by_rate(surfaces)) == [
        ["method", "1e-05", "0.0001"],
        ["---"] * 3,
        ["cross-entropy", "80.0; 70.0", "80.0; 70.0"],
        ["Stable Preference", "75.0; diverged", "diverged"],
    ]


def test_margins_are_a_grid() -> None:
    results = [
        watched("sp", values, b=b, tau=tau)
        for (b, tau), values in {
            (0.1, 0.2): [0.5, 0.7, 0.7], (0.1, 0.8): [0.6], (1.0, 0.2): [0.4, 0.3], (1.0, 0.8): [],
        }.items()
    ]  # fmt: skip
    assert cells_of(margin_grid(results))[2:] == [
        ["b = 0.1", "70.0; step 20", "60.0; step 10"],
        ["b = 1", "40.0; step 10", "diverged"],
    ]


def test_choices_say_what_is_at_the_edge_of_the_tried() -> None:
    suite = Suite(rates=(1e-5, 1e-4, 1e-3), bs=(0.1, 0.3, 1.0), taus=(0.2, 0.7))
    edge = CHOICE._replace(rate=1e-3)
    chosen = {"ce": CHOICE, "sp": edge, "sp-paper": CHOICE, "sp-at-ce-rate": edge}
    table = cells_of(choices(chosen, suite))
    assert table[2] == ["cross-entropy", "0.0001", "", "", "100", "81.2"]
    assert table[3][1:] == ["0.001 (edge)", "0.3", "0.2 (edge)", "100", "81.2"]
    assert table[4][1:4] == ["0.0001", "0.3", "0.2"], "its own b and tau"
    assert table[5][1:4] == ["0.001", "0.3", "0.2 (edge)"], "cross-entropy's rate"
    early = cells_of(choices({"sp": CHOICE._replace(early=True)}, suite))
    assert early[2][4] == "100 (in step 1)"


def test_a_surface_is_drawn_where_a_training_diverged_or_a_gradient_vanished(
    tmp_path: Path,
) -> None:
    results = [watched("ce", [0.5, 0.6]), watched("ce", [0.7])]
    results[0].watched[1]["grad_norm"] = 0.0
    draw_surfaces(tmp_path / "s.svg", {"ce": results})
    assert (tmp_path / "s.svg").read_bytes().rstrip().endswith(b"</svg>")
