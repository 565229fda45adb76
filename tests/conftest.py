"""Fixtures that more than one test module uses."""

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from helpers.commandline import draw_pictures
from helpers.places import ROOT
from helpers.tiny import tiny_clip


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """No garbage is looked for among what is imported, neither meanwhile nor at each test after."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _own_accelerator() -> Iterator[None]:
    """A process keeps accelerate's first precision and device; the next test may ask for others."""
    yield
    if (state := sys.modules.get("accelerate.state")) is not None:
        state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def _own_scorers() -> Iterator[None]:
    """What a test registers is for itself: the next one may take the name."""
    before = _registered()
    yield
    if registry := sys.modules.get("stablepref.models.registry"):
        for name in _registered() - before:
            registry.SCORERS.unregister(name)


def _registered() -> set[str]:
    registry = sys.modules.get("stablepref.models.registry")
    return set(registry.SCORERS._registered) if registry else set()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images, rankings and golden values; without it the test is skipped."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("STABLEPREF_TEST_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no folder of real data at {folder} (set STABLEPREF_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny scorer, for the command line."""
    folder = tmp_path_factory.mktemp("model")
    tiny_clip().save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Six picture files in the test's own folder."""
    return draw_pictures(tmp_path)


@pytest.fixture(scope="module")
def local_ray(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Ray on this machine, with more CPUs in name than the two workers take."""
    ray = pytest.importorskip("ray", reason="needs stablepref[ray]")
    data = pytest.importorskip("ray.data", reason="needs stablepref[ray]")
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
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.wait_for_min_actors_s = 300
        context.default_hash_shuffle_parallelism = 2
        # The workers cannot import test modules.
        ray.cloudpickle.register_pickle_by_value(request.module)
        yield
        ray.shutdown()
