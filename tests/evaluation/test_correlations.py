"""Correlation between scorers against scipy, over images and over generative models."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

import stablepref
from stablepref.evaluation.correlations import correlation


@pytest.fixture
def scores() -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    base = rng.normal(size=60)
    return {
        "a": base.round(1).tolist(),
        "b": (base + rng.normal(size=60)).round(1).tolist(),
        "c": (-base + rng.normal(size=60)).tolist(),
    }


def test_over_images(scores: dict[str, list[float]]) -> None:
    found = correlation(scores)
    assert found.scorers == ("a", "b", "c")
    assert found.labels == ()
    for i, x in enumerate(scores.values()):
        for j, y in enumerate(scores.values()):
            assert found.pearson[i, j] == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
            assert found.spearman[i, j] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert stablepref.correlation is correlation


def test_over_models(scores: dict[str, list[float]]) -> None:
    models = [f"model {i % 7}" for i in range(60)]
    found = correlation(scores, models=models)
    assert found.labels == tuple(f"model {i}" for i in range(7))
    means = [
        [
            np.mean([v for v, m in zip(column, models, strict=True) if m == name])
            for name in found.labels
        ]
        for column in scores.values()
    ]
    np.testing.assert_allclose(found.points, means)
    assert found.pearson[0, 2] == pytest.approx(scipy.stats.pearsonr(means[0], means[2]).statistic)
    assert found.spearman[0, 2] == pytest.approx(
        scipy.stats.spearmanr(means[0], means[2]).statistic
    )


def test_prompts_level_is_taken_away() -> None:
    # Within each prompt the two are opposite; across prompts they rise together.
    prompts = ["x", "x", "y", "y", "z", "z"]
    columns = {"a": [1, 2, 11, 12, 21, 22], "b": [2, 1, 12, 11, 22, 21]}
    assert correlation(columns).pearson[0, 1] > 0.9
    found = correlation(columns, prompts=prompts)
    assert found.pearson[0, 1] == pytest.approx(-1)
    assert found.spearman[0, 1] == pytest.approx(-1)


def test_what_has_no_correlation_is_nan_and_null_in_json() -> None:
    found = correlation({"a": [1.0, 1.0], "b": [1.0, 2.0]})
    assert np.isnan(found.pearson[0, 1])
    assert np.isnan(found.spearman[0, 1])
    plain = json.loads(json.dumps(found.as_dict()), parse_constant=pytest.fail)
    assert plain["pearson"] == [[None, None], [None, 1.0]]
    assert plain["points"] == 2


@pytest.mark.parametrize("labels", [True, False])
def test_the_scatter_plot_has_a_panel_for_each_other_scorer(
    scores: dict[str, list[float]], labels: bool, tmp_path: Path
) -> None:
    models = [f"model {i % 5}" for i in range(60)] if labels else None
    found = correlation(scores, models=models)
    found.save_plot(tmp_path / "figure5.svg")
    text = (tmp_path / "figure5.svg").read_text()
    assert text.count('id="axes_') == 2
    assert f"<!-- Pearson {found.pearson[0, 1]:.2f}, Spearman {found.spearman[0, 1]:.2f}" in text
    assert ("<!-- model 3" in text) == labels
    found.save_plot(tmp_path / "figure5.png")
    with Image.open(tmp_path / "figure5.png") as picture:
        assert picture.width > 1.5 * picture.height


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (({"a": [1]},), "a correlation needs two"),
        (({"a": [1, 2], "b": [1]},), "equal for all"),
        (({"a": [[1]], "b": [[1]]},), "equal for all"),
        (({"a": [1, np.nan], "b": [1, 2]},), "scores of a are not all finite"),
    ],
)
def test_wrong_scores_are_named(arguments: tuple[dict[str, object]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        correlation(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"models has 1 item\(s\) for 2 images"):
        correlation({"a": [1, 2], "b": [1, 2]}, models=["m"])
