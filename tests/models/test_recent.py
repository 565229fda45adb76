"""CycleReward, MPS and aesthetic v2.5 against their official code, at a tiny width.

`benchmarks/parity/official_tiny.py` recorded tests/parity/*-tiny.json in the environments of those
packages; see docs/parity.md.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers.places import RECORDS
from torch import Tensor, nn

import stablepref
from stablepref.benchmarks.parity import tiny
from stablepref.benchmarks.parity.compare import TOLERANCE
from stablepref.benchmarks.parity.inputs import picture_digest
from stablepref.benchmarks.parity.weights import state_digest
from stablepref.models import mps
from stablepref.models.blip import REWARD_MEAN, REWARD_STD
from stablepref.models.mps import MPSScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime import precision
from stablepref.scoring.prompt_cache import PromptCache
from stablepref.training.freezing import freeze
from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stablepref.scorer import Scorer

TRAINABLE = ("cyclereward-combo", "mps-v1")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scorer]:
    scorers = {}
    for name in tiny.NAMES:
        folder = tmp_path_factory.mktemp(name)
        scorers[name] = tiny.tiny_entry(name).build(tiny.write_tiny_files(name, folder))
    return scorers


@pytest.fixture(params=tiny.NAMES)
def scorer(request: pytest.FixtureRequest, built: dict[str, Scorer]) -> Scorer:
    found = built[request.param]
    found._prompt_cache = PromptCache()
    return found


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDS / f"{name}-tiny.json").read_text(encoding="utf-8"))
    return found


def official(name: str) -> Tensor:
    return torch.tensor(record(name)["scores"])


def deviation(scores: Tensor, expected: Tensor) -> float:
    """Largest |ours - official| / max(1, |official|)."""
    assert scores.shape == expected.shape
    assert scores.dtype == torch.float32
    return ((scores - expected).abs() / expected.abs().clamp(min=1)).max().item()


def every_score(scorer: Scorer) -> Tensor:
    scorer._prompt_cache = PromptCache()
    return scorer.score_matrix(tiny.pictures(), tiny.prompts())


@pytest.mark.parametrize("name", tiny.NAMES)
def test_both_sides_have_the_same_inputs(name: str) -> None:
    recorded = record(name)
    assert state_digest(tiny.tiny_state(name)) == recorded["weights_sha256"]
    assert [picture_digest(picture) for picture in tiny.pictures()] == recorded["pictures"]
    assert tiny.prompts() == recorded["prompts"]
    scores = official(name)
    assert scores.std(dim=0).min() > 100 * TOLERANCE
    if name != "aesthetic-v2.5":
        assert scores.std(dim=1).min() > 100 * TOLERANCE


def test_scores_are_those_of_the_official_code(scorer: Scorer) -> None:
    expected = official(scorer.name)
    assert deviation(every_score(scorer), expected) <= TOLERANCE
    if scorer.name == "mps-v1-batch":  # the official batch: one picture under all the prompts
        for row, picture in zip(expected, tiny.pictures(), strict=True):
            scores = scorer.score([picture] * len(row), tiny.prompts())
            assert deviation(scores, row) <= TOLERANCE
        return
    one = scorer.score(tiny.pictures()[1], tiny.prompts()[1])
    assert deviation(one, expected[1, 1:2]) <= TOLERANCE
    uneven = scorer.score(tiny.pictures(), tiny.prompts()[0], batch_size=2)
    assert deviation(uneven, expected[:, 0]) <= TOLERANCE


def test_forward_gives_the_official_scores_on_pixels_of_the_models_size(scorer: Scorer) -> None:
    """Pictures of other sizes differ, since Pillow rounds to 8 bits: see docs/parity.md."""
    preprocess: Any = scorer.preprocess
    shown = [preprocess.exact(p) * preprocess.std + preprocess.mean for p in tiny.pictures()]
    pixels, prompts = torch.stack(shown).clamp(0, 1), tiny.prompts()
    for column, prompt in enumerate(prompts):
        if scorer.name == "mps-v1-batch":
            break
        with torch.no_grad():
            scores = scorer(pixels, [prompt] * len(pixels))
        assert deviation(scores, official(scorer.name)[:, column]) <= TOLERANCE


def test_gradient_of_pixels_against_differences(scorer: Scorer) -> None:
    model = copy.deepcopy(scorer).double()
    generator = torch.Generator().manual_seed(2)
    pixels = torch.rand(1, 3, 40, 30, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    direction = torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
    pixels.requires_grad_()
    (gradient,) = torch.autograd.grad(model(pixels, ["a fox"]).sum(), pixels)
    assert gradient.abs().max() > 0
    step = 1e-6
    with torch.no_grad():
        up, down = (model(pixels + s * step * direction, ["a fox"]) for s in (1, -1))
    expected = (gradient * direction).sum()[None]
    torch.testing.assert_close((up - down) / (2 * step), expected, rtol=1e-4, atol=1e-6)


def test_same_scores_after_save_and_load(scorer: Scorer, tmp_path: Path) -> None:
    scorer.save_pretrained(tmp_path / "saved")
    again = stablepref.load(tmp_path / "saved", device="cpu", dtype="float32")
    assert type(again) is type(scorer)
    for attribute in ("name", "unit", "protocol", "preference_scale"):
        assert getattr(again, attribute) == getattr(scorer, attribute)
    torch.testing.assert_close(every_score(again), every_score(scorer), rtol=1e-5, atol=1e-6)


def test_half_precision_weights_give_float32_scores(scorer: Scorer, tmp_path: Path) -> None:
    scorer.save_pretrained(tmp_path / "saved")
    half = stablepref.load(tmp_path / "saved", device="cpu", dtype="bfloat16")
    scores = every_score(half)
    expected = every_score(scorer)
    assert scores.dtype == torch.float32
    spread = expected.std(dim=0).max()
    assert (scores - expected).abs().max() < 0.5 * spread
    if isinstance(half, MPSScorer):
        assert half.log_scale.dtype == torch.float32


@pytest.mark.parametrize("name", TRAINABLE)
def test_gradient_reaches_all_that_training_moves(name: str, built: dict[str, Scorer]) -> None:
    scorer = built[name]
    names = freeze(scorer, image_blocks=None, text_blocks=None)
    pixels = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    scorer(pixels, ["a fox", "two owls"]).square().sum().backward()
    without = {n for n, p in scorer.named_parameters() if p.requires_grad and p.grad is None}
    scorer.zero_grad()
    assert names
    assert without == set()
    freeze(scorer, image_blocks=1, text_blocks=0)
    assert not any(p.requires_grad for p in scorer.towers().image.blocks[0].parameters())
    assert all(p.requires_grad for p in scorer.towers().image.blocks[1].parameters())
    scorer.requires_grad_(True)


def test_mps_does_not_see_its_neighbours_and_its_batch_form_does(
    built: dict[str, Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, prompts = tiny.pictures()[0], tiny.prompts()
    for name, differs in (("mps-v1", False), ("mps-v1-batch", True)):
        scorer = built[name]
        assert isinstance(scorer, MPSScorer)
        # At 0.01 random weights leave no word out, whatever the largest similarity is.
        monkeypatch.setattr(scorer, "threshold", 0.6)
        alone = torch.cat([scorer.score(picture, prompt) for prompt in prompts])
        beside = scorer.score([picture] * 3, prompts)
        assert (deviation(beside, alone) > 0.01) is differs, name
        if not differs:
            continue
        # By hand: every prompt's similarities over the largest of all.
        with torch.no_grad():
            rows = scorer.encode_prompts(prompts)
            likeness = rows[:, 1:, -1]
            rows[:, 1:, -1] = (likeness > 0.6 * max(likeness.flatten().tolist())).float()
            by_hand = scorer.match(scorer.encode_images(pixels_of(scorer)), rows)
        torch.testing.assert_close(beside, by_hand, rtol=1e-4, atol=1e-3)


def pixels_of(scorer: Scorer) -> Tensor:
    """The first picture three times, as the model sees it, in [0, 1]."""
    preprocess: Any = scorer.preprocess
    seen = preprocess.exact(tiny.pictures()[0]) * preprocess.std + preprocess.mean
    shown: Tensor = seen.clamp(0, 1).expand(3, -1, -1, -1)
    return shown


def test_words_count_as_in_a_loop(built: dict[str, Scorer]) -> None:
    """The mask by hand: the largest similarity to a token of the condition, over the largest."""
    scorer = built["mps-v1"]
    assert isinstance(scorer, MPSScorer)
    prompt = tiny.prompts()[1]
    with torch.no_grad():
        rows = scorer.encode_prompts([prompt])[0]
        both = scorer._text_tokens(scorer.tokenize([prompt, scorer.condition]))
    likeness = [max(float(a @ b) for b in both[1]) for a in both[0]]
    torch.testing.assert_close(rows[1:, -1], torch.tensor(likeness), rtol=1e-4, atol=1e-4)
    counted = [value / max(likeness) > 0.3 for value in likeness]
    assert 0 < sum(counted) < len(counted)


def hps_protocol(scorer: Scorer, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(scorer._modules, "preprocess", Preprocess("hps", scorer.preprocess.size))  # type: ignore[attr-defined]


def plain_pixels(scorer: Scorer, patch: pytest.MonkeyPatch) -> None:
    before: Any = scorer.preprocess
    plain = Preprocess(before.protocol, before.size, mean=(0, 0, 0), std=(1, 1, 1))
    patch.setitem(scorer._modules, "preprocess", plain)


def cropped_as_clip(scorer: Scorer, patch: pytest.MonkeyPatch) -> None:
    before: Any = scorer.preprocess
    constants = {"mean": before.mean.flatten().tolist(), "std": before.std.flatten().tolist()}
    again = Preprocess("clip", before.size, **constants)
    patch.setitem(scorer._modules, "preprocess", again)


def no_gelu(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    for at in (1, 3, 5, 7):
        patch.setitem(scorer.head.layers._modules, str(at), nn.Identity())


def normalised_reward(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    head = scorer.head.forward
    patch.setattr(scorer.head, "forward", lambda x: (head(x) - REWARD_MEAN) / REWARD_STD)


def unmasked_padding(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    tokenizer = scorer.tokenizer
    patch.setattr(
        scorer, "tokenizer", lambda texts: tokenizer(texts).index_fill(1, torch.tensor([1]), 1)
    )


def no_rotation(scorer: Scorer, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mps, "_rotated", lambda x: x)


def other_threshold(scorer: Scorer, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scorer, "threshold", 0.6)


def all_words(scorer: Scorer, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scorer, "threshold", float("-inf"))


def zero_padding(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    real = mps.token_ids
    patch.setattr(mps, "token_ids", lambda *args, **given: real(*args, **given | {"padding": 0}))


def normed_image_tokens(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    real, norm = mps.image_tokens, scorer.clip.visual.ln_post
    patch.setattr(mps, "image_tokens", lambda visual, inputs: norm(real(visual, inputs)))


def first_token(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    real = scorer.encode_prompts

    def encode(prompts: list[str]) -> Tensor:
        rows: Tensor = real(prompts)
        return torch.cat([rows[:, 1:2], rows[:, 1:]], dim=1)

    patch.setattr(scorer, "encode_prompts", encode)


def swapped_gate(scorer: Scorer, patch: pytest.MonkeyPatch) -> None:
    real = mps._swiglu
    patch.setattr(mps, "_swiglu", lambda x: real(torch.cat(x.chunk(2, dim=-1)[::-1], dim=-1)))


def exact_gelu(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    for block in (*scorer.visual.blocks, scorer.visual.attn_pool):
        patch.setitem(block.mlp._modules, "act", nn.GELU())


def mean_pooling(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    visual = scorer.visual
    patch.setattr(visual, "pool", lambda x, *_, **__: x.mean(dim=1))
    patch.setattr(visual, "forward", lambda x: visual.forward_features(x).mean(dim=1))


def lengths_kept(scorer: Scorer, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("stablepref.models.aesthetic_siglip.unit", precision.widen)


MUTANTS: list[tuple[str, Callable[[Any, pytest.MonkeyPatch], None]]] = [
    ("cyclereward-combo", hps_protocol),
    ("cyclereward-combo", plain_pixels),
    ("cyclereward-combo", no_gelu),
    ("cyclereward-combo", normalised_reward),
    ("cyclereward-combo", unmasked_padding),
    ("mps-v1", hps_protocol),
    ("mps-v1", cropped_as_clip),
    ("mps-v1", plain_pixels),
    ("mps-v1", no_rotation),
    ("mps-v1", other_threshold),
    ("mps-v1", all_words),
    ("mps-v1", zero_padding),
    ("mps-v1", normed_image_tokens),
    ("mps-v1", first_token),
    ("mps-v1", swapped_gate),
    ("aesthetic-v2.5", cropped_as_clip),
    ("aesthetic-v2.5", plain_pixels),
    ("aesthetic-v2.5", exact_gelu),
    ("aesthetic-v2.5", mean_pooling),
    ("aesthetic-v2.5", lengths_kept),
]


@pytest.mark.parametrize(
    ("name", "mutate"), MUTANTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_mistake_is_noticed(
    name: str,
    mutate: Callable[[Any, pytest.MonkeyPatch], None],
    built: dict[str, Scorer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = built[name]
    mutate(scorer, monkeypatch)
    wrong = deviation(every_score(scorer), official(name))
    scorer._prompt_cache = PromptCache()
    assert wrong > TOLERANCE


@pytest.mark.parametrize("name", ["cyclereward-combo", "mps-v1", "aesthetic-v2.5"])
def test_a_file_of_another_model_is_refused(name: str, tmp_path: Path) -> None:
    paths = tiny.write_tiny_files(name, tmp_path)
    wrong = tmp_path / "wrong.pt"
    torch.save({"layer.weight": torch.zeros(3)}, wrong)
    with pytest.raises(WeightsError, match=r"wrong\.pt"):
        tiny.tiny_entry(name).build([wrong, *paths[1:]])


def test_the_condition_has_to_be_the_official_one(tmp_path: Path) -> None:
    entry = tiny.tiny_entry("mps-v1")
    paths = tiny.write_tiny_files("mps-v1", tmp_path)
    entry.sizes["condition_sha256"] = "0" * 64
    with pytest.raises(WeightsError, match="none is the official one"):
        entry.build(paths)
    paths[1].write_text("condition = (")
    with pytest.raises(WeightsError, match="as Python"):
        entry.build(paths)


def test_a_norm_with_a_bias_is_no_norm_of_mps(tmp_path: Path) -> None:
    state = tiny.tiny_state("mps-v1")
    state |= {
        "mps.cross_model.layers.0.0.fn.norm.bias": torch.zeros(128),
        "mps.cross_model.layers.0.1.fn.rotary_emb.inv_freq": torch.zeros(32),
    }
    paths = tiny.write_tiny_files("mps-v1", tmp_path)
    torch.save(state, tmp_path / "mps.pth")
    tiny.tiny_entry("mps-v1").build([tmp_path / "mps.pth", paths[1]])
    state["mps.cross_model.layers.0.0.fn.norm.bias"] += 1
    torch.save(state, tmp_path / "mps.pth")
    with pytest.raises(WeightsError, match="expected norms without bias"):
        tiny.tiny_entry("mps-v1").build([tmp_path / "mps.pth", paths[1]])


def test_mps_loads_from_the_whole_module_that_is_published(tmp_path: Path) -> None:
    """Under the official file's name: a pickle of modules whose classes are not here."""
    root = torch.nn.Module()
    for name, value in tiny.tiny_state("mps-v1").items():
        *path, last = name.removeprefix("mps.").split(".")
        part = root
        for step in path:
            if step not in part._modules:
                part.add_module(step, torch.nn.Module())
            part = part.get_submodule(step)
        part.register_parameter(last, torch.nn.Parameter(value))
    paths = tiny.write_tiny_files("mps-v1", tmp_path)
    torch.save(root, tmp_path / "MPS_overall_checkpoint.pth")
    entry = tiny.tiny_entry("mps-v1")
    expected = every_score(entry.build(paths))
    found = every_score(entry.build([tmp_path / "MPS_overall_checkpoint.pth", paths[1]]))
    assert torch.equal(found, expected)
