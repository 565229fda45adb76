"""HPS v3 in use: memory that runs out, streams, odd pictures and prompts, the command line."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.commandline import run
from helpers.tiny_hps_v3 import record, tiny_hps_v3
from PIL import Image

from stablepref.benchmarks.parity import hps_v3

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from stablepref.models.hps_v3 import HPSv3Scorer
    from stablepref.preprocess.patches import PatchBatch

EXPECTED = torch.tensor(record("tiny")["scores"])
"""Of the official package: `(pictures, prompts, 2)`, means and logarithms of deviations."""
PICTURES = [hps_v3.picture(*shape) for shape in hps_v3.PICTURES]
PROMPT = hps_v3.PROMPTS[3]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def scorer() -> HPSv3Scorer:
    return tiny_hps_v3()


@pytest.fixture(scope="module")
def folder(scorer: HPSv3Scorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The saved model and the pictures, as files."""
    root = tmp_path_factory.mktemp("hps-v3")
    scorer.save_pretrained(root / "model")
    for number, picture in enumerate(PICTURES):
        picture.save(root / f"{number}.png")
    return root


def close(found: Tensor, expected: Tensor) -> bool:
    return bool(((found - expected).abs() <= TOLERANCE * expected.abs().clamp(min=1)).all())


def test_what_does_not_fit_is_halved_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either tower may be the one that does not fit."""
    own = tiny_hps_v3()
    encode, predict = own.encode_inputs, own.predict
    seen: list[int] = []
    rows: list[int] = []

    def fewer(inputs: PatchBatch) -> Tensor:
        seen.append(len(inputs.grid))
        if len(inputs.grid) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return encode(inputs)

    def fewer_rows(images: Tensor, prompts: Tensor) -> Tensor:
        rows.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return predict(images, prompts)

    monkeypatch.setattr(own, "encode_inputs", fewer)
    monkeypatch.setattr(own, "predict", fewer_rows)
    results = list(own.stream(iter(PICTURES), PROMPT, batch_size=4))
    assert (max(seen), max(rows)) == (4, 2)
    assert close(torch.tensor([one.score for one in results]), EXPECTED[:, 3, 0])
    deviations = torch.tensor([one.uncertainty for one in results])
    assert close(deviations.log(), EXPECTED[:, 3, 1])


def test_the_command_writes_means_and_deviations_and_resumes(folder: Path, tmp_path: Path) -> None:
    rows = [{"image": str(folder / f"{i}.png"), "prompt": PROMPT} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Processors with units for bfloat16 would take that, which rounds a model this small too much.
    arguments = ("score", tmp_path / "rows.jsonl", "-s", folder / "model", "--dtype", "float32")
    out = tmp_path / "scores.csv"
    assert run(*arguments, "--out", out).returncode == 0
    written = list(csv.DictReader(out.open()))
    means = torch.tensor([float(row["score"]) for row in written])
    deviations = torch.tensor([float(row["uncertainty"]) for row in written])
    assert close(means, EXPECTED[:3, 3, 0])
    assert close(deviations.log(), EXPECTED[:3, 3, 1])
    before = out.read_bytes()
    assert run(*arguments, "--out", out).returncode == 0
    assert out.read_bytes() == before


def test_the_command_ranks_by_the_mean(folder: Path) -> None:
    pictures = [folder / f"{i}.png" for i in range(4)]
    done = run("rank", *pictures, "-p", PROMPT, "-s", folder / "model", "--csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    order = EXPECTED[:, 3, 0].argsort(descending=True).tolist()
    names = [row["image"] for row in rows]
    assert [name.rsplit("/", 1)[-1] for name in names] == [f"{i}.png" for i in order]
    assert all(float(row["uncertainty"]) > 0 for row in rows)


def test_odd_pictures_score_as_the_rgb_pictures_that_they_are(scorer: HPSv3Scorer) -> None:
    """One pixel, transparency, palettes, 16 bits: alone and beside others."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    plain = Image.fromarray(levels)
    opaque = plain.convert("RGBA")
    deep = Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    grey = Image.fromarray(levels[..., 0]).convert("RGB")
    dot = Image.fromarray(levels[:1, :1])
    shown = [plain, opaque, deep, grey, dot]
    scores = scorer.score(shown, PROMPT, batch_size=5)
    alone = torch.cat([scorer.score([one], PROMPT) for one in shown])
    assert close(scores, alone)
    assert scores[0] == pytest.approx(scores[1].item(), abs=1e-5)
    assert scores[2] == pytest.approx(scores[3].item(), abs=1e-5)


def test_float16_is_usable_on_a_cpu() -> None:
    found = tiny_hps_v3().half().score(PICTURES, PROMPT)
    assert found.dtype == torch.float32
    assert (found - EXPECTED[:, 3, 0]).abs().max() < 0.25  # of scores that spread by several
