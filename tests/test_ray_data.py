"""Corpora on Ray Data: rows and scores are the plain scorer's, whatever happens to workers."""

import io
import os
import re
import signal
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray", reason="needs stablepref[ray]")

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import ray
from stablepref.integrations import ray_data
from stablepref.integrations.ray_data import ScoreBatch, score_dataset
from stablepref.integrations.ray_filter import filter_dataset, score_threshold
from test_docs import DOCS, python_blocks

import stablepref
from stablepref import zoo
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


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray on this machine, with more CPUs in name than the two workers take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Of their own accord workers yield to every other process, on a busy machine for minutes.
        patch.setenv("RAY_worker_niceness", "0")
        # Workers look for modules where Ray was started: not in the source tree, which hides an
        # ordinary installation.
        patch.chdir(tmp_path_factory.mktemp("ray"))
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
        )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.wait_for_min_actors_s = 300
        context.default_hash_shuffle_parallelism = 2
        # The workers cannot import test modules.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield
        ray.shutdown()


def picture(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    width, height = size
    noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def prompt_of(number: int) -> str:
    return f"a red circle and {number % 5} stars"


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


def columns(form: str, folder: Path) -> list[Any]:
    """The same four pictures as a column of images."""
    pictures = [picture(i) for i in range(4)]
    if form == "path":
        paths = [str(folder / f"{i}.png") for i in range(4)]
        for path, image in zip(paths, pictures, strict=True):
            image.save(path)
        return paths
    make: dict[str, Callable[[Image.Image], Any]] = {
        "bytes": png,
        "datasets": lambda image: {"bytes": png(image), "path": None},
        "array": np.asarray,
        "PIL": lambda image: image,
    }
    return [make[form](image) for image in pictures]


@pytest.mark.parametrize("form", ["path", "bytes", "datasets", "array", "PIL"])
@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_every_form_of_image_in_every_format_of_batch(
    form: str, batch_format: str, model: Path, tmp_path: Path
) -> None:
    cells = columns(form, tmp_path)
    prompts = [prompt_of(i) for i in range(4)]
    array = np.empty(4, dtype=object)
    array[:] = cells if form != "array" else [None] * 4
    batch: Any = {"image": np.stack(cells) if form == "array" else array, "text": np.array(prompts)}
    if batch_format != "numpy":
        batch = ray.data.block.BlockAccessor.batch_to_block(batch)
    if batch_format == "pandas":
        batch = ray.data.block.BlockAccessor.for_block(batch).to_pandas()
    found = ScoreBatch(model, prompt_column="text", score_column="s", error_column="e")(batch)
    expected = stablepref.load(model).score([picture(i) for i in range(4)], prompts)
    assert found.column_names == ["image", "text", "s", "e"]
    assert found["e"].to_pylist() == [None] * 4
    assert found["s"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_arrays_of_many_sizes_and_shades(model: Path) -> None:
    sizes = [(40, 30), (30, 40), (33, 33)]
    arrays = np.empty(4, dtype=object)
    arrays[:] = [
        *(np.asarray(picture(i, size)) for i, size in enumerate(sizes)),
        np.asarray(picture(3).convert("L")),
    ]
    prompts = np.array(["a cat"] * 4)
    found = ScoreBatch(model)({"image": arrays, "prompt": prompts})
    pictures = [*(picture(i, size) for i, size in enumerate(sizes)), picture(3).convert("L")]
    expected = stablepref.load(model).score(pictures, "a cat")
    assert found["score"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_bad_cells_are_rows_with_their_reason(model: Path, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for i in range(2):
        picture(i).save(tmp_path / "many" / f"{i}.png")
    cells = [
        (str(tmp_path / "none.png"), "a cat", "none.png|no such file"),
        (str(tmp_path / "many"), "a cat", "folder or pattern of several"),
        ("", "a cat", "path is empty"),
        (float("nan"), "a cat", "the row has no image"),
        (5, "a cat", "must be bytes, a path or URL.*got int"),
        ([png(picture(0)), png(picture(1))], "a cat", "must be bytes.*got list"),
        (np.zeros((2, 4, 4, 3), np.uint8), "a cat", r"must be bytes.*got array \(2, 4, 4, 3\)"),
        ({"path": None}, "a cat", "bytes or a path"),
        (png(picture(0)), float("nan"), "the row has no prompt"),
        (png(picture(0)), 3, "prompt must be a string, got 3"),
        (png(picture(0)), b"\xff", "prompt is not UTF-8"),
    ]
    frame = pd.DataFrame({"image": [c[0] for c in cells], "prompt": [c[1] for c in cells]})
    items = [
        ray_data.row_item(*row, number=i) for i, row in enumerate(frame.itertuples(index=False))
    ]
    scorer = stablepref.load(model)
    outcomes = list(ray_data.score_items(scorer, iter(items), start=0, batch_size=None, views=0))
    assert len(outcomes) == len(cells)
    for outcome, (_, _, says) in zip(outcomes, cells, strict=True):
        assert outcome.score is None
        assert outcome.error is not None
        assert re.search(says, outcome.error)


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


def scored_rows() -> "ray.data.Dataset":
    """Ten scores, two that are none, and three prompts."""
    scores = [0.5, 4, 3, 3, 1, 2, 9, 8, None, float("nan"), 7, -1]
    table = pa.table(
        {
            "id": range(12),
            "prompt": [*"aaaa", *"bbbb", *"cccc"],
            "score": pa.array(scores, pa.float32()),
        }
    )
    return ray.data.from_arrow([table.slice(0, 7), table.slice(7)])


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"at_least": 3.0}, [1, 2, 3, 6, 7, 10]),
        ({"top_share": 0.5}, [1, 2, 3, 6, 7, 10]),  # the fifth and the sixth tie
        # As do a's second and third; groups take several processes.
        pytest.param({"best_per_prompt": 2}, [1, 2, 3, 6, 7, 10, 11], marks=pytest.mark.slow),
    ],
)
def test_filters(local_ray: None, rule: dict[str, Any], kept: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        filtered = filter_dataset(scored_rows(), **rule)
    assert sorted(row["id"] for row in filtered.take_all()) == kept


def test_a_share_is_the_score_of_its_last_row(local_ray: None) -> None:
    assert score_threshold(scored_rows(), 0.4) == 4
    assert score_threshold(scored_rows(), 1.0) == -1
    table = pa.table({"score": pa.array(range(30), pa.float32())})
    assert score_threshold(ray.data.from_arrow(table), 0.1) == 27  # 0.1 * 30 > 3 in floats


def test_a_share_of_rows_that_are_not_stored_is_warned_of(local_ray: None) -> None:
    lazy = scored_rows().map_batches(lambda table: table, batch_format="pyarrow")
    with pytest.warns(UserWarning, match="runs now for the threshold and again"):
        assert filter_dataset(lazy, top_share=0.1).count() == 1


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({}, "give one of at_least, top_share, best_per_prompt; got none"),
        ({"at_least": 1, "top_share": 0.5}, "got at_least and top_share"),
        ({"top_share": 0.0}, "above 0 and up to 1, got 0.0"),
        ({"top_share": 1.5}, "above 0 and up to 1, got 1.5"),
        ({"best_per_prompt": 0}, "1 or more, got 0"),
        ({"top_share": 0.5, "score_column": "none"}, "no row has a number in the column 'none'"),
    ],
)
def test_wrong_filters(local_ray: None, rule: dict[str, Any], says: str) -> None:
    table = pa.table({"none": pa.array([None], pa.float32()), "score": pa.array([1.0])})
    with pytest.raises(ValueError, match=says):
        filter_dataset(ray.data.from_arrow(table), **rule)


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
