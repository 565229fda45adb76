"""`stablepref rank` on the real gallery, with each model loaded from its official file.

The files have two blocks a tower and seeded weights. For some of the pictures it is recorded what
the model's official code makes of them with the same weights (docs/parity.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from helpers.commandline import run
from helpers.places import RECORDS

from stablepref import zoo
from stablepref.benchmarks.parity.cases import CASES, CLIP_FILE, TWO_BLOCKS, write_official_files
from stablepref.benchmarks.parity.compare import TOLERANCE, entry_with_blocks
from stablepref.benchmarks.parity.inputs import PICTURES
from stablepref.models.registry import SCORERS

UNCROPPED = {file: place for place, (file, box) in enumerate(PICTURES) if box is None}

QUICK = "hps-v2.1"
"""The others are slow: their files take as long to write, and `test_parity` scores from them."""


@pytest.mark.parametrize(
    "name",
    [
        name if name == QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(CASES)
    ],
)
def test_rank_on_the_gallery_from_an_official_file(
    name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = shared_data / "hpdv2_gallery"
    group = json.loads((gallery / "groups.json").read_text())[0]
    files = dict.fromkeys([*group["image_path"], *UNCROPPED])
    pictures = [str(gallery / "images" / file) for file in files]
    record = json.loads((RECORDS / f"{name}-two.json").read_text())
    monkeypatch.setitem(SCORERS.builtin, name, entry_with_blocks(name, TWO_BLOCKS))
    monkeypatch.setattr(zoo, "_loaded", {})  # a model of this size is not kept for other tests
    with TemporaryDirectory() as folder:
        weights, *_ = write_official_files(name, TWO_BLOCKS, Path(folder))
        like = ["--like", name] if weights.name == CLIP_FILE else []  # else known by its name
        prompt = record["prompts"][0]
        done = run(
            "rank", *pictures, "-p", prompt, "-s", weights, *like, "--dtype", "float32", "--json"
        )

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["rank"] for row in rows] == list(range(1, len(pictures) + 1))
    assert sorted(row["image"] for row in rows) == sorted(pictures)
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > len(pictures) / 2
    official = {file: record["scores"][place][0] for file, place in UNCROPPED.items()}
    found = {Path(row["image"]).name: row["score"] for row in rows}
    for file, score in official.items():
        assert found[file] == pytest.approx(score, abs=TOLERANCE * max(1, abs(score)))
    best_first = sorted(official, key=official.__getitem__, reverse=True)
    assert [file for file in found if file in official] == best_first
