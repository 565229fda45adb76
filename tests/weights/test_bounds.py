"""Files of weights that declare more than they hold, or hold what no weights are."""

import gzip
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stablepref.weights.bounds import (
    LARGEST_PICKLE,
    LARGEST_VOCABULARY,
    check_vocabulary,
    read_json,
)
from stablepref.weights.errors import WeightsError
from stablepref.weights.files import assign_weights, read_weights
from stablepref.weights.torchscript import MOST_PARTS, read_torchscript


def archive(path: Path, members: dict[str, bytes], *, compressed: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            method = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            file.writestr(f"archive/{name}", content, compress_type=method)
    return path


def members_of(content: object) -> dict[str, bytes]:
    """What torch.save writes for it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def test_compressed_numbers_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    members = members_of({"a": torch.zeros(2)}) | {"data/0": b"\0" * 2**27}
    path = archive(tmp_path / "bomb.pt", members, compressed=("data/0",))
    assert path.stat().st_size < 2**20
    with pytest.raises(WeightsError, match=r"declares 134,2.*made to fill the memory"):
        read_weights(path)


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "overlap.pt", members_of({"a": torch.ones(1000)}))
    with zipfile.ZipFile(path, "a") as file:
        whole = file.getinfo("archive/data/0")
        for place in range(50):  # names for the same bytes once more
            again = zipfile.ZipInfo(f"archive/data/{place + 1}")
            again.header_offset = whole.header_offset
            again.CRC = whole.CRC
            again.file_size, again.compress_size = whole.file_size, whole.compress_size
            file.filelist.append(again)
        file._didModify = True
    with pytest.raises(WeightsError, match="declares"):
        read_weights(path)


def test_a_pickle_out_of_proportion_is_not_read(tmp_path: Path) -> None:
    members = members_of({"a": torch.zeros(2)}) | {"data.pkl": b"N" * (LARGEST_PICKLE + 1)}
    with pytest.raises(WeightsError, match=r"data\.pkl .* has 16,777,217 bytes"):
        read_weights(archive(tmp_path / "long.pt", members))


@pytest.mark.parametrize("name", ["builtins bytearray", "torch._utils _rebuild_wrapper_subclass"])
def test_what_makes_memory_out_of_a_number_is_not_called(name: str, tmp_path: Path) -> None:
    module, _, function = name.partition(" ")
    # bytearray(2**40), as protocol 2 writes it
    call = b"\x80\x02c" + f"{module}\n{function}\n".encode() + b"\x8a\x06\0\0\0\0\0\x01\x85R."
    members = members_of({"a": torch.zeros(2)}) | {"data.pkl": call}
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        read_weights(archive(tmp_path / "call.pt", members))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_reads_the_same_numbers_again_is_refused(
    zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "strided.pt"
    state = {"huge": torch.zeros(1).as_strided((2**20, 2**20), (0, 0)), "fine": torch.ones(3)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"holds huge as \(1048576, 1048576\), more numbers"):
        read_weights(path)


def test_views_of_one_storage_are_weights(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    torch.save({"whole": whole, "turned": whole.T, "row": whole[1]}, tmp_path / "views.pt")
    found = read_weights(tmp_path / "views.pt")
    assert torch.equal(found["turned"], whole.T)
    assert torch.equal(found["row"], whole[1])


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_named(
    tensor: torch.Tensor, says: str, tmp_path: Path
) -> None:
    torch.save({"odd.weight": tensor}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=rf"{says}.*plain (tensor|file)"):
        read_weights(tmp_path / "odd.pt")


def test_shared_modules_of_a_torchscript_archive_are_not_unfolded(tmp_path: Path) -> None:
    part: object = {"x": 1.5, "y": 2.5}
    for _ in range(64):  # each holds the one before twice: 2^64 parts
        part = {"a": part, "b": part}
    members = {"data.pkl": pickle.dumps(part, protocol=2), "constants.pkl": b"."}
    with pytest.raises(WeightsError, match=f"more than {MOST_PARTS:,} parts"):
        read_torchscript(archive(tmp_path / "shared.pt", members))


def test_weights_that_are_not_finite_are_named() -> None:
    module = torch.nn.Linear(2, 2)
    for value in (float("nan"), float("inf"), -float("inf")):
        state = {"weight": torch.tensor([[0, 1], [value, 2]]), "bias": torch.zeros(2)}
        with pytest.raises(WeightsError, match=r"not finite.* in: weight"):
            assign_weights(module, state, source="x.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_finite_weights_of_every_type_load(dtype: torch.dtype) -> None:
    module = torch.nn.Linear(2, 2)
    largest = torch.finfo(dtype).max
    state = {"weight": torch.full((2, 2), largest, dtype=dtype), "bias": torch.zeros(2).to(dtype)}
    assign_weights(module, state, source="x.pt")
    assert module.weight.max().item() == largest


def test_integers_in_place_of_weights_are_named() -> None:
    state = {"weight": torch.ones(2, 2, dtype=torch.int64), "bias": torch.zeros(2)}
    with pytest.raises(WeightsError, match="floating point: found: weight is int64"):
        assign_weights(torch.nn.Linear(2, 2), state, source="x.pt")


def test_a_scale_whose_exponential_overflows_is_refused() -> None:
    module = torch.nn.ParameterDict({"logit_scale": torch.tensor(0.0)})
    with pytest.raises(WeightsError, match="logit_scale = 89, whose exponential"):
        assign_weights(module, {"logit_scale": torch.tensor(89.0)}, source="x.pt")
    assign_weights(module, {"logit_scale": torch.tensor(88.0)}, source="x.pt")


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": [1, -Infinity]}', "[" * 100_000])
def test_configurations_hold_finite_numbers(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match="cannot read"):
        read_json(tmp_path / "config.json")


def test_what_never_ends_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        for read in (read_json, read_weights, check_vocabulary):
            with pytest.raises(WeightsError, match="a pipe or a device"):
                read(path)


def test_a_large_configuration_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"a": "b" * 2**20}))
    with pytest.raises(WeightsError, match="expected at most 1,048,576"):
        read_json(path)


def test_a_vocabulary_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(LARGEST_VOCABULARY // 2**20 + 1):
            file.write(b"\0" * 2**20)
    assert path.stat().st_size < 2**20
    with pytest.raises(WeightsError, match="more than 67,108,864 bytes"):
        check_vocabulary(path)


def test_safetensors_that_are_not_finite_are_read_but_not_assigned(tmp_path: Path) -> None:
    save_file({"weight": torch.tensor([float("nan")])}, tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["weight"].isnan().all()
    module = torch.nn.ParameterDict({"weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="not finite"):
        assign_weights(module, read_weights(tmp_path / "a.safetensors"), source="a")
