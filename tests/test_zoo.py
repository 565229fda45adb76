"""Names, files and folders to scorers."""

import gc
import shutil
import socket
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import tiny_clip
from safetensors.torch import save_file

import stablepref
from stablepref import zoo
from stablepref.integrations.reward import DifferentiableReward
from stablepref.models.catalog import BY_NAME, ENTRIES
from stablepref.scorer import Scorer
from stablepref.weights import cache, network
from stablepref.weights.errors import WeightsError
from stablepref.weights.hub import UnavailableError
from stablepref.zoo import load, score


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_clip().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No name resolves, and no file is cached."""

    def fail(*_: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(network, "getproxies", dict)
    monkeypatch.setattr(cache, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setenv("STABLEPREF_CACHE", str(tmp_path / "cache"))


def test_a_folder_loads_once_and_scores(folder: Path) -> None:
    scorer = load(folder)
    assert load(str(folder)) is scorer
    assert load(folder, dtype=torch.float32, device="cpu") is load(folder, dtype="float32")
    assert load(folder, dtype=torch.bfloat16) is not load(folder, dtype=torch.float32)
    pixels = torch.rand(2, 3, 64, 64)
    assert torch.equal(score(pixels, "a cat", model=folder), scorer.score(pixels, "a cat"))


def test_two_names_of_a_device_are_one(folder: Path) -> None:
    assert load(folder, device="cpu:0") is load(folder, device=torch.device("cpu"))
    if torch.cuda.is_available():
        assert load(folder, device="cuda") is load(folder, device="cuda:0")
    with pytest.raises(ValueError, match='"meta" holds no numbers'):
        load(folder, device="meta")


def test_loaded_models_can_be_forgotten(folder: Path) -> None:
    first = weakref.ref(load(folder))
    assert load(folder) is first()
    load.cache_clear()
    gc.collect()
    assert first() is None
    assert load(folder) is load(folder)


def test_the_weights_of_a_saved_folder_stand_for_it(folder: Path, tmp_path: Path) -> None:
    scorer = load(folder / "model.safetensors")
    assert scorer.name == "tiny"
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(scorer.score(pixels, "a cat"), load(folder).score(pixels, "a cat"))
    # Without a scorer's configuration beside it, it is PickScore's file of the same name.
    (tmp_path / "pick").mkdir()
    shutil.copy(folder / "model.safetensors", tmp_path / "pick")
    (tmp_path / "pick" / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(WeightsError, match=r"pick/model\.safetensors"):
        load(tmp_path / "pick" / "model.safetensors")


def test_a_folder_written_anew_is_loaded_anew(folder: Path) -> None:
    first = load(folder)
    other = tiny_clip()
    with torch.no_grad():
        other.model.logit_scale.add_(1)
    other.save_pretrained(folder)
    assert load(folder).logit_scale.item() != first.logit_scale.item()


def test_the_environment_names_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLEPREF_MODEL", str(folder))
    assert load() is load(folder)


@pytest.mark.parametrize("name", [e.name for e in ENTRIES if e.files])
def test_without_network_it_says_what_can_be_loaded(name: str, no_network: None) -> None:
    with pytest.raises(UnavailableError) as caught:
        load(name)
    message = str(caught.value)
    assert name in message
    assert 'stablepref.load("shapes")' in message
    assert "STABLEPREF_MODEL" in message
    assert "\n" not in message


def test_without_network_the_default_is_not_replaced(
    no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STABLEPREF_MODEL", raising=False)
    with pytest.raises(UnavailableError, match=r"hps-v2\.1"):
        score(torch.rand(1, 3, 64, 64), "a cat")


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ValueError, match=r"'hsp-v2'.*hps-v2\.1.*hf-hub:"):
        load("hsp-v2")


@pytest.mark.parametrize("dtype", ["int8", "bf17", "float8_e4m3fn", torch.int32, 16])
def test_wrong_dtypes(folder: Path, dtype: object) -> None:
    with pytest.raises(ValueError, match="dtype"):
        load(folder, dtype=dtype)  # type: ignore[arg-type] # the point of the test


def test_a_hub_repository_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(name: str, class_of: object) -> Path:
        assert class_of is Scorer.of_kind
        asked.append(name)
        return folder

    monkeypatch.setattr(zoo, "download_folder", fetch)
    monkeypatch.chdir(folder.parent)  # a folder of the repository's name is not the repository
    shutil.copytree(folder, Path("someone/their-model"))
    load("hf-hub:someone/their-model")
    assert asked == ["someone/their-model"]


def test_a_hub_repository_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, class_of: object) -> Path:
        raise FileNotFoundError("no network\nand a long explanation")

    monkeypatch.setattr(zoo, "download_folder", fail)
    with pytest.raises(UnavailableError) as caught:
        load("hf-hub:nobody/none")
    message = str(caught.value)
    assert message.startswith("cannot download hf-hub:nobody/none (no network). Loadable")
    assert 'stablepref.load("shapes")' in message


def test_a_leading_tilde_is_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load("~/model") is load(folder)


def test_a_file_that_does_not_tell_its_model_needs_like(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match=r"like=.*hps-v2\.1"):
        load(path)
    with pytest.raises(ValueError, match="'nothing' is no model"):
        load(path, like="nothing")
    with pytest.raises(WeightsError, match=r"missing: .*logit_scale"):
        load(path, like="hps-v2.1")


def test_a_file_is_known_by_its_official_name(tmp_path: Path) -> None:
    path = tmp_path / "HPS_v2.1_compressed.pt"
    torch.save({"state_dict": {"stray": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match="unexpected: stray"):
        load(path)


def test_truncated_foreign_and_dangerous_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, whole)
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(whole.read_bytes()[:1000])
    text = tmp_path / "text.pt"
    text.write_text("<html>404</html>")
    code = tmp_path / "code.pt"
    torch.save({"state_dict": Path("x")}, code)
    tensor = tmp_path / "tensor.pt"
    torch.save(torch.zeros(3), tensor)
    broken = tmp_path / "broken.safetensors"
    save_file({"a": torch.zeros(1000)}, broken)
    broken.write_bytes(broken.read_bytes()[:500])
    for path, says in [
        (truncated, "truncated"),
        (text, "truncated|run code"),
        (code, "run code"),
        (tensor, "dict of named tensors"),
        (broken, "truncated"),
        (tmp_path / "none.pt", "unknown model"),
    ]:
        with pytest.raises(ValueError, match=says):
            load(path, like="hps-v2.1")


KINDS = (
    "clip",
    "imagereward",
    "blip",
    "aesthetic",
    "cyclereward",
    "mps",
    "aesthetic-siglip",
    "hps-v3",
)


def test_every_entry_is_complete() -> None:
    assert len(BY_NAME) == len(ENTRIES)
    for entry in ENTRIES:
        assert entry.relation
        assert entry.licence
        assert entry.laboratory == (not entry.files)
        assert entry.kind in KINDS
        assert all(0 < percent < 100 for percent in entry.published.values())


def test_the_second_call_does_not_reload(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading weights a second time would fail."""
    pixels = torch.rand(1, 3, 64, 64)
    first = stablepref.score(pixels, "a cat", model=str(folder))
    monkeypatch.setattr(zoo, "_read", None)
    assert torch.equal(first, stablepref.score(pixels, "a cat", model=str(folder)))


def test_what_is_no_name_is_called_what_it_is() -> None:
    """A function is the reward that trainers of elsewhere take."""

    def warmth(images: list[object], prompts: list[str]) -> list[float]:
        return [1.0] * len(images)

    given: Any = warmth
    for use in (
        lambda: stablepref.load(given),
        lambda: stablepref.score([], "a dog", model=given),
        lambda: DifferentiableReward(given),
    ):
        with pytest.raises(
            TypeError, match=r"the model is a function; .* stablepref\.FunctionScorer\(fn, "
        ):
            use()
    number: Any = 3
    with pytest.raises(TypeError, match="the model is a int; expected a name or a path"):
        stablepref.load(number)
    name: Any = "shapes"
    with pytest.raises(TypeError, match=r"the model is a str; expected a scorer, such as "):
        DifferentiableReward(name)
    compiled: Any = torch.compile(stablepref.load("shapes"), backend="eager")
    DifferentiableReward(compiled)
