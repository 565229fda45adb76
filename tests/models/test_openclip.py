"""Each kind of open_clip's models against open_clip's own pipeline, from its own file layout."""

from __future__ import annotations

import copy
import json
import math
import shutil
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import open_clip
import pytest
import torch
from helpers.ranked import SMALL, ranked_groups
from helpers.tiny_openclip import KINDS, TOWERS, write_model
from open_clip.hf_model import ClsLastHiddenStatePooler
from safetensors.torch import load_file, save_file

import stablepref
import stablepref.models.openclip.scorer as scorer_module
from stablepref.benchmarks.parity import tiny
from stablepref.models.entry import LOGIT
from stablepref.models.openclip.scorer import OpenCLIPScorer
from stablepref.models.openclip.source import find
from stablepref.preprocess.preprocess import Preprocess
from stablepref.recipes import RECIPES
from stablepref.scoring.prompt_cache import PromptCache
from stablepref.trainer import train
from stablepref.training.freezing import freeze
from stablepref.weights.errors import WeightsError
from stablepref.weights.hub import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

TOLERANCE = 1e-4
LONG = "a red fox asleep under a wooden bridge, " * 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("openclip")
    return {kind: write_model(kind, root / kind) for kind in KINDS}


def loaded(folder: Path, **options: Any) -> OpenCLIPScorer:  # noqa: ANN401
    scorer = stablepref.load(folder, device="cpu", **{"dtype": "float32", **options})
    assert isinstance(scorer, OpenCLIPScorer)
    return scorer


@cache
def official(folder: Path, *prompts: str) -> Tensor:
    """open_clip's own preprocessing, tokenizer, towers and logits; `(pictures, prompts)`."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    pixels = torch.stack([preprocess(picture) for picture in tiny.pictures()])
    with torch.no_grad():
        images = model.encode_image(pixels, normalize=True)
        texts = model.encode_text(tokenizer(list(prompts)), normalize=True)
        logits: Tensor = model.logit_scale.exp() * images @ texts.T
        return logits if model.logit_bias is None else logits + model.logit_bias


def deviation(scores: Tensor, expected: Tensor) -> float:
    return ((scores - expected).abs() / expected.abs().clamp(min=1)).max().item()


@pytest.mark.filterwarnings("ignore:.*the rest is cut")
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_open_clips_own(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    scorer = loaded(folders[kind])
    prompts = [*tiny.prompts(), LONG]
    expected = official(folders[kind], *prompts)
    assert expected.std(dim=0).min() > 10 * TOLERANCE
    assert expected.std(dim=1).min() > 10 * TOLERANCE
    pictures = tiny.pictures()
    scores = scorer.score_matrix(pictures, prompts)
    assert deviation(scores, expected) <= TOLERANCE
    assert deviation(scorer.score(pictures[1], prompts[1]), expected[1, 1]) <= TOLERANCE
    # A saved model gives the same, and needs no other file.
    scorer.save_pretrained(tmp_path / "saved")
    again = loaded(tmp_path / "saved")
    assert (again.unit, again.protocol) == (scorer.unit, scorer.protocol)
    torch.testing.assert_close(again.score_matrix(pictures, prompts), scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["siglip2", "mobileclip", "coca"])
def test_gradient_of_pixels_against_differences(kind: str, folders: dict[str, Path]) -> None:
    scorer = copy.deepcopy(loaded(folders[kind])).double()
    generator = torch.Generator().manual_seed(2)
    pixels = torch.rand(1, 3, 50, 40, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    direction = torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
    pixels.requires_grad_()
    (gradient,) = torch.autograd.grad(scorer(pixels, ["a fox"]).sum(), pixels)
    assert gradient.abs().max() > 0
    step = 1e-6
    with torch.no_grad():
        up, down = (scorer(pixels + s * step * direction, ["a fox"]) for s in (1, -1))
    expected = (gradient * direction).sum()[None]
    torch.testing.assert_close((up - down) / (2 * step), expected, rtol=1e-3, atol=1e-6)


def test_half_precision_keeps_scale_and_bias(folders: dict[str, Path]) -> None:
    half, exact = loaded(folders["siglip2"], dtype="bfloat16"), loaded(folders["siglip2"])
    assert half.dtype == torch.bfloat16
    assert half.model.logit_scale.dtype == half.model.logit_bias.dtype == torch.float32
    scores = half.score_matrix(tiny.pictures(), tiny.prompts())
    expected = exact.score_matrix(tiny.pictures(), tiny.prompts())
    assert scores.dtype == torch.float32
    assert (scores - expected).abs().max() < 0.5


def no_bias(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    patch.setitem(scorer.model._parameters, "logit_bias", None)


def raw_text(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    patch.setattr(scorer.tokenizer, "clean_fn", lambda text: text)


def padded_left(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    patch.setattr(scorer.tokenizer.tokenizer, "padding_side", "left")


def cropped(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    now = scorer.preprocess
    patch.setitem(scorer._modules, "preprocess", Preprocess("clip", **now.config()))


def clips_constants(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    now = scorer.preprocess
    patch.setitem(scorer._modules, "preprocess", Preprocess(now.protocol, now.size))


@pytest.mark.parametrize(
    "mutate", [no_bias, raw_text, padded_left, cropped, clips_constants], ids=lambda f: f.__name__
)
def test_a_mistake_is_noticed(
    mutate: Callable[[Any, pytest.MonkeyPatch], None],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = loaded(folders["siglip2"])
    scorer._prompt_cache = PromptCache()
    mutate(scorer, monkeypatch)
    wrong = scorer.score_matrix(tiny.pictures(), tiny.prompts())
    scorer._prompt_cache = PromptCache()
    assert deviation(wrong, official(folders["siglip2"], *tiny.prompts())) > TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_for_its_towers(kind: str, folders: dict[str, Path]) -> None:
    scorer = copy.deepcopy(loaded(folders[kind]))
    assert freeze(scorer, image_blocks=None, text_blocks=None)
    pixels = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    scorer(pixels, ["a fox", "two owls"]).square().sum().backward()
    towers = [("visual", scorer.model.visual), ("text", getattr(scorer.model, "text", None))]
    for name, tower in towers:
        for key, weight in tower.named_parameters() if tower is not None else ():
            if weight.grad is not None:  # what a score depends on is what is trained
                assert weight.requires_grad, f"{name}.{key}"
    freeze(scorer, image_blocks=1, text_blocks=1)
    image, text = scorer.towers()
    for tower in (image, text):
        assert not any(p.requires_grad for p in tower.blocks[0].parameters())
        assert all(p.requires_grad for p in tower.blocks[-1].parameters())


def test_a_siglip2_is_trained_and_saved_and_twice_the_same(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    config = replace(SMALL, steps=4, order_steps=2, warmup_steps=0, image_blocks=1, text_blocks=1)
    config = replace(config, checkpoint_every=2)
    scorer = loaded(folders["siglip2"])
    whole = train(ranked_groups(), config, out=tmp_path / "whole", scorer=scorer)
    train(ranked_groups(), config, out=tmp_path / "again", scorer=scorer)
    again = stablepref.load(tmp_path / "again" / "last", device="cpu", dtype="float32")
    assert again.preference_scale == 1
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    changed = [
        key
        for key, value in scorer.state_dict().items()
        if not torch.equal(value, whole.state_dict()[key])
    ]
    assert any(key.startswith("model.visual.trunk.blocks.") for key in changed)
    assert not any(".blocks.0." in key for key in changed)


def test_the_scale_of_the_sigmoid_loss_has_no_upper_bound(folders: dict[str, Path]) -> None:
    for kind, expected in (("siglip2", 5.0), ("dfn", math.log(100))):
        scorer = copy.deepcopy(loaded(folders[kind]))
        with torch.no_grad():
            scorer.log_scale.fill_(5.0)
        scorer.after_step()
        assert scorer.log_scale.item() == pytest.approx(expected)


def test_units_say_whether_there_is_a_bias(folders: dict[str, Path]) -> None:
    assert loaded(folders["dfn"]).unit == LOGIT
    assert loaded(folders["siglip2"]).unit == f"{LOGIT} + logit_bias"
    assert loaded(folders["siglip2"]).protocol == "squash"
    assert loaded(folders["mobileclip"]).protocol == "clip-bilinear"


def test_recipes_begin_with_models_of_open_clip() -> None:
    for name in ("sp-siglip2", "ce-siglip2"):
        model, tag = RECIPES[name].model.removeprefix("open_clip:").split("/")
        assert tag in open_clip.list_pretrained_tags_by_model(model)


def test_a_long_prompt_is_cut_with_one_warning(folders: dict[str, Path]) -> None:
    for kind, context in (("siglip2", 16), ("long", 248)):
        scorer = copy.deepcopy(loaded(folders[kind]))
        scorer._truncation_shown = False
        with pytest.warns(UserWarning, match=f"reads {context} tokens"):
            scorer.tokenize(["a fox", LONG])


def test_a_file_loads_by_the_name_of_its_architecture(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-S-32-alt", pretrained=None)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "mine.pt")
    scorer = stablepref.load(f"open_clip:ViT-S-32-alt/{tmp_path}/mine.pt", dtype="float32")
    assert scorer.name.startswith("open_clip:ViT-S-32-alt/")
    assert torch.equal(scorer.state_dict()["model.visual.proj"], model.visual.proj)
    alike = stablepref.load(tmp_path / "mine.pt", like="open_clip:ViT-S-32-alt", dtype="float32")
    assert torch.equal(alike.state_dict()["model.visual.proj"], model.visual.proj)
    assert alike.preprocess.config() == scorer.preprocess.config()
    with pytest.raises(ValueError, match="like='open_clip:ViT-S-32-alt' says what a checkpoint"):
        stablepref.load(tmp_path, like="open_clip:ViT-S-32-alt")


def test_other_weights_of_a_folders_model(folders: dict[str, Path], tmp_path: Path) -> None:
    """`like=` names the folder of the model that was fine-tuned."""
    state = {key: value.clone() for key, value in load_file(weights_of(folders["siglip2"])).items()}
    state["logit_bias"] += 1
    save_file(state, tmp_path / "tuned.safetensors")
    tuned = stablepref.load(
        tmp_path / "tuned.safetensors",
        like=f"open_clip:{folders['siglip2']}",
        device="cpu",
        dtype="float32",
    )
    pictures, prompts = tiny.pictures(), tiny.prompts()
    expected = official(folders["siglip2"], *prompts) + 1
    assert deviation(tuned.score_matrix(pictures, prompts), expected) <= TOLERANCE


@pytest.mark.parametrize("kind", ["xlm-roberta", "mt5"])
def test_a_text_tower_of_transformers_loads_without_a_network(
    kind: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration lies beside the weights, under whatever name the model calls it."""
    folder = shutil.copytree(folders[kind], tmp_path / "model")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "made/up"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(scorer_module, "require_network", no_network)
    pictures, prompts = tiny.pictures(), tiny.prompts()
    expected = official(folders[kind], *prompts)
    assert deviation(loaded(folder).score_matrix(pictures, prompts), expected) <= TOLERANCE
    # A file, by the name of its architecture in open_clip's table.
    table = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(table, "tiny-words", copy.deepcopy(config["model_cfg"]))
    by_name = stablepref.load(
        f"open_clip:tiny-words/{weights_of(folder)}", device="cpu", dtype="float32"
    )
    assert deviation(by_name.score_matrix(pictures, prompts), expected) <= TOLERANCE
    (folder / "config.json").unlink()
    with pytest.raises(UnavailableError, match=r"made/up.*config\.json beside the weights"):
        loaded(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json, the configuration of the text tower"):
        loaded(folder)


def no_network(url: str) -> None:
    raise OSError(f"{url} is not looked for")


def no_mask(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    patch.setattr(scorer.model.text.config, "pad_token_id", 299)


def first_token(scorer: Any, patch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    patch.setitem(scorer.model.text._modules, "pooler", ClsLastHiddenStatePooler())


@pytest.mark.parametrize("mutate", [no_mask, first_token], ids=lambda f: f.__name__)
def test_a_mistake_in_a_text_tower_of_transformers_is_noticed(
    mutate: Callable[[Any, pytest.MonkeyPatch], None],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = copy.deepcopy(loaded(folders["roberta"]))
    mutate(scorer, monkeypatch)
    wrong = scorer.score_matrix(tiny.pictures(), tiny.prompts())
    assert deviation(wrong, official(folders["roberta"], *tiny.prompts())) > TOLERANCE


@pytest.mark.parametrize("kind", ["siglip2", *TOWERS])
def test_checkpointed_activations_are_computed_again(kind: str, folders: dict[str, Path]) -> None:
    gradients = []
    for saving in (False, True):
        scorer = copy.deepcopy(loaded(folders[kind]))
        if saving:
            scorer.checkpoint_activations()
        image, text = scorer.towers()
        calls = []
        for tower in (image, text):
            inner: Any = next(iter(tower.blocks[-1].children()))
            inner = inner[0] if isinstance(inner, torch.nn.ModuleList) else inner  # mT5's
            inner.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        pixels = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(0))
        scorer(pixels.requires_grad_(), ["a fox"]).sum().backward()
        gradients.append([p.grad for tower in (image, text) for p in tower.blocks[0].parameters()])
        assert len(calls) == (4 if saving else 2)
    for plain, saved in zip(*gradients, strict=True):
        torch.testing.assert_close(saved, plain)


def weights_of(folder: Path) -> Path:
    return folder / "open_clip_model.safetensors"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("open_clip:ViT-B-16-SigLP2/webli", "near it: ViT-B-16-SigLIP2"),
        ("open_clip:ViT-B-32/laion9b", "'laion9b' is neither a file nor a tag.*laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32", "expected one of openai"),
    ],
)
def test_unknown_models_and_tags_are_named(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        find(name)


def test_folders_that_cannot_be_used_say_why(folders: dict[str, Path], tmp_path: Path) -> None:
    def changed(**architecture: object) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(folders["dfn"], folder)
        config = json.loads((folder / "open_clip_config.json").read_text())
        config["model_cfg"] |= architecture
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        return folder

    elsewhere = changed(vision_cfg={"timm_model_name": "hf-hub:some/one", "image_size": 64})
    with pytest.raises(ValueError, match="expected the name of an architecture of timm"):
        loaded(elsewhere)
    with pytest.raises(WeightsError, match="does not fit the model"):
        loaded(changed(embed_dim=24))
    bare = changed()
    (bare / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has none of open_clip_model\.safetensors"):
        loaded(bare)
    (bare / "open_clip_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="as a configuration of open_clip"):
        loaded(bare)
