"""Tables, claims and figures of results that are made up, so that every number is known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.ablation_rows import CHOICE, cell, cells_of, measure, row

from stablepref.augment.perturbations import UNSEEN
from stablepref.benchmarks.shapes.ablation.cells import Result
from stablepref.benchmarks.shapes.ablation.claims import (
    claims,
    claims_counts,
    claims_table,
    other_setting,
)
from stablepref.benchmarks.shapes.ablation.methods import TABLES
from stablepref.benchmarks.shapes.ablation.plan import START, Row
from stablepref.benchmarks.shapes.ablation.plots import draw_overfitting
from stablepref.benchmarks.shapes.ablation.tables import comparison, overfitting, perturbed
from stablepref.benchmarks.shapes.world.perturbations import CROPS, PERTURBATIONS


def test_a_comparison_has_means_deviations_and_differences() -> None:
    rows = [row(START, 0.6), row("ce", 0.7, 0.72), row("sp", 0.75, 0.79, end=0.6)]
    header, _, start, ce, sp = cells_of(comparison(rows, tested_on="hpdv2"))
    assert header[3:] == ["truth", "less cross-entropy", "annotators", "truth after the last step"]
    assert start == ["before training", "", "", "60.0", "", "55.0", ""]
    # 71 and the standard deviation of 70 and 72 with n - 1; the end is that of both seeds.
    assert ce == ["cross-entropy", "0.0001", "100", "71.0 ± 1.4", "", "66.0 ± 1.4", "50.0 ± 0.0"]
    # All eight prompts differ alike: p is 2 / 2^8, and the interval has no width.
    assert sp[4] == "+6.0 (+6.0 to +6.0); p 0.0078; 2 of 2 seeds"
    other = cells_of(comparison(rows, tested_on="imagereward"))
    assert other[4][3] == "75.0 ± 2.8"


def test_a_diverged_training_is_said() -> None:
    gone = row("sp", 0.7, 0.7)
    for result in gone.results:
        result.found["tested"].clear()
    table = cells_of(comparison([row(START, 0.6), row("ce", 0.7, 0.7), gone], tested_on="hpdv2"))
    assert table[-1][3:] == ["diverged"] * 4
    half = row("sp", 0.7, 0.8)
    half.results[0].found["tested"].clear()
    table = cells_of(comparison([row(START, 0.6), row("ce", 0.7, 0.7), half], tested_on="hpdv2"))
    assert table[-1][3] == "80.0 (1 of 2 seeds)"
    assert table[-1][4].endswith("1 of 2 seeds")


def test_perturbations_have_change_and_flips() -> None:
    rows = [row(START, 0.6), row("ce", 0.7, 0.72, flips=0.12, end_flips=0.24)]
    table = cells_of(perturbed(rows))
    assert [line[0] for line in table[2:]] == ["as it is", *PERTURBATIONS]
    assert table[2][1:] == ["60.0", "71.0 ± 1.4"]
    assert table[3][2] == "70.0 ± 1.4 (-1.0); 12.0 ± 0.0"
    after = cells_of(perturbed(rows, end=True))
    assert after[2][1:] == ["60.0", "50.0 ± 0.0"]
    assert after[3][1:] == ["59.0 (-1.0); 10.0", "48.0 ± 0.0 (-2.0); 24.0 ± 0.0"]
    assert CROPS == ("crop-0.97", "crop-0.95", "crop-0.93", "crop-0.9")
    assert (*CROPS, *UNSEEN) == PERTURBATIONS


def curve(method: str, *values: float) -> Row:
    """Validation is best after 100 steps, whatever the test says."""
    steps = (0, 100, 200)
    tested = {
        str(step): {
            name: {"oracle": measure(v), "people": measure(v)} for name in ("hpdv2", "imagereward")
        }
        | {"fit": measure(0.6 + 0.1 * n)}
        for n, (step, v) in enumerate(zip(steps, values, strict=True))
    }
    one = replace(cell(method), watched=steps, tested=steps)
    looked = [{"step": step, "people": 0.7 + 0.1 * (step == 100)} for step in steps]
    found = {"watched": looked, "tested": tested, "disturbed": {}}
    return Row(method, CHOICE, [Result(one, found)] * 2, CHOICE.stop)


def test_overfitting_is_what_is_lost_from_the_best_step_on_validation() -> None:
    rows = [
        row(START, 0.6), curve("ce", 0.6, 0.8, 0.7), curve("sp", 0.9, 0.75, 0.74),
        curve("sp-at-ce-rate", 0.6, 0.7, 0.72),
    ]  # fmt: skip
    _, _, ce, sp, same = cells_of(overfitting(rows, tested_on="hpdv2"))
    assert ce[1:] == ["0.0001", "100", "80.0 ± 0.0", "70.0 ± 0.0", "10.0 ± 0.0", "80.0 ± 0.0"]
    assert sp[2:6] == ["100", "75.0 ± 0.0", "74.0 ± 0.0", "1.0 ± 0.0"]
    assert same[5] == "-2.0 ± 0.0"
    found = claims({("overfitting", "small", "hpdv2"): rows})
    assert [claim.found and round(claim.found.difference, 6) for claim in found] == [
        0.09, 0.04, 0.12, 0.02,
    ]  # fmt: skip
    assert {claim.found and claim.found.verdict for claim in found} == {"held"}
    assert "at cross-entropy's rate agrees more" in found[3].says


def test_the_best_step_is_one_that_every_seed_reached() -> None:
    rows = [row(START, 0.6), curve("ce", 0.6, 0.8, 0.7), curve("sp", 0.6, 0.75, 0.8)]
    gone, kept = (replace_found(result) for result in rows[2].results)
    gone.found["watched"].pop()  # diverged after 100 steps
    gone.found["tested"].pop("200")
    kept.found["watched"][-1]["people"] = 0.99
    rows[2] = rows[2]._replace(results=[gone, kept])
    sp = cells_of(overfitting(rows, tested_on="hpdv2"))[3]
    assert sp[2:5] == ["100", "75.0 ± 0.0", "80.0 (1 of 2 seeds)"]
    found = claims(
        {("overfitting", "small", "hpdv2"): [*rows, rows[1]._replace(method="sp-at-ce-rate")]}
    )
    assert found[0].found is not None
    assert (found[0].found.seeds, found[0].found.of) == (1, 2)
    assert found[0].found.verdict == "not decided"


def replace_found(result: Result) -> Result:
    """The same with measurements of its own."""
    return Result(result.cell, json.loads(json.dumps(result.found)))


def test_claims_are_judged_in_their_direction() -> None:
    shares = {"ce": 0.7, "ce-ai": 0.72, "sp-no-ai": 0.69, "sp": 0.72}
    rows = [row(START, 0.6), *(row(name, share, share) for name, share in shares.items())]
    found = claims({("table2", "large", "hpdv2"): rows})
    # Each at its stop, and then after the last step, where all are made to be alike.
    assert [claim.found and claim.found.verdict for claim in found] == [
        "held", "no difference", "the opposite", "no difference", "held", "no difference",
        "held", "no difference",
    ]  # fmt: skip
    assert [claim.says.rpartition(", ")[2] for claim in found[:2]] == [
        "each at its stop", "after the last step",
    ]  # fmt: skip
    lines = cells_of(claims_table(found))
    assert lines[2][0] == "Table 2"
    assert lines[4][4] == "the opposite"
    assert lines[3][3] == "none"
    across = claims({("table5", "large", "imagereward"): rows})
    assert across[0].setting == "imagereward, tested on hpdv2"
    (line,) = cells_of(claims_counts(across))[2:3]
    assert line[0] == "Table 5"
    assert line[2:] == ["1", "", "", ""]
    counts = cells_of(claims_counts([*found, *found]))
    assert counts[0][2:] == ["held", "not decided", "no difference", "the opposite"]
    assert [line[2:] for line in counts[2:5]] == [
        ["2", "", "", ""], ["", "", "2", ""], ["", "", "", "2"],
    ]  # fmt: skip
    gone = claims_counts([found[0]._replace(found=None)])
    assert cells_of(gone)[0][-1] == "diverged"
    assert cells_of(gone)[2][2:] == ["", "", "", "", "1"]
    assert (other_setting("hpdv2"), other_setting("imagereward")) == ("imagereward", "hpdv2")
    flips = {"ce-augmented": 0.2, "ce": 0.1, "ce-ai": 0.1, "sp": 0.05}
    rows = [
        row(START, 0.6),
        *(row(name, 0.7, 0.7, flips=x, end_flips=2 * x) for name, x in flips.items()),
    ]
    found = claims({("table1", "large", "hpdv2"): rows})
    # Of both kinds of perturbations at the stop and then at the end: four of flips, two of truth.
    kind = ["no difference", *["held"] * 3, *["no difference"] * 2]
    assert [claim.verdict for claim in found] == [
        *kind * 2, *(["no difference", "held", "held", "no difference"] + ["no difference"] * 2) * 2
    ]  # fmt: skip
    for place, advantage in ((2, 0.15), (3, 0.05), (14, 0.3), (15, 0.0)):
        own = found[place].found
        assert own is not None
        assert own.difference == pytest.approx(advantage)
        assert own.seeds == 2


@pytest.mark.parametrize("table", ["table2", "table1", "table3", "table5", "overfitting"])
def test_every_table_with_claims_has_the_methods_that_they_name(table: str) -> None:
    make = curve if table == "overfitting" else row
    rows = [row(START, 0.6), *(make(name, 0.7, 0.7, 0.7) for name in TABLES[table].methods)]
    assert all(
        claim.found is not None and claim.found.verdict == "no difference"
        for claim in claims({(table, "large", "hpdv2"): rows})
    )


def test_figures_are_drawn_the_same_each_time(tmp_path: Path) -> None:
    rows = {"hpdv2": [row(START, 0.6), curve("ce", 0.6, 0.8, 0.7), curve("sp", 0.6, 0.75, 0.74)]}
    for name in ("one.svg", "two.svg"):
        draw_overfitting(tmp_path / name, rows)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.svg", "two.svg"))
    assert one == two
    assert one.rstrip().endswith(b"</svg>")
    assert len(list(tmp_path.iterdir())) == 2
