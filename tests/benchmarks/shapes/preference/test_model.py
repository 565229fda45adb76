"""The bundled preference model: one command, a choice by validation alone, and its card."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
import typer
from helpers.tiny_lab import save_tiny
from safetensors.torch import load_file

import stablepref
from stablepref.assets import ASSETS
from stablepref.benchmarks.shapes.people.dataset import lab_groups, oracle_groups
from stablepref.benchmarks.shapes.people.settings import HPDV2
from stablepref.benchmarks.shapes.preference.model import RECIPE, lengthened, main
from stablepref.evaluation.agreement import pairwise_accuracy
from stablepref.scorer import Scorer
from stablepref.weights.folder import WEIGHTS_FILE

SHARE = 0.6
RATES = (1e-6, 1e-3, 1e-2)
SIZES = {
    "groups": 4, "held_out": 3, "rate": list(RATES), "seeds": 2, "steps": 2, "share": SHARE
}  # fmt: skip
MODEL = "share-0.6"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two short trainings at each of three rates, and the model."""
    out = tmp_path_factory.mktemp("preference")
    main(out=out, **SIZES)  # type: ignore[arg-type] # options of several types
    return out


def accuracy(scorer: Scorer, path: Path, *, truth: bool) -> float:
    groups = list(stablepref.read_groups(path))
    ranks = [group.ranks for group in (oracle_groups(groups) if truth else groups)]
    return pairwise_accuracy([scorer.score(g.images, g.prompt) for g in groups], ranks).value


def cells(card: str, first: str) -> list[list[str]]:
    """The cells of the table rows whose first cell is this."""
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line[:1] == "|"]
    return [rest for head, *rest in rows if head.strip("*") == first]


def between(made: Path, rate: float, seed: int) -> Scorer:
    """The average of the weights, from the files alone."""
    end = made / f"rate-{rate:g}" / f"seed-{seed}" / "last"
    model = copy.deepcopy(stablepref.load(end, dtype="float32"))
    before = load_file(ASSETS / "shapes-clip" / WEIGHTS_FILE)
    after = load_file(end / WEIGHTS_FILE)
    mixed = {
        name: value.float()
        if name.endswith("logit_scale")
        else (1 - SHARE) * before[name].float() + SHARE * value.float()
        for name, value in after.items()
    }
    model.load_state_dict(mixed)
    return model


@pytest.fixture(scope="module")
def found(made: Path) -> dict[float, list[float]]:
    """Agreement with the annotators of the validation groups: by rate, of each seed."""
    validation = made / "data" / "hpdv2" / "validation.jsonl"
    return {
        rate: [accuracy(between(made, rate, seed), validation, truth=False) for seed in range(2)]
        for rate in RATES
    }


def chosen_of(found: dict[float, list[float]]) -> tuple[float, int]:
    """The rate whose mean is best, and its best seed; of equals the first."""
    rate = max(RATES, key=lambda each: sum(found[each]))
    return rate, found[rate].index(max(found[rate]))


def test_rate_and_seed_that_agree_best_with_validation_annotators_are_taken(
    made: Path, found: dict[float, list[float]]
) -> None:
    card = (made / MODEL / "README.md").read_text()
    rate, seed = chosen_of(found)
    for each, values in found.items():
        ((*told, mean),) = cells(card, f"{each:g}")
        assert [cell.strip("*") for cell in told] == [f"{value:.2%}" for value in values]
        assert mean == f"{sum(values) / 2:.2%}"
        marked = [index for index, cell in enumerate(told) if cell.startswith("**")]
        assert marked == ([seed] if each == rate else [])
    assert f"| **{rate:g}** |" in card
    model = stablepref.load(made / MODEL, dtype="float32")
    assert model.name == "shapes"
    assert model.preference_scale == 1.0
    weights = between(made, rate, seed).state_dict()
    for name, ours in model.state_dict().items():  # in half precision
        torch.testing.assert_close(ours, weights[name], rtol=1e-3, atol=1e-4)


def test_the_card_tells_what_a_user_would_measure(
    made: Path, found: dict[float, list[float]]
) -> None:
    card = (made / MODEL / "README.md").read_text()
    final = between(made, *chosen_of(found))
    start = stablepref.load("shapes-clip", dtype="float32")
    for setting in ("hpdv2", "imagereward"):
        test = made / "data" / setting / "test.jsonl"
        for title, truth in (("the truth", True), ("ten annotators' mean", False)):
            ((before, after, _),) = cells(card, f"{title}, `{setting}`")
            assert before.startswith(f"{accuracy(start, test, truth=truth):.2%} (")
            assert after.startswith(f"{accuracy(final, test, truth=truth):.2%} (")
    assert [len(cells(card, name)) for name in ("none", "crop-0.9", "jpeg-50")] == [1, 1, 1]
    assert "hflip" not in card
    assert "nan" not in card
    told = " ".join(card.split())
    assert "2 steps of 128 pairs, of them 2 in step 1" in told
    assert "60% are taken and the rest of `shapes-clip`" in told


def test_another_share_needs_no_other_training(made: Path) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (made / MODEL).iterdir()}

    before = files()
    assert {WEIGHTS_FILE, "README.md", "config.json"} <= before.keys()
    logs = sorted(made.glob("rate-*/seed-*/metrics.jsonl"))
    assert len(logs) == 6
    lines = [log.read_text() for log in logs]
    main(out=made, **SIZES)  # type: ignore[arg-type] # options of several types
    assert files() == before
    main(out=made, **(SIZES | {"share": 0}))  # type: ignore[arg-type] # options of several types
    assert [log.read_text() for log in logs] == lines
    start = stablepref.load("shapes-clip", dtype="float32")
    none = stablepref.load(made / "share-0", dtype="float32")
    group = next(iter(stablepref.read_groups(made / "data" / "hpdv2" / "test.jsonl")))
    scales = [float(model.logit_scale.detach()) for model in (start, none)]
    scores = [model.score(group.images, group.prompt) for model in (start, none)]
    torch.testing.assert_close(scores[1] / scales[1], scores[0] / scales[0], rtol=1e-3, atol=1e-4)


def test_it_begins_with_the_model_that_is_given(tmp_path: Path) -> None:
    begun = str(save_tiny(tmp_path / "start", seed=3))
    sizes = SIZES | {"rate": [1e-3], "seeds": 1, "share": 0, "start": begun}
    main(out=tmp_path / "out", **sizes)  # type: ignore[arg-type] # options of several types
    folder = tmp_path / "out" / "share-0"
    card = (folder / "README.md").read_text()
    assert f"It begins as `{begun}`" in card
    assert f"--share 0 --start {begun}`" in card
    start, none = (stablepref.load(each, dtype="float32") for each in (begun, folder))
    group = next(iter(stablepref.read_groups(tmp_path / "out/data/hpdv2/test.jsonl")))
    scales = [float(model.logit_scale.detach()) for model in (start, none)]
    scores = [model.score(group.images, group.prompt) for model in (start, none)]
    torch.testing.assert_close(scores[1] / scales[1], scores[0] / scales[0], rtol=1e-2, atol=1e-3)


def test_trainings_of_another_start_are_refused(made: Path, tmp_path: Path) -> None:
    assert "--start" not in (made / MODEL / "README.md").read_text()
    begun = str(save_tiny(tmp_path / "start", seed=3))
    with pytest.raises(typer.BadParameter, match="began with shapes-clip; give another --out"):
        main(out=made, **(SIZES | {"start": begun}))  # type: ignore[arg-type] # several types
    sizes = SIZES | {"rate": [1e-3], "seeds": 1, "start": begun}
    main(out=tmp_path / "out", **sizes)  # type: ignore[arg-type] # options of several types
    shutil.copytree(save_tiny(tmp_path / "other", seed=4), begun, dirs_exist_ok=True)
    stablepref.load.cache_clear()
    with pytest.raises(typer.BadParameter, match="other weights of that name"):
        main(out=tmp_path / "out", **sizes)  # type: ignore[arg-type] # options of several types


def test_recipes_are_lengthened_in_their_parts() -> None:
    longer = lengthened(RECIPE, 900)
    assert (longer.steps, longer.order_steps, longer.warmup_steps) == (900, 810, 60)
    assert longer.learning_rate == RECIPE.learning_rate


def test_an_impossible_rate_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"learning_rate is -1.0; expected"):
        main(out=tmp_path / "out", rate=[1e-4, -1.0])
    assert not (tmp_path / "out").exists()


def test_an_unknown_start_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shapes-clap"):
        main(out=tmp_path / "out", start="shapes-clap")
    assert not (tmp_path / "out").exists()


def test_the_bundled_model_agrees_better_than_the_one_it_began_as() -> None:
    folder = ASSETS / "shapes"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    card = (folder / "README.md").read_text()
    for told in ("by *Stable Preference*", "| rate |", "the truth, `hpdv2`", "| crop-0.9 |"):
        assert told in " ".join(card.split())
    groups = list(lab_groups(HPDV2, split="validation", groups=60))
    truth = [group.ranks for group in oracle_groups(groups)]
    start, final = (
        pairwise_accuracy([model.score(g.images, g.prompt) for g in groups], truth)
        for model in (stablepref.load(name, dtype="float32") for name in ("shapes-clip", "shapes"))
    )
    assert stablepref.load("shapes").preference_scale == 1.0
    assert final.difference(start).low > 0
