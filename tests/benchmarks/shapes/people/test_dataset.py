"""The laboratory's data sets: read back like real data, true in what they say, safe to write."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stablepref.benchmarks.shapes.people import dataset
from stablepref.benchmarks.shapes.people.alignment import MISTAKE_COSTS, mistakes_cost
from stablepref.benchmarks.shapes.people.dataset import (
    lab_groups,
    oracle_groups,
    write_dataset,
)
from stablepref.benchmarks.shapes.people.fidelity import FAULT_COSTS
from stablepref.benchmarks.shapes.people.settings import HPDV2, IMAGEREWARD
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import SPLITS, Split
from stablepref.data.check import check_data
from stablepref.data.groups import RankedGroup
from stablepref.data.read import read_groups
from stablepref.evaluation.agreement import pairwise_accuracy
from stablepref.images.decoding import decode
from stablepref.images.sources import iter_sources
from stablepref.output.locks import InUseError, sole_writer

COUNTS: dict[Split, int] = {"train": 12, "validation": 4, "test": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in ImageReward's setting."""
    out = tmp_path_factory.mktemp("lab") / "data"
    write_dataset(out, IMAGEREWARD, COUNTS, seed=3)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def numbers(group: RankedGroup, name: str) -> list[float]:
    values = group.metadata[name]
    assert isinstance(values, list)
    return values


def test_files_read_back_as_the_groups_in_memory(folder: Path) -> None:
    for split, number in COUNTS.items():
        held = list(lab_groups(IMAGEREWARD, split=split, groups=number, seed=3))
        for source in (read_groups(folder / f"{split}.jsonl"), read_groups(folder, split=split)):
            read = list(source)
            assert len(read) == number
            for one, other in zip(read, held, strict=True):
                assert (one.prompt, one.ranks, one.id) == (other.prompt, other.ranks, other.id)
                assert one.annotations == other.annotations
                assert one.annotators == other.annotators
                assert one.metadata == other.metadata
                for found, expected in zip(iter_sources(one.images), other.images, strict=True):
                    assert np.array_equal(np.asarray(decode(found)), np.asarray(expected))


def test_splits_share_no_prompt_scene_or_picture(folder: Path) -> None:
    report = check_data({split: folder / f"{split}.jsonl" for split in SPLITS}, progress=False)
    assert report.clean
    scenes = [parse(group.prompt) for split in SPLITS for group in read_groups(folder, split=split)]
    assert len(set(scenes)) == len(scenes) == 20


def test_groups_keep_the_ranks_of_each_person() -> None:
    (group,) = lab_groups(HPDV2, split="test", groups=1)
    assert len(group.annotations) == len(set(group.annotators)) == 10
    means = [sum(column) / 10 for column in zip(*group.annotations, strict=True)]
    assert group.ranks == pytest.approx(means)
    assert all(sum(ranks) == 45 for ranks in group.annotations)
    (single,) = lab_groups(HPDV2, split="train", groups=1)
    assert single.annotations == (single.ranks,)


def test_metadata_say_what_is_true_of_each_picture() -> None:
    for group in lab_groups(HPDV2, split="train", groups=8, seed=1):
        mistakes, faults = group.metadata["mistakes"], group.metadata["faults"]
        shows, generators = group.metadata["shows"], group.metadata["generators"]
        assert isinstance(mistakes, list)
        assert isinstance(faults, list)
        assert isinstance(shows, list)
        assert isinstance(generators, list)
        assert len(set(generators)) == 9
        assert group.metadata["setting"] == "hpdv2"
        for index, utility in enumerate(numbers(group, "utilities")):
            fidelity = -sum(FAULT_COSTS[name] * value for name, value in faults[index].items())
            assert numbers(group, "fidelity")[index] == pytest.approx(fidelity, abs=1e-5)
            alignment = -mistakes_cost(mistakes[index])
            assert numbers(group, "alignment")[index] == pytest.approx(alignment)
            assert utility == pytest.approx(alignment + fidelity, abs=1e-5)
            assert set(mistakes[index]) <= set(MISTAKE_COSTS)
            # Nothing wrong means the very scene that the prompt describes, but for what it leaves
            # open.
            if not mistakes[index]:
                assert parse(shows[index]).groups == parse(group.prompt).groups


def test_oracle_ranks_follow_true_utility() -> None:
    group = RankedGroup("p", ("a", "b", "c", "d"), (1, 2, 3, 4),
                        metadata={"utilities": [-1.0, 0.0, -1.0, -3.0]})  # fmt: skip
    (oracle,) = oracle_groups([group])
    assert oracle.ranks == (2.5, 1, 2.5, 4)
    assert oracle.prompt == "p"
    groups = list(lab_groups(HPDV2, split="test", groups=20))
    oracles = [one.ranks for one in oracle_groups(groups)]
    utilities = [numbers(one, "utilities") for one in groups]
    assert pairwise_accuracy(utilities, oracles).value == 1
    # Ten people together come near the truth, and one alone less near.
    people = pairwise_accuracy([[-rank for rank in one.ranks] for one in groups], oracles).value
    single = pairwise_accuracy([[-r for r in one.annotations[0]] for one in groups], oracles).value
    assert 0.75 < single < people < 1
    with pytest.raises(ValueError, match="group None: metadata has no utilities of its 2 images"):
        next(oracle_groups([RankedGroup("p", ("a", "b"), (1, 2))]))


def test_more_groups_begin_with_the_fewer_ones() -> None:
    few = list(lab_groups(HPDV2, split="train", groups=2))
    more = list(lab_groups(HPDV2, split="train", groups=3))
    for one, other in zip(few, more, strict=False):
        assert (one.id, one.ranks) == (other.id, other.ranks)
        assert [np.asarray(image).tobytes() for image in one.images] == [
            np.asarray(image).tobytes() for image in other.images
        ]
    assert list(lab_groups(HPDV2, split="train", groups=0)) == []
    with pytest.raises(ValueError, match="groups is -1"):
        lab_groups(HPDV2, split="train", groups=-1)


def test_pictures_have_the_size_that_is_asked_for(tmp_path: Path) -> None:
    write_dataset(tmp_path, HPDV2, {"test": 1}, size=32, annotators=3)
    (group,) = read_groups(tmp_path / "test.jsonl")
    for path in group.images:
        assert isinstance(path, Path)
        assert path.suffix == ".png"
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((32, 32), "RGB")
    assert len(group.annotations) == 3


def test_an_interrupted_run_goes_on_and_ends_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    whole = dataset.lab_groups

    def dying(*args: object, split: Split, **options: object) -> Iterator[RankedGroup]:
        for index, group in enumerate(whole(*args, split=split, **options)):  # type: ignore[arg-type]  # handed through
            if split == "validation" and index == 2:
                raise KeyboardInterrupt
            yield group

    monkeypatch.setattr(dataset, "lab_groups", dying)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(out, IMAGEREWARD, COUNTS, seed=3)
    assert {path.name for path in out.iterdir()} == {"images", "recipe.json", "train.jsonl"}
    before = (out / "train.jsonl").stat()
    monkeypatch.setattr(dataset, "lab_groups", whole)
    write_dataset(out, IMAGEREWARD, COUNTS, seed=3)
    assert contents(out) == contents(folder)
    assert (out / "train.jsonl").stat().st_mtime_ns == before.st_mtime_ns  # it was not made again
    more: dict[Split, int] = {**COUNTS, "test": 5}
    write_dataset(out, IMAGEREWARD, more, seed=3)
    assert len(list(read_groups(out, split="test"))) == 5


def test_data_of_another_recipe_stay(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    with pytest.raises(ValueError, match=r"holds data made with other settings .*recipe.json"):
        write_dataset(folder, IMAGEREWARD, COUNTS, seed=4)
    with pytest.raises(ValueError, match="other settings"):
        write_dataset(folder, HPDV2, COUNTS, seed=3)
    assert contents(folder) == before
    (tmp_path / "test.jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match=r"test.jsonl exists without a recipe.json"):
        write_dataset(tmp_path, HPDV2, {"test": 1})
    assert (tmp_path / "test.jsonl").read_text() == "mine\n"


def test_a_folder_that_another_writes_to_is_refused(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path, folder=True),
        pytest.raises(InUseError, match="is being written by another process"),
    ):
        write_dataset(tmp_path, HPDV2, {"test": 1}, size=32, annotators=3)
    assert not list(tmp_path.iterdir())
