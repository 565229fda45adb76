"""Official files: found, verified once, and refused when they are not what they should be."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from stablepref.models.catalog import BY_NAME, RemoteFile
from stablepref.weights import hub as download
from stablepref.weights.folder import WeightsError
from stablepref.weights.hub import UnavailableError, cache_folder, cached, fetch, is_cached, verify

ENTRY = BY_NAME["laion-aesthetic-v1"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLEPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> RemoteFile:
    """A file on a 'server' that is a folder."""
    served = tmp_path / "served.bin"
    served.write_bytes(b"weights")
    return RemoteFile(
        "weights.bin",
        url=served.as_uri(),
        size=7,
        sha256=hashlib.sha256(b"weights").hexdigest(),
    )


def test_a_file_is_downloaded_once_and_verified(file: RemoteFile, tmp_path: Path) -> None:
    entry = dataclasses.replace(ENTRY, files=(file,))
    assert not is_cached(entry)
    path = fetch(entry, file)
    assert path.read_bytes() == b"weights"
    assert cached(file) == path
    assert is_cached(entry)
    (tmp_path / "served.bin").unlink()
    assert fetch(entry, file) == path


def test_a_wrong_checksum_is_refused(file: RemoteFile) -> None:
    wrong = dataclasses.replace(file, sha256="0" * 64)
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(dataclasses.replace(ENTRY, files=(wrong,)), wrong)


def test_a_truncated_file_is_refused(file: RemoteFile) -> None:
    longer = dataclasses.replace(file, size=8)
    with pytest.raises(WeightsError, match=r"7 bytes, the official file has 8.*truncated"):
        fetch(dataclasses.replace(ENTRY, files=(longer,)), longer)


def test_a_changed_file_is_verified_again(file: RemoteFile) -> None:
    path = fetch(dataclasses.replace(ENTRY, files=(file,)), file)
    path.write_bytes(b"weighty")
    with pytest.raises(WeightsError, match="SHA-256"):
        verify(path, size=7, sha256=file.sha256)


def test_a_checksum_is_computed_once(file: RemoteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(ENTRY, files=(file,))
    fetch(entry, file)
    monkeypatch.setattr(download.hashlib, "file_digest", None)
    fetch(entry, file)


def test_the_hubs_own_checksum_is_used(tmp_path: Path) -> None:
    """The hub's cache names a large file by its SHA-256 and links to it."""
    blob = tmp_path / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert download._hub_checksum(link) == blob.name
    verify(link, size=None, sha256=download._hub_checksum(link))
    blob.write_bytes(b"WEIGHTS")
    with pytest.raises(WeightsError, match="SHA-256"):
        verify(link, size=None, sha256=download._hub_checksum(link))


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    file = RemoteFile("x.bin", url=(tmp_path / "none.bin").as_uri())
    with pytest.raises(UnavailableError, match=r"cannot download x\.bin of laion-aesthetic-v1"):
        fetch(dataclasses.replace(ENTRY, files=(file,)), file)
    assert not (cache_folder() / "x.bin").exists()


def test_a_file_that_is_nowhere_to_be_downloaded() -> None:
    entry = BY_NAME["hps-v1"]
    with pytest.raises(UnavailableError, match=r"align_sd.*like='hps-v1'"):
        fetch(entry, entry.files[0])
