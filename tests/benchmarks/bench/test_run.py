"""A benchmark on disk: what a run leaves, going on after kills, processes, and what fails."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import bench_case
from helpers.bench_case import (
    CALL,
    IMAGES,
    PICTURES,
    PROMPTS,
    WORDS,
    draw_finished,
    failing,
    kill,
    program,
    rows_of,
    run_case,
)
from helpers.brightness import Brightness
from helpers.forked import start
from helpers.tiny_pipelines import build
from PIL import Image

from stablepref.benchmarks.bench import score
from stablepref.benchmarks.bench.judges import ModelJudge
from stablepref.benchmarks.bench.prompt_sets import PromptSet
from stablepref.benchmarks.bench.run import bench
from stablepref.benchmarks.bench.score_table import read_table
from stablepref.output.locks import InUseError, sole_writer
from stablepref.output.partial import ResumeError

Row = dict[str, object]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench_case.save_pipeline(tmp_path_factory.mktemp("bench") / "tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_finished(tmp_path_factory.mktemp("bench") / "finished")


@pytest.fixture(scope="module")
def decoded() -> list[str]:
    """Names of the images that the undisturbed run decodes."""
    return []


@pytest.fixture(scope="module")
def whole(
    pipeline: Path, pictures: Path, decoded: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    decode = score.decode

    def counted(source: score.Source) -> object:
        decoded.append(source.name)
        return decode(source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "decode", counted)
        run_case(pipeline, pictures, out)
    return out


def by_key(rows: list[Row]) -> dict[tuple[object, ...], Row]:
    keyed = {(row["model"], row["prompt"], row["image"]): row for row in rows}
    assert len(keyed) == len(rows), "a row is there twice"
    return keyed


def assert_same(out: Path, whole: Path) -> None:
    """Rows and images of two runs are equal but for rounding."""
    found, expected = by_key(rows_of(out)), by_key(rows_of(whole))
    assert set(found) == set(expected)
    assert len(found) == PICTURES
    for key, row in expected.items():
        assert found[key]["faults"] == row["faults"]
        scores = found[key]["scores"], row["scores"]
        assert isinstance(scores[0], dict)
        assert scores[0] == pytest.approx(scores[1], abs=0.005)
    for path in (whole / "images").rglob("*.png"):
        other = out / path.relative_to(whole)
        gap = np.abs(np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(other)))
        assert gap.max() <= 1


def test_images_are_those_of_the_pipeline_itself(whole: Path, pipeline: Path) -> None:
    pipe, _ = build("sd")
    for place, number in ((0, 0), (3, 0), (4, 1)):
        name = f"{place:05d}-1.png" if number else f"{place:05d}.png"
        for model, change in (("plain", {}), ("free", {"guidance_scale": 1.0})):
            generator = torch.Generator().manual_seed(7 + number * len(WORDS) + place)
            made = pipe(WORDS[place], generator=generator, **CALL | change).images[0]
            stored = Image.open(whole / "images" / model / name)
            gap = np.abs(np.asarray(made).astype(int) - np.asarray(stored))
            assert gap.max() <= 1
    # A prompt that stands twice in the set has two images of its own.
    twice = [Image.open(whole / "images" / "plain" / f"0000{place}.png") for place in (0, 3)]
    assert np.any(np.asarray(twice[0]) != np.asarray(twice[1]))


def test_the_table_holds_the_scores_of_the_files(whole: Path, pictures: Path) -> None:
    table = read_table(whole)
    assert table.models == ("plain", "free", "finished")
    assert table.scores.shape == (3, 2, len(WORDS), IMAGES)
    for m, folder in enumerate((whole / "images/plain", whole / "images/free", pictures)):
        for place in range(len(WORDS)):
            for number in range(IMAGES):
                name = f"{place:05d}-{number}.png" if number else f"{place:05d}.png"
                path = folder / name
                found = table.of("bright")[m, place, number]
                if not path.is_file() or (folder == pictures and place == 2):
                    assert np.isnan(found)
                    continue
                small = Image.open(path).convert("RGB")
                if folder == pictures:
                    assert 0 < found < 1
                else:
                    expected = np.asarray(small.resize((8, 8), Image.Resampling.BICUBIC)).mean()
                    assert found == pytest.approx(expected / 255, abs=1e-4)
    assert table.prompts == PROMPTS.prompts


def test_a_broken_image_is_a_row_with_its_reason(whole: Path) -> None:
    row = by_key(rows_of(whole))["finished", 2, 0]
    assert row["scores"] == {}
    assert isinstance(row["faults"], dict)
    assert set(row["faults"]) == {"bright", "dark"}
    assert "truncated" in row["faults"]["bright"]
    failures = read_table(whole).failures
    assert [(one.model, one.prompt) for one in failures if one.scorer == "bright"] == [
        ("finished", "00002")
    ]


def test_each_image_is_decoded_once_for_all_scorers(whole: Path, decoded: list[str]) -> None:
    assert whole.is_dir()
    assert len(decoded) == len(set(decoded)) == PICTURES


def test_kills_at_random_moments_lose_and_double_nothing(
    pipeline: Path, pictures: Path, whole: Path, tmp_path: Path
) -> None:
    out, pair = tmp_path / "out", tmp_path / "out-pair"
    process = start(kill, pipeline, pictures, out, tmp_path / "told")
    process.join()
    assert process.exitcode == 0
    seen = json.loads((tmp_path / "told").read_text())
    assert len(seen) >= 3
    for before, after in pairwise(seen):
        assert before.items() <= after.items()  # nothing that was done is done again
    assert len(seen[0]) < len(seen[-1])
    run_case(pipeline, pictures, out)
    assert seen[-1].items() <= bench_case.done(out).items()
    assert_same(out, whole)
    left = [path.name for path in out.rglob("*") if path.suffix in {".tmp", ".writing"}]
    assert left == []
    assert_two_wrote(pair, whole)
    # One process goes on where two were, also after half a line.
    shorter = pair / "scores" / "001.jsonl"
    lines = shorter.read_text().splitlines(keepends=True)
    shorter.write_text("".join(lines[:-3]) + lines[-3][:20])
    (pair / "images" / "free" / "00001.png").unlink()
    run_case(pipeline, pictures, pair)
    assert_same(pair, whole)


def assert_two_wrote(out: Path, whole: Path) -> None:
    """Two processes shared the work evenly, and what they made is what one makes."""
    files = (out / "scores").glob("*.jsonl")
    written = {path.name: path.read_text().count("\n") - 1 for path in files}
    assert set(written) == {"000.jsonl", "001.jsonl"}
    assert abs(written["000.jsonl"] - written["001.jsonl"]) <= 1
    assert_same(out, whole)


@pytest.mark.slow
def test_torchruns_processes_give_the_table_of_one(
    pipeline: Path, pictures: Path, whole: Path, tmp_path: Path
) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    program(pipeline, pictures, tmp_path, launcher=launcher)
    assert_two_wrote(tmp_path, whole)


def test_a_folder_of_another_run_is_refused(pictures: Path, tmp_path: Path) -> None:
    judge = ModelJudge(Brightness(), name="bright")
    other = ModelJudge(Brightness(2.0), name="bright")
    case = {"images": 1, "seed": 0, "arguments": CALL, "out": tmp_path, "progress": False}
    bench(PROMPTS, [f"a={pictures}"], [judge], **case)
    before = (tmp_path / "run.json").read_bytes()
    changes: list[dict[str, object]] = [
        {"images": 2}, {"seed": 1}, {"arguments": {}}, {"pipeline_dtype": "bfloat16"}
    ]  # fmt: skip
    for change in changes:
        (name,) = change
        with pytest.raises(ResumeError, match=f"holds a run with other settings: {name} was"):
            bench(PROMPTS, [f"a={pictures}"], [judge], **case | change)
    with pytest.raises(ResumeError, match="models was"):
        bench(PROMPTS, [f"b={pictures}"], [judge], **case)
    with pytest.raises(ResumeError, match="scorers was"):
        bench(PROMPTS, [f"a={pictures}"], [other], **case)
    with pytest.raises(ResumeError, match="prompts was"):
        bench(PromptSet("other", PROMPTS.prompts), [f"a={pictures}"], [judge], **case)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_folder_that_another_writes_to_is_refused(pictures: Path, tmp_path: Path) -> None:
    judge = ModelJudge(Brightness(), name="bright")
    with (
        sole_writer(tmp_path, folder=True),
        pytest.raises(InUseError, match="is being written by another process"),
    ):
        bench(PROMPTS, [f"a={pictures}"], [judge], out=tmp_path, images=1, progress=False)
    assert not list(tmp_path.iterdir())


def test_images_of_other_weights_are_not_mixed(pipeline: Path, tmp_path: Path) -> None:
    mine = bench_case.save_pipeline(tmp_path / "mine")
    case = {"out": tmp_path / "out", "arguments": CALL, "progress": False}
    bench(PROMPTS, [str(mine)], ["shapes"], **case)
    (tmp_path / "out" / "images" / "mine" / "00001.png").unlink()
    pipe, _ = build("sd")
    next(iter(pipe.unet.parameters())).data.add_(1)
    pipe.save_pretrained(mine)
    with pytest.raises(ResumeError, match=r"faults/mine/000.jsonl was made with"):
        bench(PROMPTS, [str(mine)], ["shapes"], **case)


def test_a_failed_image_is_a_row_and_can_be_tried_again(
    pipeline: Path, whole: Path, tmp_path: Path
) -> None:
    sound = draw_finished(tmp_path / "sound", broken=None)
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, {"a dog", "two green stars"})
        table = run_case(pipeline, sound, tmp_path / "out")
    reasons = {(one.model, one.prompt, one.image): one.reason for one in table.failures
               if one.scorer == "bright"}  # fmt: skip
    assert len(reasons) == 2 * 2 * IMAGES
    assert reasons["plain", "00004", 1] == "IndexError: no two green stars"
    again = run_case(pipeline, sound, tmp_path / "out")
    assert len(again.failures) == len(table.failures)  # it is not tried again by itself
    tried = run_case(pipeline, sound, tmp_path / "out", retry=True)
    assert [one for one in tried.failures if one.scorer == "bright"] == []
    expected = read_table(whole).of("bright")[:2]
    np.testing.assert_allclose(tried.of("bright")[:2], expected, atol=0.005)
    by_key(rows_of(tmp_path / "out"))


def test_wrong_use(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images must be 1 or more, got 0"):
        bench(PROMPTS, [str(pipeline)], ["shapes"], out=tmp_path, images=0)
    with pytest.raises(ValueError, match="takes no argument 'stepz'"):
        bench(PROMPTS, [f"{pipeline},stepz=3"], ["shapes"], out=tmp_path / "a")
    with pytest.raises(ValueError, match="no scorer"):
        bench(PROMPTS, [str(pipeline)], [], out=tmp_path / "b")
    with pytest.raises(ValueError, match="unknown model 'shape'"):
        bench(PROMPTS, [str(pipeline)], ["shape"], out=tmp_path / "b")
    with pytest.raises(ValueError, match="the scorer shapes is named twice"):
        bench(PROMPTS, [str(pipeline)], ["shapes", "shapes"], out=tmp_path / "b")
    with pytest.raises(ValueError, match="is not a run of a benchmark"):
        read_table(tmp_path)
