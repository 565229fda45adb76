"""Saved scorers: atomic, strict, without pickles."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny_clip
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from stablepref.models.clip import CLIPScorer
from stablepref.scorer import Scorer
from stablepref.weights import folder as folders
from stablepref.weights import hub as hub_files
from stablepref.weights.errors import WeightsError
from stablepref.weights.folder import save_folder


def load_folder(folder: Path) -> Scorer:
    return folders.load_folder(folder, Scorer.of_kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_clip().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_weights(folder: Path, change: object) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    assert callable(change)
    change(state)
    save_file(state, path)


def test_a_folder_holds_plain_files_and_a_card(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    assert json.loads((folder / "config.json").read_text())["scorer"] == "clip"


def test_from_pretrained_finds_the_class(folder: Path) -> None:
    for cls in (Scorer, CLIPScorer):
        assert isinstance(cls.from_pretrained(folder), CLIPScorer)


def test_saving_over_an_older_model_leaves_no_mixture_when_it_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_folder(folder).state_dict()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "save_file", full_disk)
    other = tiny_clip()
    with torch.no_grad():
        other.model.logit_scale.add_(1)
    with pytest.raises(OSError, match="No space left"):
        save_folder(other, folder)
    after = load_folder(folder).state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not [p for p in folder.iterdir() if p.name.startswith(".saving")]


def test_missing_and_unexpected_keys_are_named(folder: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["model.visual.stray"] = state.pop("model.visual.proj")

    change_weights(folder, change)
    with pytest.raises(WeightsError, match=r"missing: model\.visual\.proj.*unexpected: .*stray"):
        load_folder(folder)


def test_shapes_that_differ_are_named(folder: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["model.visual.proj"] = state["model.visual.proj"][:, :-1].contiguous()

    change_weights(folder, change)
    with pytest.raises(WeightsError, match=r"model\.visual\.proj is \(.*expected \("):
        load_folder(folder)


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="truncated"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "config.json"),
        ("{", "config.json"),
        ('{"scorer": "other"}', "'other'"),
        ("[]", "list"),
        ('{"scorer": "clip"}', "describes no CLIPScorer: KeyError"),
        ('{"scorer": "blip", "vision_width": "wide"}', "describes no BLIPScorer"),
        ('{"scorer": "imagereward"}', r"describes no ImageRewardScorer: .*vocab\.txt"),
    ],
)
def test_folders_that_are_no_scorers(folder: Path, content: str | None, says: str) -> None:
    if content is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=says):
        load_folder(folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the hub's place: what is asked for is copied to `tmp_path / "cache"`."""
    repository, cache = tmp_path / "repository", tmp_path / "cache"
    repository.mkdir()
    cache.mkdir()

    def one(name: str, filename: str, **_: object) -> str:
        if not (repository / filename).exists():
            raise EntryNotFoundError("404 Client Error")
        return shutil.copy(repository / filename, cache)

    def all_files(name: str, *, allow_patterns: list[str], **options: object) -> str:
        for path in repository.iterdir():
            one(name, path.name)
        return str(cache)

    monkeypatch.setattr(hub_files, "require_network", lambda _: None)
    monkeypatch.setattr(hub_files, "hf_hub_download", one)
    monkeypatch.setattr(hub_files, "snapshot_download", all_files)
    return repository


def test_a_hub_repository_is_downloaded_whole(hub: Path, folder: Path) -> None:
    for path in folder.iterdir():
        shutil.copy(path, hub)
    assert isinstance(
        load_folder(hub_files.download_folder("user/repo", Scorer.of_kind)), CLIPScorer
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "it has no config.json"),
        ('{"model_type": "clip"}', "names the scorer None"),
        ("no json", "cannot read its config.json"),
    ],
)
def test_weights_of_a_foreign_repository_are_not_downloaded(
    hub: Path, tmp_path: Path, config: str | None, says: str
) -> None:
    (hub / "model.safetensors").write_bytes(bytes(1000))
    if config is not None:
        (hub / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=f"^user/repo on the hub is no scorer.*{says}"):
        hub_files.download_folder("user/repo", Scorer.of_kind)
    assert not (tmp_path / "cache" / "model.safetensors").exists()


def test_without_a_network_only_the_cache_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(_: str) -> None:
        raise OSError("no name service")

    def not_cached(_: str, filename: str, *, local_files_only: bool) -> str:
        assert local_files_only
        raise LocalEntryNotFoundError(f"no {filename} here")

    monkeypatch.setattr(hub_files, "require_network", no_network)
    monkeypatch.setattr(hub_files, "hf_hub_download", not_cached)
    with pytest.raises(OSError, match="no name service"):
        hub_files.download_folder("user/repo", Scorer.of_kind)


def test_half_precision_weights_stay_half(tmp_path: Path) -> None:
    scorer = tiny_clip().to(torch.bfloat16)
    scorer.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved["model.visual.proj"].dtype == torch.bfloat16
    assert saved["model.logit_scale"].dtype == torch.float32
    loaded = load_folder(tmp_path).to(torch.bfloat16)
    assert torch.equal(
        loaded.score(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), "a"),
        scorer.score(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), "a"),
    )
