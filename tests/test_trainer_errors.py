"""Trainings that go wrong: nothing bad is saved as good, and the message says what to look at."""

import json
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.ranked import SMALL, ranked_groups
from helpers.tiny import tiny_clip

import stablepref
from stablepref import trainer
from stablepref.data.groups import RankedGroup
from stablepref.output.locks import InUseError, sole_writer
from stablepref.trainer import train
from stablepref.training.guards import PATIENCE, LeftOut, Watch
from stablepref.training.loader import Share
from stablepref.training.pairs import PairBatches
from stablepref.training.schedule import learning_rate_at
from stablepref.training.step import backward
from stablepref.weights.folder import save_folder


def run(folder: Path, groups: list[RankedGroup] | None = None, **changes: Any) -> Any:  # noqa: ANN401 (fields have many types)
    options = {k: changes.pop(k) for k in ("validation", "resume") if k in changes}
    config = replace(SMALL, **changes)
    return train(
        groups or ranked_groups(),
        config,
        out=folder,
        scorer=tiny_clip(text_width=16),
        progress=False,
        **options,
    )


def saved(folder: Path) -> list[str]:
    """The models and checkpoints in a training's folder."""
    found = [path.parent for path in folder.glob("*/config.json")]
    return sorted(path.name for path in [*found, *(folder / "checkpoints").glob("*")])


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def broken(group: RankedGroup) -> RankedGroup:
    """The group with files in place of images that are not there."""
    names = tuple(f"gone/{group.prompt}/{i}.png" for i in range(len(group.images)))
    return replace(group, images=names)


def test_a_folder_in_which_another_trains_is_refused_and_stays(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with (
        sole_writer(tmp_path, folder=True),
        pytest.raises(InUseError, match="is being written by another process"),
    ):
        run(tmp_path, resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# Numbers that are not finite.


def test_a_loss_that_is_not_finite_stops_with_step_and_images(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError) as error:
        run(tmp_path, learning_rate=1e30)
    message = str(error.value)
    assert "the loss of step 2 is nan" in message
    assert "group 0, image 0: array" in message
    assert "there is no checkpoint yet" in message
    assert saved(tmp_path) == []


@pytest.mark.parametrize("changes", [{"checkpoint_every": 1}, {"steps": 1, "order_steps": 1}])
def test_a_step_that_ruins_the_model_is_never_saved(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(FloatingPointError, match="step 1 left a model whose scores are not finite"):
        run(tmp_path, learning_rate=1e30, validation=ranked_groups(2, seed=1), **changes)
    assert saved(tmp_path) == []


def test_the_last_good_checkpoint_is_named_and_can_be_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", checkpoint_every=1)

    def rate(step: int, **given: Any) -> float:  # noqa: ANN401 (passed through)
        return 1e30 if step == 3 else learning_rate_at(step, **given)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "learning_rate_at", rate)
        with pytest.raises(FloatingPointError, match="step 4 left a model") as error:
            run(tmp_path / "run", checkpoint_every=1)
    good = tmp_path / "run" / "checkpoints" / "step-00000003"
    assert f"the last good checkpoint is {good}" in str(error.value)
    assert saved(tmp_path / "run") == ["step-00000002", "step-00000003"]
    resumed = run(tmp_path / "run", checkpoint_every=1, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_gradient_that_is_not_finite_moves_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflowing(accelerator: Any, module: Any, *given: Any, **options: Any) -> Any:  # noqa: ANN401 (passed through)
        result = backward(accelerator, module, *given, **options)
        module.scorer.model.visual.proj.grad[0, 0] = torch.inf
        return result

    monkeypatch.setattr(trainer, "backward", overflowing)
    with pytest.raises(FloatingPointError, match="the norm of the gradient of step 1 is inf"):
        run(tmp_path, checkpoint_every=1)
    assert saved(tmp_path) == []


@pytest.mark.parametrize(("scale", "stops"), [(65536.0, False), (1.0, False), (0.5, True)])
def test_fp16_may_overflow_until_its_scale_cannot_fall_further(
    tmp_path: Path, scale: float, stops: bool
) -> None:
    accelerator: Any = SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: scale))
    groups = ranked_groups(1)
    batch = PairBatches(groups, batch_size=1)[0]
    result: Any = SimpleNamespace(scores=torch.zeros(2, 1), usable=torch.ones(2).bool())
    watch = Watch(groups, tmp_path)
    watch.gradient(accelerator, 3.0, result, batch, 1)
    if not stops:
        watch.gradient(accelerator, torch.inf, result, batch, 1)
        return
    with pytest.raises(FloatingPointError, match="the gradient of step 1 is inf"):
        watch.gradient(accelerator, torch.inf, result, batch, 1)


def test_images_that_cannot_be_read_are_no_suspects(tmp_path: Path) -> None:
    groups = ranked_groups()
    groups[0] = broken(groups[0])
    with pytest.raises(FloatingPointError, match="the loss of step 2") as error:
        run(tmp_path, groups, learning_rate=1e30, batch_size=9)
    assert "gone/" not in str(error.value)
    assert "group 1, image 0" in str(error.value)


# Images that cannot be read.


def test_a_broken_image_is_told_once_and_its_pairs_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.png"
    file.write_bytes(b"no picture")
    groups = ranked_groups()
    groups[2] = replace(groups[2], images=(str(file), *groups[2].images[1:]))
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "run", groups)
    assert caplog.text.count("broken.png") == 1
    assert "its pairs are left out" in caplog.text
    assert "1 distinct images could not be used" in capfd.readouterr().err
    found = [row for row in rows(tmp_path / "run") if "loss" in row]
    assert sum(row["pairs"] < 5 for row in found) > 1
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in found)


def test_a_wrong_folder_of_images_trains_on_nothing(tmp_path: Path) -> None:
    groups = [broken(group) for group in ranked_groups()]
    with pytest.raises(ValueError, match="no pair of the first batch can be used: ") as error:
        run(tmp_path, groups)
    assert "gone/picture number" in str(error.value)
    assert "there is no such file" in str(error.value)
    assert saved(tmp_path) == []


def test_an_unlucky_batch_is_left_out_without_moving_a_weight(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Trained on its first batch, a model goes through a second without usable pairs unchanged."""
    groups = ranked_groups()
    for seed in range(100):
        batches = PairBatches(groups, batch_size=1, batching="pairs", seed=seed)
        (first, _), (unlucky, _) = batches[0].images[0], batches[1].images[0]
        if first != unlucky:
            break
    groups[unlucky] = broken(groups[unlucky])
    once, twice = (
        run(tmp_path / str(steps), groups, steps=steps, order_steps=0, batch_size=1,
            batching="pairs", weight_decay=1.0, seed=seed)
        for steps in (1, 2)
    )  # fmt: skip
    for name, value in once.state_dict().items():
        assert torch.equal(twice.state_dict()[name], value), name
    row = rows(tmp_path / "2")[1]
    assert (row["pairs"], row["loss"], row["accuracy"], row["grad_norm"]) == (0, None, None, None)
    assert "step 2: no pair of its batch can be used" in caplog.text


def test_many_unlucky_batches_in_a_row_end_the_training() -> None:
    groups = [broken(group) for group in ranked_groups(1)]
    batch = PairBatches(groups, batch_size=1)[0]
    nothing: Any = None
    share = Share(batch, [], nothing, [], nothing, nothing, 2, {batch.images[0]: "gone: no file"})
    left_out = LeftOut(groups)
    left_out.note(share, torch.tensor([False, False]))
    assert left_out.images == {(0, 0), (0, 1)}
    for step in range(2, 2 + PATIENCE - 1):
        left_out.require_pairs(share, 0, step)
    left_out.require_pairs(share, 1, 50)
    for step in range(51, 51 + PATIENCE - 1):
        left_out.require_pairs(share, 0, step)
    with pytest.raises(ValueError, match=r"10 batches up to step 60 can be used: gone: no file"):
        left_out.require_pairs(share, 0, 60)


@pytest.mark.parametrize(
    ("validation", "told"),
    [
        ([], "the validation has 0 groups"),
        ([replace(ranked_groups(1)[0], ranks=(1, 1))], "the validation has 1 groups and no pair"),
    ],
)
def test_a_validation_that_tells_nothing_is_refused_at_once(
    tmp_path: Path, validation: list[RankedGroup], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        run(tmp_path / "run", validation=validation)
    assert not (tmp_path / "run").exists()


# Disks that are full, and what killed runs leave.


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes of any file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_given_back_what_was_begun(tmp_path: Path) -> None:
    with (
        largest_file(100_000),
        pytest.raises(OSError, match="cannot write the checkpoint of step 2"),
    ):
        run(tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert rows(tmp_path)[-1]["step"] == 2
    resumed = run(tmp_path, resume=True)  # there is room again
    assert saved(tmp_path) == ["last", "step-00000004", "step-00000006"]
    assert torch.equal(
        stablepref.load(tmp_path / "last", dtype="float32").state_dict()["model.visual.proj"],
        resumed.state_dict()["model.visual.proj"],
    )


def test_a_model_that_a_full_disk_cuts_short_leaves_the_old_one(tmp_path: Path) -> None:
    scorer = tiny_clip(text_width=16)
    save_folder(scorer, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        scorer.model.visual.proj.zero_()
    with largest_file(100_000), pytest.raises(OSError, match=r"cannot write .*model.safetensors"):
        save_folder(scorer, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    leftovers = [
        tmp_path / name
        for name in ("checkpoints/.step-00000009.writing", "best/.saving-ab12", "last/.saving-cd34")
    ]
    for folder in leftovers:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
    run(tmp_path)
    assert not any(folder.exists() for folder in leftovers)


def test_without_last_a_finished_training_writes_it_again(tmp_path: Path) -> None:
    """As after a kill between the final checkpoint and `last`."""
    given = {"validation": ranked_groups(3, seed=1)}
    run(tmp_path, **given)
    last = tmp_path / "last"
    before = {path.name: path.read_bytes() for path in last.iterdir()}
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    run(tmp_path, **given, resume=True)
    assert {path.name: path.read_bytes() for path in last.iterdir()} == before


def test_a_training_from_another_model_is_another_training(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match="model was 'tiny', is 'other'"):
        train(
            ranked_groups(),
            SMALL,
            out=tmp_path,
            scorer=tiny_clip(name="other", text_width=16),
            resume=True,
        )
