"""What the command line says of its work with -v and -vv, and without."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commandline import run

from stablepref import zoo


@pytest.fixture(autouse=True)
def _nothing_is_loaded() -> Iterator[None]:
    zoo.load.cache_clear()
    yield
    run("models", "--json")  # sets the level back


@pytest.mark.parametrize(
    ("switches", "starts"),
    [((), None), (("-v",), "loaded "), (("-vv",), "stablepref.zoo: loaded ")],
)
def test_what_is_loaded_is_said_on_request(
    switches: tuple[str, ...], starts: str | None, model: Path, pictures: list[Path]
) -> None:
    done = run(*switches, "score", pictures[0], "-p", "a cat", "-s", model, "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "loaded" in line]
    assert [line.startswith(starts or "") for line in said] == ([] if starts is None else [True])
    if said:
        assert str(model) in said[0]
        assert said[0].endswith("on cpu in float32")


def test_a_smaller_batch_is_said(
    model: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = zoo.load(str(model), dtype="float32")
    encode = type(scorer).encode_inputs

    def small(self: object, inputs: object) -> object:
        if len(inputs) > 2:  # type: ignore[arg-type]
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return encode(self, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(scorer), "encode_inputs", small)
    done = run("-v", "score", *pictures, "-p", "a cat", "-s", model, "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    assert "memory ran out on cpu: 2 images at once from now on" in done.stderr
