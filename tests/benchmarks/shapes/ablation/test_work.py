"""Work is counted before it is done."""

import pytest
from helpers.tiny_lab import save_tiny

import stablepref
from stablepref.benchmarks.shapes.ablation.cells import Cell
from stablepref.benchmarks.shapes.ablation.methods import METHODS, method_config
from stablepref.benchmarks.shapes.ablation.suite import Suite
from stablepref.benchmarks.shapes.ablation.train import train_cell
from stablepref.benchmarks.shapes.ablation.work import cell_work, duration, measured_speed
from stablepref.benchmarks.shapes.ablation.world import World
from stablepref.models.clip import CLIPScorer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Twenty training groups of each kind, and tiny models."""
    suite = Suite(groups=20, validation=2, test=2, image_blocks=1, text_blocks=1)
    folder = tmp_path_factory.mktemp("world")
    scorer = stablepref.load(str(save_tiny(folder / "tiny", seed=0)), dtype="float32")
    assert isinstance(scorer, CLIPScorer)
    return World(folder, suite, {"large": scorer})


@pytest.mark.parametrize("setting", ["hpdv2", "imagereward"])
def test_batches_of_fewer_pairs_hold_as_many_images(world: World, setting: str) -> None:
    assert world.batch_size(setting, METHODS["sp-pairs"]) == 32
    size = world.batch_size(setting, METHODS["sp-pairs-images"])
    groups = world.mean_images(setting, 32, "groups")
    assert world.mean_images(setting, 32, "pairs") > 2.5 * groups
    assert world.mean_images(setting, size, "pairs") == pytest.approx(groups, abs=1.5)


def test_work_is_counted_before_it_is_done(world: World) -> None:
    config = method_config(
        METHODS["sp"], rate=1e-4, margins=(0.3, 0.2), steps=8, batch_size=32, seed=0,
        image_blocks=1, text_blocks=1,
    )  # fmt: skip
    cell = Cell("large", "hpdv2", config, watched=(4, 8), tested=(8,), disturbed=(4,))
    done = {"trained": 0, "measured": 0}

    def told(kind: str, count: int) -> None:
        done[kind] += count

    encoded: list[int] = []
    missing = world.missing_variants("large", ["hpdv2"])
    data = world.data("large", "hpdv2", advance=encoded.append)
    assert sum(encoded) == missing
    assert world.missing_variants("large", ["hpdv2"]) == 0
    train_cell(cell, world.scorers["large"], data, advance=told)
    # 16 patches of 16 pixels and the class token, of width 32, in the one trained block.
    per_image = 24 * 17 * 32**2 + 4 * 17**2 * 32
    expected = per_image * (3 * done["trained"] + done["measured"])
    # Images in a batch are a mean, over more batches than these.
    assert cell_work(world, cell) == pytest.approx(expected, rel=0.1)
    assert measured_speed(world.scorers["large"], "bf16") > 0


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(20, "20 s"), (59.4, "59 s"), (180, "3 min"), (3600, "1 h 0 min"), (18600, "5 h 10 min")],
)
def test_durations_are_told_to_people(seconds: float, told: str) -> None:
    assert duration(seconds) == told
