"""Checkpoint files that are not what they should be."""

import io
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stablepref.weights.errors import WeightsError
from stablepref.weights.files import read_weights

STATE = {f"layer{i}.weight": torch.full((10, 10), float(i)) for i in range(20)}


def saved(content: object, **settings: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_weights_are_found_in_each_layout(zipped: bool, wrap: str | None, tmp_path: Path) -> None:
    content: object = {f"module.{name}": tensor for name, tensor in STATE.items()}
    if wrap is not None:
        content = {"epoch": 3, wrap: content}
    path = tmp_path / "weights.pt"
    path.write_bytes(saved(content, _use_new_zipfile_serialization=zipped))
    found = read_weights(path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_anywhere_is_refused(zipped: bool, tmp_path: Path) -> None:
    whole = saved(STATE, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "weights.pt"
    for cut in [*range(64), *range(64, len(whole), 97), *range(len(whole) - 64, len(whole))]:
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match=re.escape(str(path))) as caught:
            read_weights(path)
        assert "truncated" in str(caught.value)


def test_a_safetensors_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(STATE, path)
    whole = path.read_bytes()
    for cut in [*range(16), *range(16, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match="truncated"):
            read_weights(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (torch.zeros(3), "holds one Tensor"),
        ([torch.zeros(3)], "holds one list"),
        ({"a": torch.zeros(3), "b": None}, "holds NoneType under 'b'"),
        ({0: torch.zeros(3)}, "holds Tensor under 0"),
        ({"epoch": 3, "net": {"a": torch.zeros(3)}}, "holds int under 'epoch'"),
    ],
)
def test_what_is_no_state_dict_is_told(content: object, says: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(saved(content))
    with pytest.raises(WeightsError, match=f"{says}, expected a dict of named tensors"):
        read_weights(path)


def test_objects_that_would_run_code_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(saved({"a": torch.zeros(3), "folder": Path("x")}))
    with pytest.raises(WeightsError, match=r"objects \(pathlib\S*\) whose loading would run code"):
        read_weights(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(WeightsError, match=name):
            read_weights(tmp_path / name)
    with pytest.raises(WeightsError, match="cannot read"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:"
            + "a" * 64
            + "\nsize 3944692325\n",
            "is a pointer of Git LFS of a file of 3,944,692,325 bytes.*git lfs pull",
        ),
        ('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "is JSON text"),
        ('\ufeff\n [1, "\u00e9\u00e9"]', "is JSON text"),
        ("<!DOCTYPE html><html><head><title>Sign in</title>", "is a web page"),
        ("\n<html>not found</html>", "is a web page"),
    ],
)
def test_a_text_in_the_place_of_weights_is_named(
    name: str, text: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=f"{re.escape(str(path))} {says}"):
        read_weights(path)


def test_a_header_that_looks_like_a_bracket_is_still_weights(tmp_path: Path) -> None:
    # The first byte of a safetensors file is the low byte of its header's length: 123 is "{".
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(123)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    assert path.read_bytes().startswith(b"{")
    assert read_weights(path)["a"].tolist() == [0]
