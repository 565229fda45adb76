"""Every form that a corpus holds images in, and what is wrong with cells."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs stablepref[ray]")

import pandas as pd
import ray.data
from helpers.corpus_case import picture, png, prompt_of

import stablepref
from stablepref.integrations import ray_data
from stablepref.integrations.ray_data import ScoreBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image


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
