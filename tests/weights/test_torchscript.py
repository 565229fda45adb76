"""TorchScript archives read as data, beside what `torch.jit.load` makes of them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stablepref import zoo
from stablepref.benchmarks.parity import layouts
from stablepref.benchmarks.parity.weights import seeded_state
from stablepref.models.catalog import BY_NAME
from stablepref.models.registry import SCORERS
from stablepref.weights.errors import WeightsError
from stablepref.weights.files import read_weights
from stablepref.weights.torchscript import is_torchscript, read_torchscript

WIDTH = 64


class Inner(nn.Module):
    """Attributes of many kinds beside its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("empty", torch.zeros(0, 4))
        self.small = nn.Linear(4, 4).half()
        self.sizes = [1, 2]
        self.names = {"a": 1.5}
        self.pair = (1, "x")

    def forward(self, x: Tensor) -> Tensor:
        """Attributes that no method uses would not be saved."""
        return x @ self.weight.T * self.sizes[0] * self.names["a"] * self.pair[0]


class Outer(nn.Module):
    """Blocks, a view of a larger storage, and a weight with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Inner(), Inner())
        self.view = nn.Parameter(torch.randn(6, 4)[1::2].t())
        self.tied = self.blocks[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """Anything."""
        return self.blocks[0](x) + self.view.sum()


class Stateful(nn.Module):
    """Runs code of its own when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> bool:
        """Nothing worth keeping."""
        return self.training

    @torch.jit.export
    def __setstate__(self, state: bool) -> None:
        """What an archive from a stranger might do."""
        self.training = state
        assert not state, "code of the archive ran"


def save(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against new archives
        torch.jit.script(module).save(str(path))
    return path


def jit_load(path: Path) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(path)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save(Outer(), tmp_path / "outer.pt")


def rewrite(archive: Path, target: Path, changed: dict[str, bytes]) -> Path:
    """A copy of an archive with other contents of some files."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name.partition("/")[2], old.read(name)))
    return target


def test_tensors_are_those_of_torch_jit_load(archive: Path) -> None:
    expected = jit_load(archive).state_dict()
    found = read_weights(archive)
    assert found.keys() == expected.keys()
    assert "blocks.1.small.weight" in found
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
        assert tensor.dtype == expected[name].dtype
        assert tensor.stride() == expected[name].stride()
    assert found["tied"].data_ptr() == found["blocks.0.weight"].data_ptr()


def test_a_traced_module_on_another_device_type(tmp_path: Path) -> None:
    """An archive from a GPU names it for each storage; here all are read to the CPU."""
    layer = nn.Linear(3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(layer, torch.zeros(1, 3)).save(str(tmp_path / "traced.pt"))
    with zipfile.ZipFile(tmp_path / "traced.pt") as archive:
        data = archive.read("traced/data.pkl")
    cpu, gpu = b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0"
    assert data.count(cpu) == 1
    path = rewrite(
        tmp_path / "traced.pt", tmp_path / "gpu.pt", {"data.pkl": data.replace(cpu, gpu)}
    )
    found = read_torchscript(path)
    assert torch.equal(found["weight"], layer.weight)
    assert torch.equal(found["bias"], layer.bias)


def test_checkpoints_of_torch_save_are_no_archives(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "zip.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert not is_torchscript(tmp_path / "zip.pt")
    assert not is_torchscript(tmp_path / "old.pt")
    assert not is_torchscript(tmp_path / "none.pt")


def test_code_of_the_archive_does_not_run(tmp_path: Path) -> None:
    path = save(Stateful(), tmp_path / "stateful.pt")
    with zipfile.ZipFile(path) as archive:
        data = archive.read("stateful/data.pkl")
    assert data.count(b"\x89b") == 1  # the state False, then the opcode that hands it over
    path = rewrite(path, tmp_path / "evil.pt", {"data.pkl": data.replace(b"\x89b", b"\x88b")})
    with pytest.raises(torch.jit.Error, match="code of the archive ran"):
        jit_load(path)
    assert read_torchscript(path) == {}


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """What to call, with what."""
        return Path.mkdir, (self.folder,)  # type: ignore[return-value]


def test_functions_that_the_pickle_names_are_not_called(archive: Path, tmp_path: Path) -> None:
    for protocol in range(6):
        data = pickle.dumps({"a": Evil(tmp_path / "made")}, protocol=protocol)
        path = rewrite(archive, tmp_path / f"evil{protocol}.pt", {"data.pkl": data})
        with pytest.raises(WeightsError, match="which no archive of"):
            read_weights(path)
        assert not (tmp_path / "made").exists()
        pickle.loads(data)
        assert (tmp_path / "made").is_dir()  # the pickle was a real one
        (tmp_path / "made").rmdir()


def test_a_pickle_that_would_fill_the_memory_is_refused(archive: Path, tmp_path: Path) -> None:
    """Python's own unpickler would make room for two billion objects before it looks on."""
    far = b"\x80\x02}r" + (2**31 - 1).to_bytes(4, "little") + b"."
    path = rewrite(archive, tmp_path / "far.pt", {"data.pkl": far})
    with pytest.raises(WeightsError, match="has the opcode LONG_BINPUT 2147483647, which no"):
        read_torchscript(path)


def test_damaged_archives(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as whole:
        data = whole.read("outer/data.pkl")
    for changed, says in [
        ({"data/0": b"1234567"}, "damaged"),
        ({"data.pkl": b""}, "damaged"),
        ({"data.pkl": data[:-30]}, "damaged"),
        ({"byteorder": b"big"}, "byte order is b'big'"),
        ({"data.pkl": data.replace(b"FloatStorage", b"FloatStorag3")}, "FloatStorag3"),
    ]:
        path = rewrite(archive, tmp_path / "damaged.pt", changed)
        with pytest.raises(WeightsError, match=says):
            read_weights(path)
    content = archive.read_bytes()
    for cut in (100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pt").write_bytes(content[:cut])
        with pytest.raises(WeightsError, match="truncated"):
            read_weights(tmp_path / "cut.pt")


def test_any_damage_is_one_kind_of_error(archive: Path, tmp_path: Path) -> None:
    """Random bytes of the pickle are changed: it is read, or refused."""
    with zipfile.ZipFile(archive) as whole:
        data = whole.read("outer/data.pkl")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            changed[place] = rng.integers(0, 256)
        path = rewrite(archive, tmp_path / "changed.pt", {"data.pkl": bytes(changed)})
        try:
            read_torchscript(path)
        except WeightsError:
            refused += 1
    assert 0 < refused < 300


class Holder(nn.Module):
    """A module for each part of dotted names, as TorchScript needs."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        inner: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if rest:
                inner.setdefault(first, {})[rest] = tensor
            else:
                self.register_buffer(first, tensor)
        for first, part in inner.items():
            self.add_module(first, Holder(part))


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Weights under OpenAI's names, of a narrow model that the zoo now expects in their place."""
    sizes = copy.deepcopy(BY_NAME["clip-vit-l-14"].sizes)
    for tower in (sizes["vision_cfg"], sizes["text_cfg"]):
        tower.update(width=WIDTH, layers=2)
    sizes["text_cfg"]["heads"] = 1
    for name in ("clip-vit-l-14", "laion-aesthetic-v2"):
        entry = dataclasses.replace(BY_NAME[name], sizes=sizes)
        monkeypatch.setitem(SCORERS.builtin, name, entry)
    layout = layouts.clip(
        vision_width=WIDTH, text_width=WIDTH, embed_dim=768, vision_blocks=2, text_blocks=2
    )
    return seeded_state(layout, seed="OpenAI")


@pytest.fixture
def file(official: dict[str, Tensor], tmp_path: Path) -> Path:
    """Those weights as OpenAI publishes them: matrices in half precision, and sizes as buffers."""
    sizes = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    state = {name: torch.tensor(size) for name, size in sizes.items()}
    state |= {name: x.half() if x.ndim > 1 else x for name, x in official.items()}
    return save(Holder(state), tmp_path / "ViT-L-14.pt")


def test_openais_own_file_is_known_by_its_name(official: dict[str, Tensor], file: Path) -> None:
    scorer = zoo.load(file, dtype="float32")
    assert scorer.name == "clip-vit-l-14"
    loaded = scorer.state_dict()
    assert loaded.keys() == {f"model.{name}" for name in official}
    for name, tensor in official.items():
        expected = tensor.half().float() if tensor.ndim > 1 else tensor
        assert torch.equal(loaded[f"model.{name}"].cpu(), expected), name


def test_an_aesthetic_head_finds_openais_file_beside_it(file: Path, tmp_path: Path) -> None:
    head = tmp_path / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(seeded_state(layouts.aesthetic_v2(), seed="head"), head)
    scorer, clip = zoo.load(head), zoo.load(file)
    assert scorer.name == "laion-aesthetic-v2"
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = clip.encode_images(pixels.to(clip.device))
        assert torch.equal(scorer.encode_images(pixels.to(scorer.device)), expected)
