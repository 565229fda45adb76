"""`stablepref compare` as a user meets it."""

import json
from pathlib import Path

import pytest
from helpers.commandline import run
from helpers.tiny import tiny_clip


def test_compare(model: Path, pictures: list[Path]) -> None:
    a, b = pictures[:2]
    done = run("compare", a, b, "-p", "a cat", "-s", model, "--json", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = tiny_clip().compare(a, b, "a cat")
    assert found["preferred"] == expected.preferred
    assert found["probability"] == pytest.approx(expected.probability, abs=1e-4)
    assert (found["a"], found["b"]) == (str(a), str(b))
    same = run("compare", a, a, "-p", "a cat", "-s", model)
    assert same.stdout.startswith("tie")
    assert "is preferred: 0.500" in same.stdout


def test_compare_says_why_there_is_no_probability(tmp_path: Path, pictures: list[Path]) -> None:
    tiny_clip(preference_scale=None).save_pretrained(tmp_path / "zero-shot")
    done = run("compare", *pictures[:2], "-p", "a cat", "-s", tmp_path / "zero-shot")
    assert "no probability: tiny was not trained on preferences" in done.stdout
