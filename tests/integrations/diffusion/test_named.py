"""What may stand for a pipeline or a LoRA: found, or refused in one line and without torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from stablepref.benchmarks.bench.contestants import check_sources, parse_contestants
from stablepref.integrations.diffusion.load import dtype_argument, load_pipeline
from stablepref.integrations.diffusion.named import check_lora, check_pipeline
from stablepref.weights import network


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one repository, in a working folder of its own; nothing else can be reached."""

    def fail(*_: object) -> None:
        raise OSError("Name or service not known")

    cache = tmp_path / "cache"
    (cache / "models--user--name-1.5" / "snapshots").mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "require_network", fail)
    monkeypatch.chdir(tmp_path)
    return cache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models" / "mine"
    made.mkdir(parents=True)
    (made / "model_index.json").write_text("{}")
    return made


def test_pipelines_that_can_be_found_pass(folder: Path) -> None:
    for name in ("shapes", str(folder), "models/mine", "user/name-1.5"):
        check_pipeline(name, "bfloat16")
    with pytest.raises(ValueError, match="--pipeline-dtype int8: expected float32, bfloat16"):
        check_pipeline("shapes", "int8")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shape", r"no pipeline 'shape': expected shapes \(bundled\), a folder, or a hub"),
        ("a/b/c", "no pipeline 'a/b/c'"),
        ("models/mnie", r"no pipeline 'models/mnie'.*\(in models there is no mnie\)"),
        ("models", "the folder models is not a pipeline: it has no model_index.json"),
        ("some/model.safetensors", "no pipeline 'some/model.safetensors'"),
    ],
)
def test_what_is_no_pipeline_is_refused(folder: Path, name: str, says: str) -> None:
    assert folder.is_dir()
    with pytest.raises(ValueError, match=says):
        check_pipeline(name)
    with pytest.raises(ValueError, match=says):
        load_pipeline(name, dtype=None, device="cpu")  # type: ignore[arg-type] # not used


def test_a_repository_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    says = "no pipeline 'user/other' here, and as a hub repository it is not in the cache"
    with pytest.raises(OSError, match=f"{says}.*cannot be reached: Name or service not known"):
        check_pipeline("user/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=f"{says}, and HF_HUB_OFFLINE is set"):
        check_pipeline("user/other")
    check_pipeline("user/name-1.5")


def test_lora_weights_are_found_or_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "lora").mkdir(parents=True)
    for path in ("run/lora", str(tmp_path / "run"), "user/name-1.5"):
        check_lora(path)
    for path in ("run/lroa", "none.safetensors", "no/lora.safetensors", "lora"):
        with pytest.raises(ValueError, match=f"there is no LoRA '{path}': expected a file"):
            check_lora(path)
    with pytest.raises(ValueError, match="model shapes: there is no LoRA 'run/lroa'"):
        check_sources(parse_contestants(["shapes,lora=run/lroa@0.5"]))
    with pytest.raises(OSError, match="model b: there is no pipeline 'user/other' here"):
        check_sources(parse_contestants(["shapes,lora=run/lora", "b=user/other"]))


def test_nothing_of_it_imports_torch() -> None:
    program = (
        "import sys; from stablepref.benchmarks.cli import bench, demo\n"
        "from stablepref.integrations.cli import finetune, select\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("installed", "name"),
    [
        ("0.35.0", "torch_dtype"),
        ("0.39.2", "torch_dtype"),
        ("0.40.0", "dtype"),
        ("0.41.0.dev0", "dtype"),
        ("1.0.0", "dtype"),
    ],
)
def test_the_number_type_is_called_as_the_installed_diffusers_does(
    installed: str, name: str
) -> None:
    assert dtype_argument(installed) == name
