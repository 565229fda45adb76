"""Names of models and number types, checked without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from stablepref.models.modelnames import check_dtype, check_model, model_name


def test_what_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STABLEPREF_MODEL", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert model_name(None) == "hps-v2.1"
    assert model_name(Path("a/b")) == "a/b"
    assert model_name("~/m") == "/home/me/m"
    monkeypatch.setenv("STABLEPREF_MODEL", "~/mine")
    assert model_name(None) == "/home/me/mine"
    assert model_name("shapes") == "shapes"


def test_what_can_be_loaded_is_let_through(tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    file.touch()
    for name, like in [
        ("hps-v2.1", None),
        ("shapes", None),
        ("hf-hub:a/b", None),
        (str(tmp_path), None),
        (str(file), "hps-v2"),
    ]:
        check_model(name, like)


@pytest.mark.parametrize(
    ("name", "like", "says"),
    [
        ("hsp", None, r"unknown model 'hsp'.*hps-v2\.1.*shapes.*hf-hub:user/repo"),
        ("none.pt", "hps-v2", r"unknown model 'none\.pt'"),
        ("shapes", "hps-v2", "'shapes' is a model's name and no file here: leave like out"),
        (".", "nothing", r"like='nothing' is no model with an official file; known: .*hps-v2\.1"),
        (".", "shapes", "like='shapes' is no model with an official file"),
    ],
)
def test_what_cannot_be_loaded(name: str, like: str | None, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        check_model(name, like)
    assert ("shapes" in str(caught.value).partition("known:")[2]) is False


def test_number_types() -> None:
    assert check_dtype("bfloat16") == "bfloat16"
    with pytest.raises(ValueError, match=r"float32, bfloat16, .* got 'foo'"):
        check_dtype("foo")


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, stablepref.models.modelnames, stablepref.cli.score; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
