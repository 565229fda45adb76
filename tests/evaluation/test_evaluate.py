"""Evaluation against naive loops and by hand; what it leaves alone, and what it refuses."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.stats
import torch
from helpers.shades import HAND, ShadeScorer, shade, shades
from helpers.tiny import tiny_clip
from PIL import Image

import stablepref
from stablepref.augment.perturbations import PERTURBATIONS, TABLE_1, Perturbation
from stablepref.data.groups import RankedGroup
from stablepref.data.read import read_groups
from stablepref.evaluation.compare import compare_reports
from stablepref.evaluation.evaluate import evaluate

if TYPE_CHECKING:
    from pathlib import Path

    from stablepref.evaluation.agreement import TieRule
    from stablepref.evaluation.means import Interval
    from stablepref.evaluation.report import EvaluationReport
    from stablepref.scorer import Scorer


def test_accuracy_by_hand() -> None:
    report = evaluate(ShadeScorer(), HAND, perturbations=(), progress=False)
    assert (report.pairs, report.ties) == (6, 1)
    assert report.accuracy == pytest.approx((3 + 0.5) / 6)
    rules: dict[TieRule, float] = {
        "half": (3 + 0.5) / 6,
        "imagereward": 3 / 6,
        # Ties of people are right; of equal scores the earlier is preferred: (1, 2) is right.
        "hpsv2": (3 / 3 + 2 / 3 + 0) / 3,
        # The tie of people that the scorer does not share counts one half.
        "pickscore": (3 + 0.5 + 0.5) / 7,
    }
    for rule, expected in rules.items():
        assert report.by_rule(rule).value == pytest.approx(expected)
        again = evaluate(ShadeScorer(), HAND, perturbations=(), tie_rule=rule)
        assert again.accuracy == pytest.approx(expected)
    # Brightest: right in the first group; two in the second, of which one is ranked best; wrong.
    assert report.top1.value == pytest.approx((1 + 0.5 + 0) / 3)
    within = evaluate(ShadeScorer(), HAND, perturbations=(), tie_margin=10.5)
    # Ties up to 10.5: only the first group's outer pair is decided, and right.
    assert within.accuracy == pytest.approx((0.5 + 1 + 0.5 + 0.5 + 0.5 + 0.5) / 6)


def test_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    groups, taus, rhos = [], [], []
    for number in range(6):
        values, ranks = rng.integers(0, 256, 7), rng.integers(1, 6, 7)
        groups.append(shades(f"p{number}", values.tolist(), ranks.tolist()))
        taus.append(scipy.stats.kendalltau(values, -ranks).statistic)
        rhos.append(scipy.stats.spearmanr(values, -ranks).statistic)
    report = evaluate(ShadeScorer(), groups, perturbations=())
    assert report.kendall_tau.value == pytest.approx(np.mean(taus))
    assert report.spearman.value == pytest.approx(np.mean(rhos))


def test_the_interval_is_the_percentile_bootstrap_over_prompts() -> None:
    rng = np.random.default_rng(1)
    groups = [
        shades(f"p{i}", rng.integers(0, 256, 5).tolist(), rng.permutation(5).tolist())
        for i in range(40)
    ]
    report = evaluate(ShadeScorer(), groups, perturbations=())
    sums, counts = report.pairwise.sums, report.pairwise.counts
    theirs = scipy.stats.bootstrap(
        (sums, counts),
        lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    ours = report.pairwise.interval()
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.012)


def test_groups_that_share_a_prompt_are_drawn_together_in_every_interval() -> None:
    """Each prompt in three groups, as of three annotators: no interval is narrower for it."""
    rng = np.random.default_rng(3)

    def group(number: int) -> RankedGroup:
        people = [rng.permutation(4).tolist() for _ in range(3)]
        values = rng.integers(0, 256, 4).tolist()
        return shades(f"p{number}", values, rng.permutation(4).tolist(), people)

    once = [group(number) for number in range(12)]
    several = [one for one in once for _ in range(3)]
    first, second = (evaluate(ShadeScorer(), groups) for groups in (once, several))

    def intervals(report: EvaluationReport) -> dict[str, Interval]:
        means = {
            "accuracy": report.pairwise,
            "hpsv2": report.by_rule("hpsv2"),
            "tau": report.kendall_tau,
            "rho": report.spearman,
            "top1": report.top1,
        }
        means |= {f"people: {name}": mean for name, mean in report.human.items()}
        means |= {f"majority {one.up_to}": one.accuracy for one in report.by_agreement}
        means |= {f"{row.name} flips": row.flips for row in report.disturbed}
        found = {name: mean.interval() for name, mean in means.items()}
        found |= {row.name: row.change for row in report.disturbed}
        (pair,) = compare_reports([report, report])
        return found | {"difference": pair.difference, "opposite": pair.opposite.interval()}

    expected, found = intervals(first), intervals(second)
    assert len(found) > 12
    for name, interval in expected.items():
        assert found[name] == pytest.approx(interval, nan_ok=True), name
    assert second.as_dict()["groups"] == 36
    assert second.as_dict()["prompts"] == 12
    assert "12 prompts in 36 groups" in "\n".join(second.lines())


def test_calibration_by_hand() -> None:
    groups = [shades("p", (2, 1), (1, 2), [(1, 2), (1, 2), (2, 1)]), shades("q", (5, 2), (2, 1))]
    report = evaluate(ShadeScorer(preference_scale=0.5), groups, perturbations=())
    sure, surer = (1 / (1 + np.exp(-x)) for x in (0.5, 1.5))  # of margins 1 and 3
    found = report.calibration
    assert found is not None
    assert report.note == ""
    assert found.error == pytest.approx(((1 - sure) + surer) / 2, abs=1e-4)
    assert found.brier == pytest.approx(((1 - sure) ** 2 + surer**2) / 2, abs=1e-4)
    single = report.calibration_single
    assert single is not None
    assert single.error == pytest.approx(2 / 3 - sure, abs=1e-4)
    assert single.brier == pytest.approx((2 * (1 - sure) ** 2 + sure**2) / 3, abs=1e-4)


def test_the_probability_is_that_of_compare() -> None:
    scorer = tiny_clip()
    better, worse = (Image.new("RGB", (64, 64), c) for c in ("red", "teal"))
    report = evaluate(scorer, [RankedGroup("a cat", (better, worse), (1, 2))], perturbations=())
    stated = scorer.compare(better, worse, "a cat").probability
    assert stated is not None
    assert report.calibration is not None
    assert report.calibration.brier == pytest.approx((1 - stated) ** 2, abs=1e-5)


def test_scorers_without_a_probability_say_why() -> None:
    report = evaluate(ShadeScorer(preference_scale=None), HAND, perturbations=())
    assert report.calibration is report.calibration_single is None
    assert report.note == "shade was not trained on preferences, so its margin is not a probability"
    tied = evaluate(ShadeScorer(), [shades("p", (1, 2), (1, 1))], perturbations=())
    assert tied.calibration is None
    assert tied.note == "people tie all pairs"


def test_people_by_hand() -> None:
    report = evaluate(ShadeScorer(), HAND, perturbations=())
    # Pairs of annotators: 3 each. Agreements: (3 + 2 + 2) + (2 + 3 + 2) + (1 + 0 + 0) of 9 + 9 + 3.
    assert report.human["single against single"].value == pytest.approx((7 + 7 + 1) / 21)
    # Majorities of three: 2 or 3 of them, two thirds or all.
    counts = {b.up_to: b.accuracy.count for b in report.by_agreement}
    assert counts == {0.6: 0, 0.7: 3, 0.8: 0, 0.9: 0, 1.0: 4}
    accuracies = {b.up_to: b.accuracy.value for b in report.by_agreement}
    # Two thirds: (1, 2) of the first group, right; (0, 1) of the second and the last, wrong.
    assert accuracies[0.7] == pytest.approx(1 / 3)
    # All: (0, 1) and (0, 2) of the first, right; of the second (0, 2) wrong, (1, 2) tied.
    assert accuracies[1.0] == pytest.approx(2.5 / 4)
    bare = evaluate(ShadeScorer(), [shades("p", (1, 2), (1, 2))], perturbations=())
    assert bare.human == {}
    assert bare.by_agreement == []
    assert bare.calibration_single is None


def test_disturbances_by_hand() -> None:
    # The right half is scored. Mirroring shows the left half: 20, 10, 30.
    pictures = (shade(30, left=20), shade(20, left=10), shade(10, left=30))
    groups = [
        RankedGroup("p", pictures, (1, 2, 3)),
        RankedGroup("on the left", pictures, (1, 2, 3)),
    ]
    report = evaluate(ShadeScorer(), groups, perturbations=("hflip", "brightness-0.9"))
    mirrored, darker = report.disturbed
    # Of (0, 1), (0, 2), (1, 2) the first stays; the other prompt names a side.
    assert mirrored.name == "hflip"
    assert mirrored.accuracy.value == pytest.approx(1 / 3)
    assert mirrored.before.value == 1
    assert mirrored.change.value == pytest.approx(1 / 3 - 1)
    assert mirrored.flips.value == pytest.approx(2 / 3)
    assert (mirrored.accuracy.count, mirrored.left_out) == (3, 1)
    assert (darker.accuracy.value, darker.flips.value, darker.left_out) == (1, 0, 0)
    assert darker.accuracy.count == 6
    both = evaluate(ShadeScorer(), groups, perturbations=("hflip",), mirror_sided=True)
    assert (both.disturbed[0].accuracy.count, both.disturbed[0].left_out) == (6, 0)


def test_one_s_own_perturbation() -> None:
    invert = {"invert": lambda image: image.point(lambda value: 255 - value)}
    report = evaluate(ShadeScorer(), [shades("p", (3, 2, 1), (1, 2, 3))], perturbations=invert)
    assert report.perturbations == ("invert",)
    assert report.disturbed[0].flips.value == 1


@pytest.mark.parametrize("training", [True, False])
def test_the_scorer_stays_as_it_was(training: bool) -> None:
    scorer = tiny_clip()
    scorer.train(training)
    scorer.model.visual.train(not training)
    for parameter in scorer.model.transformer.parameters():
        parameter.requires_grad_(False)
    weights = [p.clone() for p in scorer.parameters()]
    modes = [m.training for m in scorer.modules()]
    gradients = [p.requires_grad for p in scorer.parameters()]
    state = torch.get_rng_state()
    report = evaluate(scorer, HAND, perturbations=("jpeg-50",), progress=False)
    assert [m.training for m in scorer.modules()] == modes
    assert [p.requires_grad for p in scorer.parameters()] == gradients
    assert all(p.grad is None for p in scorer.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, weights, scorer.parameters()))
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    with torch.no_grad():  # as a training step would, after which remembered prompts are stale
        for parameter in scorer.parameters():
            parameter.add_(0.1)
    scorer(torch.rand(1, 3, 64, 64), ["a cat"]).sum().backward()
    assert evaluate(scorer, HAND, perturbations=()).scored[0].scores[0].tolist() != (
        report.scored[0].scores[0].tolist()
    )


@pytest.mark.parametrize("name", ["shapes", "tiny"])
def test_the_gallery_against_a_naive_loop(name: str, shared_data: Path) -> None:
    scorer: Scorer = stablepref.load("shapes") if name == "shapes" else tiny_clip()
    groups = list(itertools.islice(read_groups(shared_data / "hpdv2_gallery/groups.json"), 2))
    report = evaluate(scorer, groups, perturbations=("hflip+crop-0.9",), batch_size=5)
    disturb = PERTURBATIONS["hflip+crop-0.9"]
    right = pairs = flipped = 0.0
    for group in groups:
        pictures = [Image.open(str(path)).convert("RGB") for path in group.images]
        plain = [scorer.score(picture, group.prompt).item() for picture in pictures]
        after = [scorer.score(disturb(picture), group.prompt).item() for picture in pictures]
        for i, j in itertools.combinations(range(len(pictures)), 2):
            if group.ranks[i] != group.ranks[j]:
                pairs += 1
                right += (plain[i] > plain[j]) == (group.ranks[i] < group.ranks[j])
                flipped += (plain[i] > plain[j]) != (after[i] > after[j])
    assert report.pairs == pairs
    assert report.accuracy == pytest.approx(right / pairs, abs=1.5 / pairs)
    assert report.disturbed[0].flips.value == pytest.approx(flipped / pairs, abs=1.5 / pairs)
    assert report.excluded == []


def test_human_agreement_of_the_gallery_is_that_of_all_its_annotators(shared_data: Path) -> None:
    groups = list(itertools.islice(read_groups(shared_data / "hpdv2_gallery/groups.json"), 3))
    report = evaluate(tiny_clip(), groups, perturbations=())
    agree = count = 0
    for group in groups:
        for a, b in itertools.combinations(group.annotations, 2):
            for i, j in itertools.combinations(range(len(group.images)), 2):
                agree += (a[i] < a[j]) == (b[i] < b[j])
                count += 1
    assert report.human["single against single"].value == pytest.approx(agree / count)


def test_bad_images_are_excluded_named_and_counted(tmp_path: Path) -> None:
    gone = tmp_path / "gone.png"
    groups = [
        RankedGroup("p", (shade(9), gone, shade(5)), (1, 2, 3), annotations=((1, 2, 3), (3, 2, 1))),
        RankedGroup("q", (shade(9), gone), (1, 2), id="pair"),
    ]
    report = evaluate(ShadeScorer(), groups, perturbations=TABLE_1)
    assert [(e.group, e.image, e.name) for e in report.excluded] == [
        ("group 1", 1, str(gone)),
        ("pair", 1, str(gone)),
    ]
    assert {e.reason for e in report.excluded} == {"there is no such file"}
    assert (len(report.scored), len(report.groups), report.pairs, report.accuracy) == (2, 1, 1, 1)
    assert report.human["single against single"].value == 0
    as_dict = report.as_dict()
    assert as_dict["excluded_groups"] == 1
    with pytest.raises(
        ValueError, match=r"no group of 1 has two images.*gone\.png \(image 1 of pair\): there is"
    ):
        evaluate(ShadeScorer(), groups[1:], perturbations=())


def test_the_dictionary_is_json_and_agrees(tmp_path: Path) -> None:
    report = evaluate(ShadeScorer(), HAND, perturbations=("hflip",), out=tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)
    assert found["compared"] == []
    (model,) = found["models"]
    assert model == json.loads(json.dumps(report.as_dict(scores=True)))
    assert "scores" not in report.as_dict()
    assert model["accuracy"]["value"] == report.accuracy
    assert model["accuracy"]["low"] <= report.accuracy <= model["accuracy"]["high"]
    assert model["score_rows"] == ["as it is", "hflip"]
    assert [group["prompt"] for group in model["scores"]] == ["p", "q", "r"]
    assert np.allclose(model["scores"][1]["scores"], [[40, 50, 50]] * 2)
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    lines = "\n".join(report.lines())
    assert "58.33" in lines
    assert "people: single against single" in lines


def test_wrong_arguments_are_refused_before_anything_is_scored(tmp_path: Path) -> None:
    scorer = ShadeScorer()
    for arguments, says in (
        (
            {"perturbations": ("hflip", "rotate")},
            r"unknown perturbation 'rotate'; expected one of: hflip\+crop-0.97, ",
        ),
        (
            {"perturbations": (Perturbation("hflip", PERTURBATIONS["crop-0.9"]), "hflip")},
            "two of the perturbations are named 'hflip'",
        ),
        ({"perturbations": "hflip"}, "perturbations is a string"),
        ({"tie_rule": "best"}, "rule is 'best'"),
        ({"tie_margin": -1.0}, "tie_margin is -1"),
        ({"tie_rule": "hpsv2", "tie_margin": 1.0}, "0 with 'hpsv2'"),
        ({"batch_size": 0}, "batch_size"),
        ({"out": tmp_path / "none" / "a.json"}, "there is no folder"),
    ):
        with pytest.raises(ValueError, match=says):
            evaluate(scorer, HAND, **arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tie_rul"):
        evaluate(scorer, HAND, tie_rul="half")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'mine' is 3; expected a function"):
        evaluate(scorer, HAND, perturbations={"mine": 3})  # type: ignore[dict-item]
    for groups in ("data.jsonl", {"prompt": "p"}, ["data.jsonl"], 3):
        with pytest.raises(TypeError, match="groups"):
            evaluate(scorer, groups)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no group of 0 has two images"):
        evaluate(scorer, [])
    assert scorer.encoded == 0
