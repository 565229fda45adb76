"""Files and folders as official repositories have them: loaded, or the file named that would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from stablepref.models.recognise import entry_of_file, file_of_folder
from stablepref.weights.errors import WeightsError
from stablepref.zoo import load

if TYPE_CHECKING:
    from pathlib import Path


def made(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("folder", "file", "model"),
    [
        ("x", "HPS_v2.1_compressed.pt", "hps-v2.1"),
        ("x", "ImageReward.pt", "imagereward-v1"),
        ("x", "MPS_overall_checkpoint.pth", "mps-v1"),
        ("x", "CycleReward-T2I.pth", "cyclereward-t2i"),
        ("x", "aesthetic_predictor_v2_5.pth", "aesthetic-v2.5"),
        ("x", "model.safetensors", "pickscore-v1"),
        ("PickScore_v1", "model.safetensors", "pickscore-v1"),
        ("models--RE-N-Y--mpsv1/snapshots/0a1b", "model.safetensors", "mps-v1"),
        ("mpsv1", "model.safetensors", "mps-v1"),
        ("vit_large_patch14_clip_224.openai", "open_clip_model.safetensors", "clip-vit-l-14"),
        ("CLIP-ViT-H-14-laion2B-s32B-b79K", "open_clip_model.safetensors", "clip-vit-h-14"),
        ("x", "open_clip_model.safetensors", None),
        ("x", "other.pt", None),
    ],
)
def test_files_are_known_by_name_and_place(
    folder: str, file: str, model: str | None, tmp_path: Path
) -> None:
    entry = entry_of_file(tmp_path / folder / file)
    assert (entry and entry.name) == model


def test_a_folder_leads_to_its_file(tmp_path: Path) -> None:
    names = ("README.md", "config.json", "model.safetensors", "tokenizer.json")
    for name in ("PickScore_v1", "models--yuvalkirstain--PickScore_v1/snapshots/3a"):
        folder = made(tmp_path / name, *names)
        assert file_of_folder(folder, None) == folder / "model.safetensors"
    folder = made(tmp_path / "mine", "HPS_v2_compressed.pt", "med_config.json")
    assert file_of_folder(folder, None) == folder / "HPS_v2_compressed.pt"
    folder = made(tmp_path / "clip", "model.safetensors")
    assert file_of_folder(folder, "pickscore-v1") == folder / "model.safetensors"


def test_a_folder_that_does_not_tell_names_the_file(tmp_path: Path) -> None:
    folder = made(tmp_path / "clip", "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(
        WeightsError,
        match=r"clip/model\.safetensors with like= and one of 'pickscore-v1', 'mps-v1'",
    ) as caught:
        load(folder)
    assert "of a clip model" in str(caught.value)
    both = made(tmp_path / "HPSv2", "HPS_v2_compressed.pt", "HPS_v2.1_compressed.pt")
    with pytest.raises(WeightsError, match=r"HPS_v2\.1_compressed\.pt is hps-v2\.1; HPS_v2_"):
        load(both)
    assert file_of_folder(both, "hps-v2.1") == both / "HPS_v2.1_compressed.pt"
    with pytest.raises(WeightsError, match=r"does not hold hpc\.pt, the weights of hps-v1"):
        load(both, like="hps-v1")
    empty = made(tmp_path / "empty")
    with pytest.raises(WeightsError, match=r"official files .*HPS_v2\.1_compressed\.pt"):
        load(empty)
