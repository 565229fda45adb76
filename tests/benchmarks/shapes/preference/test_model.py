"""The bundled preference model: one command, a choice by validation alone, and its card."""

import copy
import shutil
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import typer
from helpers.tiny_lab import save_tiny
from PIL import Image
from safetensors.torch import load_file

import stablepref
from stablepref.assets import ASSETS, PIPELINES
from stablepref.benchmarks.shapes.evaluate import model_scorer, pair_accuracy
from stablepref.benchmarks.shapes.people.dataset import lab_groups, oracle_groups
from stablepref.benchmarks.shapes.people.settings import HPDV2
from stablepref.benchmarks.shapes.pipeline.parts import open_pipeline
from stablepref.benchmarks.shapes.preference import drawn
from stablepref.benchmarks.shapes.preference import model as preference
from stablepref.benchmarks.shapes.preference.model import RECIPE, lengthened, main
from stablepref.benchmarks.shapes.studies.selection_rows import candidate_rows
from stablepref.benchmarks.shapes.world.accuracy import with_interval
from stablepref.benchmarks.shapes.world.drawing import render
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.prompts import lab_prompts
from stablepref.data.groups import RankedGroup
from stablepref.evaluation.agreement import pairwise_accuracy
from stablepref.scorer import Scorer
from stablepref.weights.folder import WEIGHTS_FILE

SHARES = (0.6, 1.0)
RATES = (1e-6, 1e-3, 1e-2)
SIZES = {
    "groups": 4, "held_out": 3, "drawn": 2, "drawn_held_out": 2, "rate": list(RATES), "seeds": 2,
    "steps": 2, "share": list(SHARES),
}  # fmt: skip
ALONE = SIZES | {"drawn": 0, "rate": [1e-3], "seeds": 1, "share": [0]}
"""Without the pipeline's groups, and with nothing of the training in the model."""
KINDS = ("hpdv2", "drawn")
Setting = tuple[float, float]
"""Rate and share."""


class Drawer:
    """In place of the pipeline: draws scenes, every third one's objects in red."""

    components: ClassVar[dict[str, object]] = {}

    def set_progress_bar_config(self, *, disable: bool) -> None:
        assert disable

    def __call__(
        self,
        prompts: list[str],
        *,
        num_inference_steps: int,
        guidance_scale: float,
        generator: list[torch.Generator],
    ) -> object:
        assert (num_inference_steps, guidance_scale) == (10, 4)
        images = []
        for prompt, noise in zip(prompts, generator, strict=True):
            seed = noise.initial_seed()
            scene = parse("a red circle" if seed % 3 == 0 else prompt)
            images.append(Image.fromarray(render(scene, seed=seed % 2**32)))
        return type("Output", (), {"images": images})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two short trainings at each of three rates, and the model."""
    out = tmp_path_factory.mktemp("preference")
    with pytest.MonkeyPatch.context() as patch:
        drawing(patch)
        main(out=out, **SIZES)  # type: ignore[arg-type] # options of several types
    return out


def drawing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(preference, "open_pipeline", lambda _: Drawer())
    patch.setattr(drawn, "pipeline_digests", lambda _: {"drawer": "1"})


def model_of(made: Path) -> Path:
    """The folder of the model that was chosen."""
    (folder,) = made.glob("share-*")
    return folder


def accuracy(scorer: Scorer, path: Path, *, truth: bool) -> float:
    groups = list(stablepref.read_groups(path))
    ranks = [group.ranks for group in (oracle_groups(groups) if truth else groups)]
    return pairwise_accuracy([scorer.score(g.images, g.prompt) for g in groups], ranks).value


def cells(card: str, first: str) -> list[list[str]]:
    """The cells of the table rows whose first cell is this."""
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line[:1] == "|"]
    return [rest for head, *rest in rows if head.strip("*") == first]


def between(made: Path, setting: Setting, seed: int) -> Scorer:
    """The average of the weights, from the files alone."""
    rate, share = setting
    end = made / f"rate-{rate:g}" / f"seed-{seed}" / "last"
    model = copy.deepcopy(stablepref.load(end, dtype="float32"))
    before = load_file(ASSETS / "shapes-clip" / WEIGHTS_FILE)
    after = load_file(end / WEIGHTS_FILE)
    mixed = {
        name: value.float()
        if name.endswith("logit_scale")
        else (1 - share) * before[name].float() + share * value.float()
        for name, value in after.items()
    }
    model.load_state_dict(mixed)
    return model


@pytest.fixture(scope="module")
def found(made: Path) -> dict[Setting, list[float]]:
    """Agreement with the annotators of both kinds' validation groups: of each seed."""
    files = [made / "data" / kind / "validation.jsonl" for kind in KINDS]
    return {
        setting: [
            sum(accuracy(between(made, setting, seed), file, truth=False) for file in files) / 2
            for seed in range(2)
        ]
        for setting in product(RATES, SHARES)
    }


def chosen_of(found: dict[Setting, list[float]]) -> tuple[Setting, int]:
    """The rate and share whose mean is best, and their best seed; of equals the first."""
    setting = max(found, key=lambda each: sum(found[each]))
    return setting, found[setting].index(max(found[setting]))


def test_rate_share_and_seed_that_agree_best_with_validation_annotators_are_taken(
    made: Path, found: dict[Setting, list[float]]
) -> None:
    card = (model_of(made) / "README.md").read_text()
    setting, seed = chosen_of(found)
    for (rate, share), values in found.items():
        rows = {row[0].strip("*"): row[1:] for row in cells(card, f"{rate:g}")}
        *told, mean = rows[f"{share:g}"]
        assert [cell.strip("*") for cell in told] == [f"{value:.2%}" for value in values]
        assert mean == f"{sum(values) / 2:.2%}"
        marked = [index for index, cell in enumerate(told) if cell.startswith("**")]
        assert marked == ([seed] if (rate, share) == setting else [])
    assert f"| **{setting[0]:g}** | **{setting[1]:g}** |" in card
    assert model_of(made).name == f"share-{setting[1]:g}"
    model = stablepref.load(model_of(made), dtype="float32")
    assert model.name == "shapes"
    assert model.preference_scale == 1.0
    weights = between(made, setting, seed).state_dict()
    for name, ours in model.state_dict().items():  # in half precision
        torch.testing.assert_close(ours, weights[name], rtol=1e-3, atol=1e-4)


def test_trainings_see_what_generators_and_the_pipeline_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing(monkeypatch)
    seen: list[str] = []

    def stopping(groups: list[RankedGroup], *_: object, **__: object) -> None:
        seen.extend(group.id or "" for group in groups)
        raise KeyboardInterrupt

    monkeypatch.setattr(preference, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        main(out=tmp_path, **SIZES)  # type: ignore[arg-type] # options of several types
    kinds = [name.split("-")[0] for name in seen]
    assert kinds == ["drawn"] * 2 + ["hpdv2"] * 4
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        main(out=tmp_path, **(SIZES | {"groups": 0}))  # type: ignore[arg-type] # several types
    assert [name.split("-")[0] for name in seen] == ["drawn"] * 2
    with pytest.raises(typer.BadParameter, match="--groups or --drawn"):
        main(out=tmp_path, **(SIZES | {"groups": 0, "drawn": 0}))  # type: ignore[arg-type] # several types


def test_the_card_tells_what_a_user_would_measure(
    made: Path, found: dict[Setting, list[float]]
) -> None:
    card = (model_of(made) / "README.md").read_text()
    final = between(made, *chosen_of(found))
    start = stablepref.load("shapes-clip", dtype="float32")
    for setting in ("hpdv2", "imagereward", "drawn"):
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
    share = chosen_of(found)[0][1]
    assert f"{share:.0%} are taken and the rest of `shapes-clip`" in told
    assert "4 groups of nine pictures by the laboratory's generators, ranked by 1 person" in told
    assert "2 groups of nine pictures by the laboratory's pipeline, ranked by 10 people" in told
    assert "3 validation groups and of 2 that the pipeline drew" in told
    assert "--groups 4 --held-out 3 --drawn 2 --drawn-held-out 2 --rate 1e-06" in told


def test_another_share_needs_no_other_training(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing(monkeypatch)
    copied = tmp_path / "made"
    shutil.copytree(made, copied)
    folder = model_of(copied)

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = files()
    assert {WEIGHTS_FILE, "README.md", "config.json"} <= before.keys()
    logs = sorted(copied.glob("rate-*/seed-*/metrics.jsonl"))
    assert len(logs) == 6
    lines = [log.read_text() for log in logs]
    main(out=copied, **SIZES)  # type: ignore[arg-type] # options of several types
    assert files() == before
    main(out=copied, **(SIZES | {"share": [0]}))  # type: ignore[arg-type] # options of several types
    assert [log.read_text() for log in logs] == lines
    assert_as_the_start(copied / "share-0", "shapes-clip", copied / "data/hpdv2/test.jsonl")


def assert_as_the_start(folder: Path, start: str, data: Path) -> None:
    """A model with nothing of the training scores as the start does, in another unit."""
    models = [stablepref.load(each, dtype="float32") for each in (start, folder)]
    group = next(iter(stablepref.read_groups(data)))
    ours = [
        model.score(group.images, group.prompt) / float(model.logit_scale.detach())
        for model in models
    ]
    torch.testing.assert_close(ours[1], ours[0], rtol=1e-2, atol=1e-3)


def test_it_begins_with_the_model_that_is_given(tmp_path: Path) -> None:
    begun = str(save_tiny(tmp_path / "start", seed=3))
    main(out=tmp_path / "out", **(ALONE | {"start": begun}))  # type: ignore[arg-type] # options of several types
    card = (tmp_path / "out" / "share-0" / "README.md").read_text()
    assert f"It begins as `{begun}`" in card
    assert f"--share 0 --start {begun}`" in card
    assert "--drawn 0 --rate" in card
    assert "pipeline" not in card.split("## Training")[1]
    assert not (tmp_path / "out" / "data" / "drawn").exists()
    assert_as_the_start(tmp_path / "out" / "share-0", begun, tmp_path / "out/data/hpdv2/test.jsonl")


def test_trainings_of_another_start_are_refused(made: Path, tmp_path: Path) -> None:
    assert "--start" not in (model_of(made) / "README.md").read_text()
    begun = str(save_tiny(tmp_path / "start", seed=3))
    with pytest.raises(typer.BadParameter, match="began with shapes-clip; give another --out"):
        main(out=made, **(SIZES | {"start": begun}))  # type: ignore[arg-type] # several types
    sizes = ALONE | {"start": begun}
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


def test_the_bundled_model_has_its_card() -> None:
    folder = ASSETS / "shapes"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    card = (folder / "README.md").read_text()
    for told in ("by *Stable Preference*", "| rate |", "the truth, `hpdv2`", "| crop-0.9 |"):
        assert told in " ".join(card.split())
    assert "the truth, `drawn`" in card
    assert stablepref.load("shapes").preference_scale == 1.0


def test_the_bundled_model_sees_what_its_start_does_not() -> None:
    """What a pipeline gets wrong, an object twice; and what generators do, no worse."""
    start, final = (
        pair_accuracy(model_scorer(name), prompts=1000, kinds=("repeated",), quiet=True)["all"]
        for name in ("shapes-clip", "shapes")
    )
    assert final.low > start.high
    groups = list(lab_groups(HPDV2, split="validation", groups=60))
    truth = [group.ranks for group in oracle_groups(groups)]
    before, after = (
        pairwise_accuracy([model.score(g.images, g.prompt) for g in groups], truth)
        for model in (stablepref.load(name, dtype="float32") for name in ("shapes-clip", "shapes"))
    )
    assert after.difference(before).value > 0


@pytest.mark.slow  # four thousand pictures, seven minutes
def test_the_bundled_model_orders_its_pipelines_pictures_better_than_its_start(
    tmp_path: Path,
) -> None:
    """Pairs of a right and a wrong picture of a prompt, of validation prompts."""
    scorers = {name: stablepref.load(name, dtype="float32") for name in ("shapes-clip", "shapes")}
    pictures: dict[int, list[dict[str, Any]]] = {}
    for row in candidate_rows(
        open_pipeline(PIPELINES["shapes"]), scorers, lab_prompts("validation"),
        tmp_path, candidates=20, looks=(), steps=10, progress=False,
    ):  # fmt: skip
        pictures.setdefault(row["prompt"], []).append(row)
    gains = []
    for rows in pictures.values():
        pairs = [(a, b) for a in rows if a["correct"] for b in rows if not b["correct"]]
        start, final = (
            [a["scores"][name] > b["scores"][name] for a, b in pairs] for name in scorers
        )
        if pairs:
            gains.append([(sum(final) - sum(start)) / len(pairs)])
    assert with_interval(gains).low > 0
