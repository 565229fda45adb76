"""The metric: a mean over batches and processes."""

from pathlib import Path

import pytest
import torch
from helpers.brightness import Brightness
from helpers.by_file import ByFile
from torch import Tensor, distributed, multiprocessing
from torchmetrics import MetricCollection

from stablepref.images.sources import ImageError
from stablepref.integrations.torchmetrics import PreferenceScore

GREYS = (0.1, 0.2, 0.6, 0.9, 0.7)


def grey(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


def test_mean_over_uneven_batches() -> None:
    metric = PreferenceScore(Brightness())
    metric.update(grey(*GREYS[:3]), "any")
    metric.update(grey(*GREYS[3:]), ["red", "any"])
    assert metric.compute().item() == pytest.approx(0.5, abs=1e-6)
    assert metric(grey(0.25), "any").item() == pytest.approx(0.25, abs=1e-6)  # of the batch alone
    assert metric.compute().item() == pytest.approx(2.75 / 6, abs=1e-6)
    metric.reset()
    metric.update(grey(0.25), "any")
    assert metric.compute().item() == pytest.approx(0.25, abs=1e-6)


def test_in_a_collection_and_copied() -> None:
    metrics = MetricCollection({"one": PreferenceScore(Brightness())}).clone()
    metrics.update(grey(0.5), "any")
    assert metrics.compute()["one"].item() == pytest.approx(0.5)


def test_views() -> None:
    metric = PreferenceScore(Brightness(), views=2)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    metric.update(images, "any")
    expected = Brightness().score(images, "any", views=2).mean().item()
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


def test_a_bad_image_is_told_and_not_counted() -> None:
    metric = PreferenceScore(Brightness())
    metric.update(grey(0.5), "any")
    with pytest.raises(ImageError, match="NaN"):
        metric.update([grey(0.1)[0], grey(torch.nan)[0]], "any")
    assert metric.compute().item() == pytest.approx(0.5)


def test_a_bad_batch_leaves_the_state_of_a_called_metric() -> None:
    """`metric(...)`, where torchmetrics empties the state before it updates."""
    metric = PreferenceScore(Brightness())
    metric.update(grey(0.2, 0.4), "any")
    for bad, error in (([grey(0.1)[0], grey(torch.nan)[0]], ImageError), (3.0, Exception)):
        with pytest.raises(error):
            metric(bad, "any")
        assert metric.compute().item() == pytest.approx(0.3)
    assert metric(grey(0.9), "any").item() == pytest.approx(0.9)
    assert metric.compute().item() == pytest.approx(0.5)
    assert metric.update_count == 2

    together = MetricCollection({"one": PreferenceScore(Brightness())})
    together(grey(0.5), "any")
    with pytest.raises(ImageError, match="NaN"):
        together(grey(torch.nan), "any")
    assert together.compute()["one"].item() == pytest.approx(0.5)


def _process(rank: int, folder: str) -> None:
    """Rank 0 has three images in two batches, rank 1 two in one."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    metric = PreferenceScore(Brightness())
    batches = [GREYS[:2], GREYS[2:3]] if rank == 0 else [GREYS[3:]]
    for batch in batches:
        metric.update(grey(*batch), "any")
    together = metric.compute().item()
    Path(folder, f"{rank}.txt").write_text(str(together))
    # Unsynchronised afterwards: going on counts each image once.
    metric.update(grey(0.5), "any")
    Path(folder, f"{rank}-on.txt").write_text(str(metric.compute().item()))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_sync_over_two_processes(tmp_path: Path) -> None:
    multiprocessing.spawn(ByFile(_process), args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert float((tmp_path / f"{rank}.txt").read_text()) == pytest.approx(0.5, abs=1e-6)
        on = float((tmp_path / f"{rank}-on.txt").read_text())
        assert on == pytest.approx(3.5 / 7, abs=1e-6)
