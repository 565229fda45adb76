"""What a saved configuration may say of its towers."""

import copy
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import tiny_clip
from open_clip.tokenizer import SimpleTokenizer

from stablepref.models.backbone import clip_network, clip_tokenizer
from stablepref.models.sizes import VIT_H_14, VIT_L_14
from stablepref.scorer import Scorer
from stablepref.weights.errors import WeightsError
from stablepref.weights.folder import load_folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_clip().save_pretrained(folder)
    return folder


def refused(saved: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> str:
    """The message for a folder whose configuration was changed; it must not load."""
    config = json.loads((saved / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_folder(tmp_path, Scorer.of_kind)
    return str(caught.value)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("text_cfg", "hf_model_name", "user/text"),
        ("text_cfg", "hf_tokenizer_name", "user/text"),
        ("text_cfg", "tokenizer_kwargs", {"trust_remote_code": True}),
        ("vision_cfg", "timm_model_name", "hf-hub:user/image"),
        ("vision_cfg", "timm_model_pretrained", True),
        (None, "cast_dtype", "float16"),
    ],
)
def test_a_folder_touches_no_hub_and_no_other_package(
    part: str | None,
    key: str,
    value: object,
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("a folder asked for an address")

    monkeypatch.setattr(socket, "getaddrinfo", asked)

    def change(config: dict[str, Any]) -> None:
        where = config["backbone"] if part is None else config["backbone"][part]
        where[key] = value

    assert f"the key '{key}'" in refused(saved, tmp_path, change)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "layers", 10**9),
        ("vision_cfg", "layers", [3, 4, 6, 3]),
        ("vision_cfg", "layers", True),
        ("vision_cfg", "width", 1e3),
        ("vision_cfg", "image_size", 10**6),
        ("vision_cfg", "mlp_ratio", 10**12),
        ("vision_cfg", "norm_kwargs", {"eps": "1"}),
        ("text_cfg", "context_length", 10**6),
        ("text_cfg", "vocab_size", 10**12),
        ("text_cfg", "heads", 0),
        ("text_cfg", "act_kwargs", {"inplace": True}),
    ],
)
def test_numbers_have_bounds(
    part: str, key: str, value: object, saved: Path, tmp_path: Path
) -> None:
    def change(config: dict[str, Any]) -> None:
        config["backbone"][part][key] = value

    assert f"{part} has {key} = {value!r}; expected" in refused(saved, tmp_path, change)


def test_patches_have_a_bound_together(saved: Path, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["backbone"]["vision_cfg"] |= {"image_size": 4096, "patch_size": 1}

    assert "16,777,216 patches" in refused(saved, tmp_path, change)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preference_scale", -1.0),
        ("preference_scale", "1"),
        ("preprocess", {"size": 10**9}),
        ("preprocess", {"size": 64, "mean": [1e400, 0, 0], "std": [1, 1, 1]}),
        ("vocabulary", 7),
    ],
)
def test_constants_are_checked(key: str, value: object, saved: Path, tmp_path: Path) -> None:
    message = refused(saved, tmp_path, lambda config: config.update({key: value}))
    assert "describes no CLIPScorer" in message or "finite numbers" in message


@pytest.mark.parametrize("sizes", [VIT_L_14, VIT_H_14])
def test_the_published_sizes_are_within_all_bounds(sizes: dict[str, Any]) -> None:
    shallow = sizes | {
        "vision_cfg": sizes["vision_cfg"] | {"layers": 1, "image_size": 336},
        "text_cfg": sizes["text_cfg"] | {"layers": 1},
    }
    assert len(clip_network(shallow).visual.transformer.resblocks) == 1


def test_a_configuration_without_towers_says_which(saved: Path, tmp_path: Path) -> None:
    message = refused(saved, tmp_path, lambda config: config["backbone"].pop("text_cfg"))
    assert "the backbone has no text_cfg" in message


def test_tokenizers_of_two_models_do_not_share_what_one_changes() -> None:
    first, second = clip_tokenizer(None), clip_tokenizer(None)
    first.clean_fn = str.upper
    assert first.encode("a red fox") != second.encode("a red fox")
    assert second.encode("a red fox") == SimpleTokenizer().encode("a red fox")


def test_copies_of_a_tokenizer_share_its_tables_alone() -> None:
    first = clip_tokenizer(None)
    second = copy.deepcopy(first)
    assert second.encoder is first.encoder
    first.clean_fn = str.upper
    assert second.encode("a red fox") == SimpleTokenizer().encode("a red fox")
