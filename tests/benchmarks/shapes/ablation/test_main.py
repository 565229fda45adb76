"""The command: from data to the page, interrupted and not, with tiny models of the laboratory."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import typer
from helpers.forked import instead_of_spawned
from helpers.tiny_lab import save_tiny

import stablepref
from stablepref.benchmarks.shapes.ablation import run as ablation_run
from stablepref.benchmarks.shapes.ablation import small as ablation_small
from stablepref.benchmarks.shapes.ablation.__main__ import main
from stablepref.benchmarks.shapes.ablation.methods import TABLES
from stablepref.benchmarks.shapes.ablation.small import main as train_small
from stablepref.benchmarks.shapes.ablation.small import small_backbone, small_model
from stablepref.benchmarks.shapes.ablation.train import train_cell
from stablepref.benchmarks.shapes.clip.model import backbone_config
from stablepref.benchmarks.shapes.clip.train import TrainConfig
from stablepref.models.clip import CLIPScorer

if TYPE_CHECKING:
    from stablepref.benchmarks.shapes.ablation.cells import Cell

SIZES = {
    "steps": "3", "long_steps": "4", "rates": "1e-3,1e-2", "bs": "0.3", "taus": "0.2",
    "seeds": "2", "other_seeds": "1", "groups": "3", "validation": "2", "test": "3",
    "batch_size": "6", "pool": "7", "image_blocks": "1", "text_blocks": "1",
}  # fmt: skip
FEW = ["table1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments that name both models."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "small": save_tiny(folder / "small", seed=1),
        "large": str(save_tiny(folder / "large", seed=2)),
    }


@pytest.fixture(scope="module")
def whole(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of some tables."""
    out = tmp_path_factory.mktemp("whole")
    main(out=out, only=FEW, **models, **SIZES)
    return out


def results(out: Path) -> dict[str, dict[str, Any]]:
    """All cells by file name, without the time they took."""
    found = {path.name: json.loads(path.read_text()) for path in (out / "cells").iterdir()}
    return {name: values | {"seconds": None} for name, values in found.items()}


def counting(monkeypatch: pytest.MonkeyPatch, *, stop_at: int | None = None) -> list[object]:
    """Record what is trained; the training of a number is interrupted in its middle."""
    trained: list[object] = []

    def train(*arguments: object, advance: Callable[[str, int], object]) -> dict[str, object]:
        trained.append(arguments[0])

        def told(kind: str, count: int) -> None:
            advance(kind, count)
            if len(trained) == stop_at:
                raise KeyboardInterrupt

        return train_cell(*arguments, advance=told)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(ablation_run, "train_cell", train)
    return trained


def test_a_killed_run_goes_on_to_the_same_results(
    whole: Path, models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        trained = counting(patch, stop_at=8)
        with pytest.raises(KeyboardInterrupt):
            main(out=tmp_path, only=FEW, **models, **SIZES)
    assert len(results(tmp_path)) == len(trained) - 1 == 7
    (tmp_path / "cells" / ".half.json.writing").write_text('{"wat')
    (tmp_path / "features" / ".half.npy.writing").write_text("")
    with monkeypatch.context() as patch:
        rest = counting(patch)
        main(out=tmp_path, only=FEW, **models, **SIZES)
    assert results(tmp_path) == results(whole)
    assert len(rest) == len(results(whole)) - 7
    pages = [(out / "page" / "results.inc").read_text() for out in (tmp_path, whole)]
    assert pages[0] == pages[1]
    assert not list(tmp_path.rglob("*.writing"))


@pytest.mark.parametrize("imported", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_trainings_side_by_side_have_the_same_results(
    imported: bool, whole: Path, models: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In processes that begin with all imported; slow, as they are, each importing it anew."""
    if imported:
        instead_of_spawned(monkeypatch)
    before = torch.get_num_threads()
    trained = counting(monkeypatch)
    try:
        main(out=tmp_path, only=FEW, jobs=2, **models, **SIZES)
        # Killed processes leave nothing half done either: what is missing is trained again.
        gone = sorted((tmp_path / "cells").iterdir())[::4]
        for path in gone:
            path.unlink()
        main(out=tmp_path, only=FEW, jobs=2, **models, **SIZES)
    finally:
        torch.set_num_threads(before)
    assert gone
    assert not trained, "in this process"
    assert results(tmp_path) == results(whole)
    pages = [(out / "page" / "results.inc").read_text() for out in (tmp_path, whole)]
    assert "2 x 1 threads" in pages[0]
    assert pages[0].partition("threads")[2] == pages[1].partition("threads")[2]


def test_a_finished_run_trains_nothing_and_a_changed_one_what_changed(
    whole: Path, models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = counting(monkeypatch)
    out, page = tmp_path / "out", tmp_path / "docs" / "assets"
    shutil.copytree(whole, out)
    main(out=out, only=FEW, page=page, **models, **SIZES)
    assert not trained
    assert [path.name for path in page.iterdir()] == ["results.inc"]
    before = len(results(out))
    main(out=out, only=["surface"], page=page, **models, **(SIZES | {"rates": "1e-3,1e-2,3e-2"}))
    cells: list[Cell] = trained  # type: ignore[assignment] # as it was called
    rates = {(cell.config.name, cell.config.learning_rate) for cell in cells}
    # Three methods lack one rate, and one was not asked for before; on two kinds of data.
    assert {rate for name, rate in rates if name != "sp-no-ai"} == {3e-2}
    assert {rate for name, rate in rates if name == "sp-no-ai"} == {1e-3, 1e-2, 3e-2}
    assert len(results(out)) == before + len(trained) == before + 2 * (3 * 1 + 3)
    assert {path.name for path in page.iterdir()} == {
        "results.inc",
        "surface-hpdv2.svg",
        "surface-imagereward.svg",
    }
    text = (page / "results.inc").read_text()
    assert "![Surfaces on hpdv2](assets/ablations/surface-hpdv2.svg)" in text
    assert len(re.findall(r"^\| 0\.03 \|", text, re.MULTILINE)) == 8


def test_the_estimate_is_what_is_trained(
    whole: Path, models: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    trained = counting(monkeypatch)
    main(out=tmp_path, only=FEW, plan=True, **models, **SIZES)
    told = capsys.readouterr().out
    assert not trained
    assert not (tmp_path / "features").exists()
    match = re.search(r"(\d+) trainings, 0 of them done; about .+ at the \d+ GFLOP/s", told)
    assert match
    # Two methods may come to share a rate, b and tau, and then a training.
    assert int(match[1]) == pytest.approx(len(results(whole)), abs=2)


def test_the_page_has_every_section_of_its_tables(whole: Path) -> None:
    page = (whole / "page" / "results.inc").read_text()
    assert page.startswith("3 training, 2 validation and 3 test groups of each kind, 3 steps of 6")
    headings = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert headings == [
        "What held", "Table 1: under perturbations", "Every claim", "What validation chose",
    ]  # fmt: skip
    for name in ("crop-0.97", "crop-0.9", "jpeg-50", "brightness-1.1", "resize-0.5"):
        assert page.count(f"| {name} |") == 2 * 2
    assert "hflip" not in page
    assert "nan" not in page.lower()
    # Pairs of methods, kinds of perturbations, ends and settings; and once for both settings.
    assert page.count("flips fewer pairs than") == 4 * 2 * 2 * (2 + 1)
    assert page.count("agrees more with the truth than") == 2 * 2 * 2 * (2 + 1)
    for table in re.findall(r"(?:^\|.+\n)+", page, re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1


def test_scores_may_begin_in_another_unit(
    models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = stablepref.load(str(models["small"]), dtype="float32").logit_scale.item()
    starts: list[float] = []

    def stop(cell: object, start: CLIPScorer, *_: object, **__: object) -> None:
        starts.append(start.logit_scale.item())
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation_run, "train_cell", stop)
    for scale in (7.0, None):
        with pytest.raises(KeyboardInterrupt):
            main(out=tmp_path, only=FEW, logit_scale=scale, **models, **SIZES)
    assert starts == pytest.approx([7, own])
    assert own != pytest.approx(7)


@pytest.mark.slow
def test_all_tables(models: dict[str, Any], tmp_path: Path) -> None:
    main(out=tmp_path, **models, **SIZES)
    page = (tmp_path / "page" / "results.inc").read_text()
    assert page.count("\n### ") == len(TABLES) + 3
    assert "nan" not in page.lower()
    assert (tmp_path / "page" / "overfitting.svg").exists()


def test_what_is_missing_is_said(models: dict[str, Any], tmp_path: Path) -> None:
    large = models["large"]
    with pytest.raises(typer.BadParameter, match=r"small/model is not a folder; .* trained first"):
        main(out=tmp_path, large=large, plan=True)
    with pytest.raises(typer.BadParameter, match="nowhere is not a folder"):
        main(out=tmp_path, small=Path("nowhere"), large=large)
    with pytest.raises(typer.BadParameter, match="'table4' is not one of table2, table1"):
        main(out=tmp_path, only=["table4"], **models)
    with pytest.raises(typer.BadParameter, match="steps is 0"):
        main(out=tmp_path, steps="0", **models)


def test_too_small_a_pool_is_said_before_anything_is_trained(
    models: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(typer.BadParameter, match=r"pool is 2, but sp\S* shows \d weak views"):
        main(out=tmp_path, only=["open"], **models, **(SIZES | {"pool": "2"}))


def test_other_data_in_the_folder_are_refused(whole: Path, models: dict[str, Any]) -> None:
    with pytest.raises(typer.BadParameter, match="made with other settings"):
        main(out=whole, only=FEW, **models, **(SIZES | {"data_seed": "1"}))


def test_the_small_model_is_made_by_its_command(tmp_path: Path) -> None:
    train_small(out=tmp_path, steps=1, batch_size=4, workers=0)
    model = stablepref.load(tmp_path / "model", dtype="float32")
    assert isinstance(model, CLIPScorer)
    large = stablepref.load("shapes-clip", dtype="float32")
    sizes = [sum(p.numel() for p in each.parameters()) for each in (model, large)]
    assert sizes[0] < 0.4 * sizes[1]
    assert len(model.model.visual.transformer.resblocks) == 4
    whole = backbone_config(700)
    assert small_backbone(700)["embed_dim"] == whole["embed_dim"]
    assert whole["vision_cfg"]["layers"] == 6, "the small one is made from a copy"


def test_without_a_small_model_one_is_trained_first(
    models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[Path, str]] = []

    def train(config: TrainConfig, folder: Path, **_: object) -> None:
        trained.append((folder, config.precision))
        shutil.copytree(models["small"], folder / "model", dirs_exist_ok=True)

    monkeypatch.setattr(ablation_small, "train", train)
    assert small_model(tmp_path / "a", "bf16", device="cpu") == tmp_path / "a" / "model"
    out, large = tmp_path / "out", models["large"]
    main(out=out, large=large, only=["surface"], **(SIZES | {"rates": "1e-3"}))
    assert trained == [(tmp_path / "a", "bf16"), (out / "small", "fp32")]
    before = results(out)
    main(out=out, only=["surface"], **models, **(SIZES | {"rates": "1e-3"}))
    assert results(out) == before, "the same model, given by hand"


def test_threads_are_torchs(models: dict[str, Any], tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        main(out=tmp_path, only=["surface"], plan=True, threads=1, **models, **SIZES)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
