"""Scorers that use no prompt demand none, in Python and on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_clip
from helpers.tiny_scorers import tiny_aesthetic
from PIL import Image
from typer.testing import CliRunner

import stablepref
from stablepref.cli.main import app
from stablepref.models.catalog import ENTRIES
from stablepref.models.entry import Entry
from stablepref.models.registry import class_of_kind, needs_prompt
from stablepref.scorer import Scorer


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    torch.manual_seed(0)
    return tiny_aesthetic("linear").eval()


@pytest.fixture(scope="module")
def folder(scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three pictures, and the model that rates them in `model`."""
    place = tmp_path_factory.mktemp("rated")
    rng = np.random.default_rng(0)
    (place / "pictures").mkdir()
    for name in "abc":
        picture = Image.fromarray(rng.integers(0, 256, (70, 70, 3), dtype=np.uint8))
        picture.save(place / "pictures" / f"{name}.png")
    scorer.save_pretrained(place / "model")
    yield place
    stablepref.load.cache_clear()


def test_python_takes_none_and_gives_the_same_scores(scorer: Scorer, folder: Path) -> None:
    pictures = folder / "pictures"
    expected = scorer.score(pictures, "any words")
    assert torch.equal(scorer.score(pictures), expected)
    assert torch.equal(scorer.score(pictures, [None, "", "x"]), expected)
    lazy = scorer.stream((p for p in sorted(pictures.iterdir())), (None for _ in range(3)))
    found = list(lazy)
    assert [one.score for one in found] == expected.tolist()
    assert [one.prompt for one in found] == ["", "", ""]
    assert [one.index for one in scorer.rank(pictures)] == expected.argsort(
        descending=True
    ).tolist()
    first, second = pictures / "a.png", pictures / "b.png"
    assert scorer.compare(first, second) == scorer.compare(first, second, "any words")
    pixels = torch.rand(2, 3, 64, 64)
    assert torch.equal(scorer(pixels), scorer(pixels, ["a", "b"]))
    with pytest.raises(ValueError, match="2 prompts for 3 images"):
        scorer.score(pictures, [None, None])


def test_other_scorers_still_demand_one(folder: Path) -> None:
    scorer = tiny_clip()
    first, second = folder / "pictures" / "a.png", folder / "pictures" / "b.png"
    with pytest.raises(TypeError, match=r"prompts must be one string .* got NoneType"):
        scorer.score(first)
    with pytest.raises(TypeError, match="ordered under one prompt"):
        scorer.compare(first, second)
    with pytest.raises(TypeError, match="prompts must be one string"):
        scorer(torch.rand(1, 3, 64, 64))
    (bad,) = scorer.stream((p for p in [first]), (None for _ in range(1)))
    assert bad.error is not None
    assert "its prompt must be a string, got NoneType" in bad.error


def test_it_is_known_without_torch_where_it_can_be(folder: Path) -> None:
    assert needs_prompt("hps-v2.1") is True
    assert needs_prompt("laion-aesthetic-v2") is False
    assert needs_prompt(str(folder / "model")) is False
    assert needs_prompt("weights.pth", "aesthetic") is False
    assert needs_prompt("hf-hub:someone/model") is None


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_catalogue_says_what_the_classes_say(entry: Entry) -> None:
    assert class_of_kind(entry.kind, Scorer).needs_prompt == entry.needs_prompt  # type: ignore[type-abstract] # never made


def printed(*arguments: object) -> list[dict[str, object]]:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def test_commands_demand_none(scorer: Scorer, folder: Path) -> None:
    model, pictures = folder / "model", folder / "pictures"
    expected = scorer.score(pictures).tolist()
    common = ("-s", model, "--dtype", "float32", "--device", "cpu", "--json")
    rows = printed("score", pictures, *common)
    assert [row["score"] for row in rows] == pytest.approx(expected)
    assert [row["prompt"] for row in rows] == [None] * 3

    manifest = folder / "rows.jsonl"
    manifest.write_text("".join(f'{{"image": "pictures/{n}.png"}}\n' for n in "abc"))
    assert [row["score"] for row in printed("score", manifest, *common)] == pytest.approx(expected)
    mixed = folder / "mixed.csv"
    mixed.write_text("image,prompt,seed\npictures/a.png,,1\npictures/b.png,a fox,2\n")
    found = printed("score", mixed, *common)
    assert [(row["prompt"], row["seed"]) for row in found] == [(None, "1"), ("a fox", "2")]

    ranked = printed("rank", pictures, *common)
    assert [row["score"] for row in ranked] == pytest.approx(sorted(expected, reverse=True))
    page = folder / "best.html"
    CliRunner().invoke(app, ["rank", str(pictures), "-s", str(model), "--html", str(page)])
    assert page.is_file()
    chosen = CliRunner().invoke(
        app, ["compare", str(pictures / "a.png"), str(pictures / "b.png"), "-s", str(model)]
    )
    assert chosen.exit_code == 0, chosen.output
