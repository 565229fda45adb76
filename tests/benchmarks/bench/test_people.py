"""People's rankings as a column of a benchmark, beside the scorers'."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from helpers.brightness import Brightness
from helpers.commandline import run
from PIL import Image
from typer.testing import CliRunner

from stablepref.benchmarks.bench.judges import ModelJudge
from stablepref.benchmarks.bench.people import PeopleJudge
from stablepref.benchmarks.bench.ranked_models import main, models_of, write_models
from stablepref.benchmarks.bench.run import bench
from stablepref.data.groups import RankedGroup


def draw(folder: Path, number: int, level: int) -> Path:
    path = folder / f"{number:05d}.png"
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)
    return path


@pytest.fixture
def groups(tmp_path: Path) -> list[RankedGroup]:
    """Three models; people like the second one best for one prompt, the third for the other."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    first = [draw(folder, 10 + i, level) for i, level in enumerate((200, 100, 0))]
    second = [draw(folder, 23 + i, level) for i, level in enumerate((50, 150))]
    return [
        RankedGroup(
            "a cat", tuple(map(str, first)), (2, 1, 3),
            annotations=((1, 2, 3), (2, 1, 3), (2, 1, 2), (3, 1, 2)),
        ),
        RankedGroup("a dog", (str(second[1]), str(second[0])), (1, 2)),
    ]  # fmt: skip


def test_shares_by_hand(groups: list[RankedGroup]) -> None:
    judge = PeopleJudge(groups)
    sources = [*groups[0].images, *groups[1].images]
    prompts = ["a cat"] * 3 + ["a dog"] * 2
    # Of 4 people and 2 others each: 2, 1, 0.5 and 0; 1, 2, 2 and 2; 0, 0, 0.5 and 1.
    expected = [3.5 / 8, 7 / 8, 1.5 / 8, 1, 0]
    assert judge([], prompts, sources) == pytest.approx(expected)


def test_a_picture_of_several_pairs_counts_all_of_them(tmp_path: Path) -> None:
    a, b, c = (str(draw(tmp_path, number, 0)) for number in range(3))
    pairs = [
        RankedGroup("p", (a, b), (1, 2), annotations=((1, 2), (1, 2), (2, 1))),
        RankedGroup("p", (a, c), (1, 1)),
        RankedGroup("p", (c, b), (1, 2)),
    ]
    # a: 2 of 3 and a half of 1; b: 1 of 3 and 0 of 1; c: a half of 1 and 1 of 1.
    expected = [2.5 / 4, 1 / 4, 1.5 / 2]
    assert PeopleJudge(pairs)([], ["p"] * 3, [a, b, c]) == pytest.approx(expected)


def test_what_nobody_ranked_has_a_reason(groups: list[RankedGroup], tmp_path: Path) -> None:
    judge = PeopleJudge(groups)
    image = groups[0].images[0]
    sources = [image, tmp_path / "other.png", b"bytes"]
    found = judge([], ["a dog", "a cat", "a cat"], sources)
    assert found == ["people did not rank it"] * 2 + [
        "people ranked files, and this image is not a file"
    ]
    with pytest.raises(ValueError, match="none of 1 groups has its images in files"):
        PeopleJudge([RankedGroup("a cat", (b"1", b"2"), (1, 2))])


def test_files_are_found_by_other_names(
    groups: list[RankedGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = PeopleJudge(groups)
    path = Path(str(groups[0].images[1]))
    monkeypatch.chdir(path.parent)
    link = path.parent / "link.png"
    link.symlink_to(path)
    assert judge([], ["a cat"] * 2, [path.name, link]) == pytest.approx([7 / 8] * 2)


def test_models_are_told_by_the_places_of_numbers(groups: list[RankedGroup]) -> None:
    models = models_of(groups)
    levels = {
        name: [np.asarray(Image.open(row["image"])).max() for row in rows]
        for name, rows in models.items()
    }
    assert levels == {"generator-0": [200, 50], "generator-1": [100, 150], "generator-2": [0]}
    assert [row["prompt"] for row in models["generator-1"]] == ["a cat", "a dog"]
    with pytest.raises(ValueError, match=r"b\.png.*has no number for a name"):
        models_of([RankedGroup("a cat", ("1.png", "b.png"), (1, 2))])


def test_people_stand_beside_scorers(groups: list[RankedGroup], tmp_path: Path) -> None:
    write_models(models_of(groups), tmp_path)
    names = ["generator-0", "generator-1", "generator-2"]
    table = bench(
        tmp_path / "prompts.jsonl",
        [f"{name}={tmp_path / name}.jsonl" for name in names],
        [ModelJudge(Brightness(), name="bright"), PeopleJudge(groups)],
        out=tmp_path / "run",
        progress=False,
    )
    people = table.of("people")[..., 0]
    assert people[:2] == pytest.approx(np.array([[3.5 / 8, 0], [7 / 8, 1]]))
    assert people[2, 0] == pytest.approx(1.5 / 8)
    assert np.isnan(people[2, 1])
    bright = table.of("bright")[..., 0]
    assert bright[:, 0] == pytest.approx(np.array([200, 100, 0]) / 255, abs=1e-6)


def test_the_gallery_by_the_documented_commands(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "hpdv2_gallery" / "groups.json"
    app = typer.Typer()
    app.command()(main)
    made = CliRunner().invoke(app, [str(source), "--out", str(tmp_path / "gallery")])
    assert made.exit_code == 0, made.output
    told = made.stdout.replace("MODEL", "shapes").replace("RUN", str(tmp_path / "run"))
    done = run(*shlex.split(told)[1:], "--json")
    assert done.returncode == 1, done.stderr
    assert "29 of 400 could not be scored" in done.stderr  # most groups have nine images
    pairs = {(p["scorer"], p["a"], p["b"]): p for p in json.loads(done.stdout)["pairs"]}
    assert len(pairs) == 2 * 45
    # By hand: whose mean rank among ten people is better, prompt by prompt.
    places: dict[tuple[str, str], list[float]] = {}
    for group in json.loads(source.read_text()):
        numbers = [int(Path(name).stem) for name in group["image_path"]]
        for number, ranks in zip(numbers, group["rankings"], strict=True):
            generator = f"generator-{number - min(numbers)}"
            places[generator, group["prompt"]] = sum(ranks)
    for (scorer, a, b), pair in pairs.items():
        if scorer != "people":
            continue
        shared = [prompt for name, prompt in places if name == a and (b, prompt) in places]
        wins = [
            (places[a, p] < places[b, p]) + 0.5 * (places[a, p] == places[b, p]) for p in shared
        ]
        assert pair["prompts"] == len(shared) >= 10
        assert pair["win_rate"] == pytest.approx(sum(wins) / len(wins))
