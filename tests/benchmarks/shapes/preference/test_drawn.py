"""Groups that a pipeline drew: complete, resumable, and ranked by what the pixels show."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_lab_pipeline import tiny_pipeline
from helpers.typed import refused
from PIL import Image

import stablepref
from stablepref.benchmarks.shapes.people.utility import true_utility
from stablepref.benchmarks.shapes.preference import drawn
from stablepref.benchmarks.shapes.preference.drawn import main, write_drawn
from stablepref.benchmarks.shapes.world.drawing import render
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import split_of


class Drawer:
    """In place of a pipeline: draws prompts, every third picture for the prompt before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.components: dict[str, object] = {}
        self.asked: list[str] = []
        monkeypatch.setattr(drawn, "pipeline_digests", lambda _: {"drawer": "1"})

    def set_progress_bar_config(self, *, disable: bool) -> None:
        assert disable

    def __call__(self, prompts: list[str], **options: object) -> object:
        assert options["num_inference_steps"] == 2
        noises = options["generator"]
        assert isinstance(noises, list)
        images = []
        for prompt, noise in zip(prompts, noises, strict=True):
            seed = noise.initial_seed()
            scene = parse("a red circle" if seed % 3 == 0 else prompt)
            images.append(Image.fromarray(render(scene, seed=seed % 2**32)))
        self.asked += prompts
        return type("Output", (), {"images": images})


def test_people_rank_what_the_pixels_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Drawer(monkeypatch)
    path = write_drawn(tmp_path, pipe, 8, size=4, steps=2, batch_size=5, progress=False)  # type: ignore[arg-type] # a double
    groups = list(stablepref.read_groups(path))
    assert len({group.prompt for group in groups}) == 8
    assert len(pipe.asked) == 32
    right = []
    for group in groups:
        assert split_of(parse(group.prompt)) == "train"
        assert group.annotations is not None
        assert len(group.annotations) == 10
        utilities = np.array(group.metadata["utilities"])
        flawless = np.array([not each for each in group.metadata["mistakes"]])
        assert np.array_equal(utilities == true_utility(np.zeros(14)), flawless)
        right.append(flawless.mean())
        # Ten people's mean has little noise: the best is among the first.
        assert group.ranks[int(utilities.argmax())] <= 3
    assert 0.4 < np.mean(right) < 0.95  # the others were drawn for another prompt


def test_what_is_there_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Drawer(monkeypatch)
    options = {"size": 3, "steps": 2, "progress": False}
    first = write_drawn(tmp_path, pipe, 2, **options).read_text()  # type: ignore[arg-type] # a double
    lost = sorted((tmp_path / "images").iterdir())[4]
    kept = lost.read_bytes()
    lost.unlink()
    pipe.asked.clear()
    longer = write_drawn(tmp_path, pipe, 3, **options).read_text()  # type: ignore[arg-type]
    assert len(pipe.asked) == 1 + 3
    assert lost.read_bytes() == kept
    assert longer.startswith(first)
    assert json.loads(longer.splitlines()[2])["prompt"]
    with monkeypatch.context() as patch:
        patch.setattr(drawn, "read_picture", None)  # no picture is looked at again
        assert write_drawn(tmp_path, pipe, 3, **options).read_text() == longer  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="made with other settings"):
        write_drawn(tmp_path, pipe, 2, size=3, steps=2, seed=1, progress=False)  # type: ignore[arg-type]


def test_the_command_draws_with_a_pipeline(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    tiny_pipeline().save_pretrained(folder)
    out = tmp_path / "drawn"
    main(out=out, groups=2, size=2, steps=2, pipeline=folder)
    (first, second) = stablepref.read_groups(out / "train.jsonl")
    assert len(first.images) == len(second.images) == 2
    said = refused(main, "--out", out, "--steps", 3, "--pipeline", folder)
    assert "made with other settings" in said
