"""Corpora on Ray Data: rows and scores are the plain scorer's, whatever happens to workers."""

import io
import os
import re
import signal
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs stablepref[ray]")

import pyarrow as pa
import pyarrow.parquet
import ray
from helpers.corpus_case import picture, png, prompt_of
from helpers.docs import python_blocks
from helpers.places import DOCS

import stablepref
from stablepref import zoo
from stablepref.integrations import ray_data
from stablepref.integrations.ray_data import ScoreBatch, score_dataset
from stablepref.scorer import Scorer

PAGE = (DOCS / "corpora.md").read_text()
ROWS = 60
KILLED_AT = 37
BAD = {
    3: (b"no image", "a cat", "cannot be read|cannot identify|not an image"),
    17: (None, "a cat", "bytes and a path|no image|dictionary"),
    29: ("good", None, "no prompt"),
    41: ("good", " ", "prompt is empty"),
}


class Watched:
    """The stage, with notes of what its process does; the process dies once, at a chosen row."""

    notes = ""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 (what ScoreBatch takes)
        read = zoo._read

        def noted(name: str, like: str | None) -> Scorer:
            self.note(f"load {os.getpid()}")
            return read(name, like)

        zoo._read = noted
        self.stage = ScoreBatch(**options)

    def note(self, line: str) -> None:
        with (Path(self.notes) / "notes").open("a") as file:
            file.write(line + "\n")

    def __call__(self, batch: pa.Table) -> pa.Table:
        died = Path(self.notes) / "died"
        if KILLED_AT in batch["id"].to_pylist() and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.note(f"batch {os.getpid()}")
        return self.stage(batch)


@pytest.mark.slow  # three processes load torch and a model
def test_a_killed_worker_loses_no_row_and_doubles_none(
    local_ray: None, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[Any] = [png(picture(i)) for i in range(ROWS)]
    prompts: list[Any] = [prompt_of(i) for i in range(ROWS)]
    for i, (image, prompt, _) in BAD.items():
        images[i], prompts[i] = images[i] if image == "good" else image, prompt
    column = pa.array([{"bytes": image, "path": None} for image in images])
    (tmp_path / "corpus").mkdir()
    table = pa.table({"id": range(ROWS), "image": column, "prompt": prompts})
    for part in range(3):
        place = tmp_path / "corpus" / f"{part}.parquet"
        pyarrow.parquet.write_table(table.slice(part * 20, 20), place)
    monkeypatch.setattr(ray_data, "ScoreBatch", Watched)
    monkeypatch.setattr(Watched, "notes", str(tmp_path))

    corpus = ray.data.read_parquet(str(tmp_path / "corpus"), override_num_blocks=6)
    scored = score_dataset(corpus, model, workers=2, batch_size=10)
    scored.write_parquet(str(tmp_path / "scored"))
    found = pyarrow.parquet.read_table(tmp_path / "scored").sort_by("id")

    assert found.schema.names == ["id", "image", "prompt", "score", "error"]
    assert found.schema.field("score").type == pa.float32()
    assert found.schema.field("error").type == pa.string()
    assert found.select(table.column_names).equals(table)
    good = [i for i in range(ROWS) if i not in BAD]
    scorer = stablepref.load(model)
    expected = scorer.score([picture(i) for i in good], [prompt_of(i) for i in good])
    scores, errors = (found[name].to_pylist() for name in ("score", "error"))
    assert [scores[i] for i in good] == pytest.approx(expected.tolist(), abs=1e-4)
    assert all(errors[i] is None for i in good)
    for i, (_, _, says) in BAD.items():
        assert scores[i] is None
        assert re.search(says, errors[i])

    assert (tmp_path / "died").is_file()
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    loads = [pid for what, pid in notes if what == "load"]
    assert len(loads) == len(set(loads)) == 3, "two workers and one in place of the dead"
    worked = {pid for what, pid in notes if what == "batch"}
    assert 2 <= len(worked & set(loads)) == len(worked)


def test_a_dataset_is_scored_by_the_model_of_a_path(
    local_ray: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)  # where the worker is not
    prompts = [prompt_of(i) for i in range(6)]
    rows = pa.table({"id": range(6), "jpg": [png(picture(i)) for i in range(6)], "txt": prompts})
    scored = score_dataset(
        ray.data.from_arrow(rows),
        model.name,
        batch_size=4,
        image_column="jpg",
        prompt_column="txt",
        score_column="tiny",
        error_column="why",
        views=1,
    )
    found = sorted(scored.take_all(), key=lambda row: row["id"])
    expected = stablepref.load(model).score([picture(i) for i in range(6)], prompts, views=1)
    assert [row["tiny"] for row in found] == pytest.approx(expected.tolist(), abs=1e-4)
    assert [row["why"] for row in found] == [None] * 6
    assert [row["jpg"] for row in found] == rows["jpg"].to_pylist()


def test_options_reach_the_scorer(model: Path) -> None:
    batch = {"image": np.array([png(picture(0))], object), "prompt": np.array(["a cat"])}
    found = ScoreBatch(model, views=3, dtype="float64", device="cpu", encode_batch_size=1)(batch)
    scorer = stablepref.load(model, dtype="float64", device="cpu")
    expected = scorer.score(picture(0), "a cat", views=3)
    assert found["score"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert abs(expected - scorer.score(picture(0), "a cat")) > 1e-4


def test_webdataset_and_folders_of_images(local_ray: None, model: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for i in range(4):
            data = b"no image" if i == 2 else png(picture(i))
            for name, member in ((f"{i}.png", data), (f"{i}.txt", prompt_of(i).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(member)
                shard.addfile(info, io.BytesIO(member))
    stage = ScoreBatch(model, image_column="png", prompt_column="txt")
    shards = ray.data.read_webdataset(str(tmp_path / "shard.tar"), decoder=None)
    (found,) = map(stage, shards.iter_batches(batch_format="pyarrow", batch_size=8))
    good = [0, 1, 3]
    expected = stablepref.load(model).score(
        [picture(i) for i in good], [prompt_of(i) for i in good]
    )
    scores = found["score"].to_pylist()
    assert found["__key__"].to_pylist() == list("0123")
    assert [scores[i] for i in good] == pytest.approx(expected.tolist(), abs=1e-4)
    assert scores[2] is None

    for i in good:
        picture(i, (30 + i, 40)).save(tmp_path / f"{i}.png")
    folder = ray.data.read_images(str(tmp_path), include_paths=True, file_extensions=["png"])
    (batch,) = folder.iter_batches(batch_format="numpy", batch_size=8)
    found = ScoreBatch(model)({**batch, "prompt": np.array(["a cat"] * 3)}).sort_by("path")
    expected = stablepref.load(model).score([str(tmp_path / f"{i}.png") for i in good], "a cat")
    assert found["score"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "no-such-model"}, "unknown model 'no-such-model'"),
        ({"workers": 0}, "workers must be 1 or more, got 0"),
        ({"image_column": "jpg"}, "the columns image, prompt, but no jpg: .*image_column="),
        ({"score_column": "prompt"}, "four different columns"),
        ({"error_column": "image"}, "four different columns"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(
    local_ray: None, change: dict[str, Any], says: str
) -> None:
    rows = ray.data.from_arrow(pa.table({"image": [b"a"], "prompt": ["a cat"]}))
    with pytest.raises(ValueError, match=says):
        score_dataset(rows, **{"model": "shapes", **change})


def test_a_column_that_is_there_already_is_not_overwritten(local_ray: None, model: Path) -> None:
    table = pa.table({"image": [b"a"], "prompt": ["a cat"], "score": [1.0]})
    says = "have a column score already.*score_column="
    with pytest.raises(ValueError, match=says):
        score_dataset(ray.data.from_arrow(table), model)
    with pytest.raises(ValueError, match=says):
        ScoreBatch(model)(table)


def test_workers_that_leave_no_cpu_to_read_with_are_warned_of(local_ray: None) -> None:
    rows = ray.data.from_arrow(pa.table({"image": [b"a"], "prompt": ["a cat"]}))
    with pytest.warns(UserWarning, match="4 workers of 1 CPU .* 4 CPUs .*num_cpus="):
        score_dataset(rows, "shapes", workers=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        score_dataset(rows, "shapes", workers=3)
        score_dataset(rows, "shapes", workers=4, num_cpus=0.5)


@pytest.mark.slow  # as above, and groups
def test_the_page_runs(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    blocks = list(python_blocks(PAGE))
    assert blocks
    for block in blocks:
        exec(compile(block, "corpora.md", "exec"), names)
