"""The speed benchmark: its arithmetic, its processes and its report, on tiny models."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from helpers.tiny import tiny_clip
from PIL import Image
from typer.testing import CliRunner

from stablepref.benchmarks.speed import __main__ as speed
from stablepref.benchmarks.speed import contender as speed_contender
from stablepref.benchmarks.speed import machine as speed_machine
from stablepref.benchmarks.speed import matrix as speed_matrix
from stablepref.benchmarks.speed import run as speed_run
from stablepref.benchmarks.speed.seeded import seeded_checkpoint
from stablepref.weights.files import read_weights

PROMPT = "a red fox asleep under a wooden bridge"


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Five pictures of two sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for index in range(5):
        size = (64, 48) if index % 2 else (80, 80)
        noise = torch.randint(0, 256, (12, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(noise.numpy()).resize(size).save(folder / f"{index}.png")
    return [str(path) for path in sorted(folder.iterdir())]


def job(weights: Path, pictures: list[str]) -> dict[str, Any]:
    return {
        "model": "hps-v2.1",
        "weights": str(weights),
        "images": pictures,
        "prompt": PROMPT,
        "batch_size": 2,
        "threads": 1,
        "device": "cpu",
    }


def test_matrix_rate_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 0.5, 0.6, 0.6, 0.7, 9.0])  # products of 0.5 and of 0.1 seconds
    monkeypatch.setattr(speed_machine, "CPU_SIDE", 10)
    monkeypatch.setattr(speed_machine.time, "perf_counter", lambda: next(clock))
    rate = speed_machine.matrix_rate(torch.float32, torch.device("cpu"), seconds=1.0)
    assert rate == pytest.approx(2 * 10**3 / 0.1)


def test_matrix_rate_by_another_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 0.5, 9.0])
    monkeypatch.setattr(speed_machine, "CPU_SIDE", 10)
    rate = speed_machine.matrix_rate(
        torch.float32, torch.device("cpu"), seconds=1.0, clock=lambda: next(clock)
    )
    assert rate == pytest.approx(2 * 10**3 / 0.5)


def test_matrices_stay_small_where_products_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    # With sides of 4 a tenth of a second, with 8 half a second: 16 would take four.
    clock = iter([0.0, 0.1, 1.0, 1.5, 2.0, 2.0, 2.5, 9.0])
    for name, side in (("FIRST_SIDE", 4), ("CPU_SIDE", 32)):
        monkeypatch.setattr(speed_machine, name, side)
    monkeypatch.setattr(speed_machine.time, "perf_counter", lambda: next(clock))
    rate = speed_machine.matrix_rate(torch.float32, torch.device("cpu"), seconds=2.0)
    assert rate == pytest.approx(2 * 8**3 / 0.5)


def test_machine_kind_names_no_machine() -> None:
    kind = speed_machine.machine_kind(torch.device("cpu"))
    assert kind["cpu"]
    assert set(kind) <= {"cpu", "cores", "threads", "system", "python", "torch", "gpu"}


def test_ours_is_measured_in_a_process_of_its_own(tmp_path: Path, pictures: list[str]) -> None:
    scorer = tiny_clip()
    scorer.save_pretrained(tmp_path / "tiny")
    measured = speed_run.run_contender(
        "stablepref float32", job(tmp_path / "tiny", pictures), python=sys.executable
    )
    expected = scorer.score(pictures, PROMPT, progress=False)
    torch.testing.assert_close(torch.tensor(measured["scores"]), expected)
    assert all(measured[f"{which}seconds"] > 0 for which in ("first_", "second_", ""))
    assert measured["peak_bytes"] > 50e6  # Python with torch
    assert measured["versions"]["torch"] == torch.__version__.split("+")[0]


def test_the_first_call_counts_what_comes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that loading moves by 7 and each picture by 1."""
    seconds = 0.0

    def build(_: object) -> Callable[[Sequence[str]], list[float]]:
        nonlocal seconds
        seconds += 7

        def score(paths: Sequence[str]) -> list[float]:
            nonlocal seconds
            seconds += len(paths)
            return [0.5] * len(paths)

        return score

    monkeypatch.setitem(speed_contender.CONTENDERS, "made up", (build, ()))
    clock = SimpleNamespace(perf_counter=lambda: seconds, process_time=lambda: 2 * seconds)
    monkeypatch.setattr(speed_contender, "time", clock)
    for warm_up in (False, True):
        described = {"contender": "made up", "images": ["a", "b", "c"], "warm_up": warm_up}
        measured = speed_contender.measure(described)
        assert measured["first_seconds"] == 7 + 1
        assert measured["second_seconds"] == 1
        assert measured["seconds"] == 3
        assert measured["cpu_seconds"] == 6
        assert measured["scores"] == [0.5] * 3


def test_a_missing_peer_is_reported_with_the_way_to_get_it(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "path" / "hpsv2"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no BPE file')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    results = speed_run.run_rounds(
        ["hpsv2"],
        job(tmp_path, pictures),
        rounds=2,
        pythons={"hpsv2": sys.executable},
    )
    reason = results["hpsv2"].unavailable
    assert reason is not None
    assert "no BPE file" in reason
    assert "pip install" in reason


def test_a_contender_that_fails_is_no_missing_one(tmp_path: Path, pictures: list[str]) -> None:
    with pytest.raises(RuntimeError, match=r"stablepref failed with exit status 1:(?s:.)*no-such"):
        speed_run.run_contender(
            "stablepref", job(tmp_path / "no-such", pictures), python=sys.executable
        )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_open_clip_by_hand_gives_the_cosines_of_equal_weights(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    scorer = tiny_clip()
    weights = tmp_path / "weights.pt"
    torch.save({"state_dict": scorer.model.state_dict()}, weights)
    (tmp_path / "tiny-peer.json").write_text(
        json.dumps({k: v for k, v in scorer.backbone.items() if k != "quick_gelu"})
    )
    open_clip.add_model_config(tmp_path / "tiny-peer.json")
    monkeypatch.setitem(speed_contender.ARCHITECTURES, "hps-v2.1", "tiny-peer")
    run = speed_contender.open_clip_by_hand(job(weights, pictures), precision)
    expected = scorer.score(pictures, PROMPT, progress=False) / scorer.logit_scale.detach()
    tolerance = 1e-5 if precision == "fp32" else 0.02
    torch.testing.assert_close(torch.tensor(run(pictures)), expected, rtol=0, atol=tolerance)


def test_imscore_batches_by_size_and_keeps_the_order(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stub(torch.nn.Module):
        """Stands for imscore's model: a score that tells the picture."""

        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Linear(1, 1)
            self.batches: list[int] = []

        def score(self, pixels: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            assert prompts == [PROMPT] * len(pixels)
            self.batches.append(len(pixels))
            return pixels.mean(dim=(1, 2, 3))

    stub = Stub()
    module = type("module", (), {"HPSv2": lambda: stub})
    monkeypatch.setattr(speed_contender, "_without_download", lambda _: module)
    weights = tmp_path / "weights.pt"
    torch.save({"state_dict": stub.model.state_dict()}, weights)
    scores = speed_contender.imscore_score(job(weights, pictures))(pictures)
    expected = [float(torch.tensor(list(Image.open(p).tobytes())).float().mean()) for p in pictures]
    assert scores == pytest.approx([value / 255 for value in expected], abs=1e-5)
    assert stub.batches == [2, 1, 2]


def test_imscores_imagereward_gets_the_weights_and_the_vocabulary_beside_them(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stub(torch.nn.Module):
        """Stands for imscore's model: a score `(batch, 1)` of its weight and its tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.tokens = module.BertTokenizer.from_pretrained("bert-base-uncased")

        def score(self, pixels: torch.Tensor, _: list[str]) -> torch.Tensor:
            return (self.weight * len(self.tokens)).expand(len(pixels), 1)

    module = SimpleNamespace(
        BertTokenizer=lambda path: Path(path).read_text().split(), ImageReward=Stub
    )
    monkeypatch.setitem(sys.modules, "imscore.imreward.model", module)  # type: ignore[arg-type]
    torch.save({"weight": torch.tensor(2.0)}, tmp_path / "ImageReward.pt")
    (tmp_path / "vocab.txt").write_text("a b c")
    described = {**job(tmp_path / "ImageReward.pt", pictures), "model": "imagereward-v1"}
    assert speed_contender.imscore_score(described)(pictures) == [6.0] * 5


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("hpsv2", "imagereward-v1"),
        ("hpsv2", "clip-vit-l-14"),
        ("imscore", "clip-vit-l-14"),
        ("open_clip float32", "imagereward-v1"),
    ],
)
def test_a_package_without_the_model_is_told_from_a_missing_one(
    tmp_path: Path, pictures: list[str], name: str, model: str
) -> None:
    described = {**job(tmp_path, pictures), "model": model, "contender": name}
    measured = speed_contender.measure(described)
    assert measured == {"unavailable": f"has no scorer of {model}"}


def test_an_unknown_model_is_refused_before_weights_are_written(tmp_path: Path) -> None:
    options = ["--images", str(tmp_path), "--model", "nothing", "--workdir", str(tmp_path / "w")]
    done = CliRunner().invoke(speed.app, ["score", *options])
    assert done.exit_code == 2
    assert "nothing" in done.output
    assert not (tmp_path / "w").exists()


def test_a_seeded_checkpoint_is_written_once_and_is_the_published_size(tmp_path: Path) -> None:
    path = seeded_checkpoint("hps-v2.1", tmp_path, blocks=(1, 1))
    written = path.stat().st_mtime_ns
    state = read_weights(path)
    assert seeded_checkpoint("hps-v2.1", tmp_path, blocks=(1, 1)) == path
    assert path.stat().st_mtime_ns == written
    assert state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape == (5120, 1280)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert [p.name for p in tmp_path.iterdir()] == [path.parent.name]


def test_made_up_prompts_differ() -> None:
    prompts = speed_matrix.made_up_prompts(1000)
    assert len(set(prompts)) == 1000
    assert len(set(speed_matrix.made_up_prompts(300))) == 300
    with pytest.raises(ValueError, match="asked for 1001"):
        speed_matrix.made_up_prompts(1001)


def test_pairs_are_measured_without_remembered_prompts(
    pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that every encoded picture or prompt moves by a second."""
    scorer = tiny_clip()
    seconds = 0
    images, texts = scorer.encode_inputs, scorer.encode_prompts

    def encode_inputs(inputs: torch.Tensor) -> torch.Tensor:
        nonlocal seconds
        seconds += len(inputs)
        return images(inputs)

    def encode_prompts(prompts: Sequence[str]) -> torch.Tensor:
        nonlocal seconds
        seconds += len(prompts)
        return texts(prompts)

    monkeypatch.setattr(scorer, "encode_inputs", encode_inputs)
    monkeypatch.setattr(scorer, "encode_prompts", encode_prompts)
    monkeypatch.setattr(speed_matrix, "time", SimpleNamespace(perf_counter=lambda: seconds))
    found = speed_matrix.prompts_times_pictures(
        scorer, pictures, speed_matrix.made_up_prompts(20), naive=4
    )
    assert found["prompts"] == 20
    assert found["pictures"] == 5
    assert found["naive_pairs_measured"] == 4
    assert found["seconds"] == 20 + 5
    assert found["naive_seconds_extrapolated"] == 20 * 5 * 2


def test_unknown_contender_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        speed.app, ["score", "--images", str(tmp_path), "--contender", "nobody"]
    )
    assert done.exit_code == 2
    assert "nobody" in done.output


def test_help_is_there() -> None:
    done = CliRunner().invoke(speed.app, ["score", "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "--peers-python" in done.output


def test_drawing_is_measured_in_every_way(tmp_path: Path) -> None:
    out = tmp_path / "draw.json"
    options = ["--prompts", "3", "--steps", "1", "--rounds", "2", "--busy", "--json", str(out)]
    done = CliRunner().invoke(speed.app, ["draw", *options])
    assert done.exit_code == 0, done.output
    measured = json.loads(out.read_text())["measured"]
    assert list(measured["rates"]) == ["one at a time", "batches", "batches side by side"]
    assert all(len(rates) == 2 and min(rates) > 0 for rates in measured["rates"].values())
    assert measured["batch"] == 20
    assert max(measured["apart"].values()) <= 1
    assert "batches of 20" in done.output
