"""Scorers beside each other: paired differences, opposite choices, correlation within prompts."""

import numpy as np
import pytest
import scipy.stats
from helpers.html_outline import unstyled
from helpers.shades import ShadeScorer, shade, shades

from stablepref.data.groups import RankedGroup
from stablepref.evaluation.compare import align_reports, compare_reports, correlate_reports
from stablepref.evaluation.evaluate import evaluate
from stablepref.evaluation.report import EvaluationReport
from stablepref.evaluation.serialize import reports_dict
from stablepref.evaluation.tables import report_lines


def report(
    groups: list[RankedGroup], name: str = "shade", darker: bool = False
) -> EvaluationReport:
    """Of a scorer that prefers the brighter picture, or the darker one."""
    scorer = ShadeScorer(name=name)
    if darker:
        scorer.weight.data.neg_()
    return evaluate(scorer, groups, perturbations=())


def random_groups(count: int) -> list[RankedGroup]:
    rng = np.random.default_rng(0)
    return [
        shades(f"p{i}", rng.integers(0, 256, 5).tolist(), rng.permutation(5).tolist())
        for i in range(count)
    ]


def test_a_scorer_beside_its_opposite() -> None:
    groups = random_groups(30)
    first, second = report(groups), report(groups, "dark", darker=True)
    (pair,) = compare_reports([first, second])
    assert (pair.model, pair.to) == ("dark", "shade")
    assert pair.difference.value == pytest.approx(second.accuracy - first.accuracy)
    assert pair.opposite.value == 1
    assert pair.pearson == pytest.approx(-1)
    assert pair.spearman == pytest.approx(-1)


def test_the_interval_of_the_difference_is_paired() -> None:
    groups = random_groups(40)
    first, other = report(groups), report(groups, "dark", darker=True)
    (pair,) = compare_reports([first, other])
    difference = other.pairwise.sums - first.pairwise.sums
    theirs = scipy.stats.bootstrap(
        (difference, first.pairwise.counts),
        lambda d, c, axis: d.sum(axis=axis) / c.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (pair.difference.low, pair.difference.high) == pytest.approx(tuple(theirs), abs=0.02)
    (same,) = compare_reports([first, report(groups, "again")])
    assert tuple(same.difference) == (0, 0, 0)


def test_correlation_is_within_prompts() -> None:
    # Both scorers agree in each prompt, whatever the level of the prompt.
    groups = [shades("p", (1, 2, 3), (1, 2, 3)), shades("double", (1, 2, 3), (1, 2, 3))]
    found = correlate_reports([report(groups), report(groups, "other")])
    assert found.pearson[0, 1] == pytest.approx(1)
    own = found.points[0].round(3).tolist()
    assert own == [-1, 0, 1, -2, 0, 2]


def test_images_that_one_could_not_score_count_for_none() -> None:
    groups = [shades("p", (10, 20, 30), (1, 2, 3)), shades("q", (1, 2), (1, 2))]
    whole = report(groups)
    holes = [RankedGroup("p", (shade(10), "none.png", shade(30)), (1, 2, 3)), groups[1]]
    partly = report(holes, "partly")
    with pytest.raises(ValueError, match="differ in group 1"):
        compare_reports([whole, partly])
    names = [RankedGroup("p", (shade(10), b"none", shade(30)), (1, 2, 3)), groups[1]]
    renamed = report(names, "partly")
    object.__setattr__(renamed.scored[0], "images", whole.scored[0].images)
    left = align_reports([whole, renamed])
    assert [r.pairs for r in left] == [2, 2]
    assert whole.pairs == 4
    (pair,) = compare_reports([whole, renamed])
    assert pair.opposite.count == 2


def test_reports_of_other_data_are_refused() -> None:
    groups = random_groups(3)
    with pytest.raises(ValueError, match="3, 2 groups"):
        compare_reports([report(groups), report(groups[:2])])
    with pytest.raises(ValueError, match="names of their own"):
        correlate_reports([report(groups), report(groups)])


def test_tables_and_json_show_all_scorers() -> None:
    groups = random_groups(5)
    reports = [report(groups), report(groups, "dark", darker=True)]
    text = "\n".join(report_lines(reports))
    assert "Beside shade" in text
    found = reports_dict(reports, scores=False)
    assert [model["model"] for model in found["models"]] == ["shade", "dark"]  # type: ignore[attr-defined]
    (beside,) = found["compared"]  # type: ignore[misc]
    assert beside["to"] == "shade"
    assert beside["pearson"] == pytest.approx(-1)


def test_a_notebook_shows_every_table() -> None:
    found = report(random_groups(6))
    html = found._repr_html_()
    assert html.count("<table>") >= 2
    assert "<td>shade</td>" in unstyled(html)
    assert "Agreement with people" in html
