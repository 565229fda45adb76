"""Best of n: which candidates win, what is kept of the others, and going on after a kill."""

import gc
import json
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from helpers.brightness import Brightness
from helpers.killed import Killed
from helpers.tiny import tiny_clip
from helpers.tiny_pipelines import build
from PIL import Image

from stablepref.integrations.best_of_n import candidates
from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.output.locks import InUseError, sole_writer
from stablepref.output.partial import ResumeError

PROMPT = "a red circle"
Built = tuple[DiffusionPipeline, dict[str, object]]


@pytest.fixture(scope="module")
def sd() -> Built:
    return build("sd")


def brightness(pipe: DiffusionPipeline, seed: int, prompt: str, **arguments: object) -> float:
    """Of the picture that the pipeline itself makes, after Brightness's resize to 8 pixels."""
    generator = torch.Generator().manual_seed(seed)
    image = pipe(prompt, generator=generator, **arguments).images[0]
    small = image.resize((8, 8), Image.Resampling.BICUBIC)
    return float(np.asarray(small).mean() / 255)


@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_the_brightest_wins(kind: str) -> None:
    pipe, arguments = build(kind)
    selection = best_of_n(pipe, PROMPT, Brightness(), 7, keep=3, batch_size=3, seed=40, **arguments)
    expected = [brightness(pipe, 40 + i, PROMPT, **arguments) for i in range(7)]
    np.testing.assert_allclose(selection.scores, expected, atol=0.005)
    order = np.argsort(-np.array(selection.scores), kind="stable")
    assert list(selection.kept) == order[:3].tolist()
    assert selection.seeds == list(range(40, 47))
    assert selection.seed == 40 + order[0]
    assert len(selection.images) == 3
    best = best_of_n(pipe, PROMPT, Brightness(), n=1, seed=selection.seed, **arguments)
    gap = np.abs(np.asarray(best.image).astype(int) - np.asarray(selection.image))
    assert gap.max() <= 1
    assert (best.margin, best.spread, best.tie) == (None, None, False)


@pytest.mark.parametrize("views", [0, 3])
def test_margin_and_tie_are_those_of_compare(sd: Built, views: int) -> None:
    pipe, arguments = sd
    scorer = tiny_clip()
    selection = best_of_n(pipe, PROMPT, scorer, 4, keep=2, views=views, **arguments)
    choice = scorer.compare(*selection.images, PROMPT, views=views)
    assert (selection.margin, selection.spread) == (choice.margin, choice.spread)
    assert selection.tie == (abs(choice.margin) <= choice.spread)
    ranked = sorted(selection.scores, reverse=True)
    assert selection.margin == pytest.approx(ranked[0] - ranked[1], abs=1e-4)
    assert (selection.model, selection.unit) == (scorer.name, scorer.unit)


def test_memory_does_not_grow_with_n(sd: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, arguments = sd
    made: list[weakref.ref[Image.Image]] = []
    most = 0
    call = candidates._call

    def watched(*args: object) -> object:
        nonlocal most
        gc.collect()
        most = max(most, sum(image() is not None for image in made))
        images = call(*args)  # type: ignore[arg-type] # handed on
        made.extend(weakref.ref(image) for image, _ in images)
        return images

    monkeypatch.setattr(candidates, "_call", watched)
    gc.freeze()  # what was there before is not looked through at each batch
    try:
        selection = best_of_n(pipe, PROMPT, Brightness(), 10, keep=2, batch_size=2, **arguments)
    finally:
        gc.unfreeze()
    assert len(selection.scores) == 10
    assert most <= 2 + 2  # those kept, and the batch before


def test_a_folder_that_another_writes_to_is_refused_before_anything_is_made(
    sd: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, arguments = sd
    with monkeypatch.context() as patch, sole_writer(tmp_path, folder=True):
        patch.setattr(candidates, "_call", None)
        for prompt in (PROMPT, [PROMPT, "a dog"]):
            with pytest.raises(InUseError, match="is being written by another process"):
                best_of_n(pipe, prompt, Brightness(), 3, out=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_several_prompts(sd: Built, tmp_path: Path) -> None:
    pipe, arguments = sd
    prompts = ["a red circle", "a dog"]
    both = best_of_n(pipe, prompts, Brightness(), 3, out=tmp_path, **arguments)
    for i, (prompt, selection) in enumerate(zip(prompts, both, strict=True)):
        single = best_of_n(pipe, prompt, Brightness(), 3, **arguments)
        assert selection.prompt == prompt
        assert selection.scores == pytest.approx(single.scores, abs=1e-6)
        assert selection.kept == single.kept
        assert (tmp_path / f"{i:03d}" / "selection.json").is_file()
    assert both[0].scores != both[1].scores


def test_out_holds_all_candidates_and_what_there_is_to_see(sd: Built, tmp_path: Path) -> None:
    pipe, arguments = sd
    out = tmp_path / "new" / "folder"
    selection = best_of_n(pipe, PROMPT, Brightness(), 5, keep=2, out=out, seed=3, **arguments)
    pictures = sorted(path.name for path in (out / "candidates").iterdir())
    assert pictures == [f"{i:05d}-seed-{3 + i}.png" for i in range(5)]
    stored = Brightness().score([out / "candidates" / name for name in pictures], PROMPT)
    assert selection.scores == pytest.approx(stored.tolist(), abs=1e-6)
    names = {path.name for path in out.iterdir()}
    best = {f"best-0{p}-seed-{selection.seeds[i]}.png" for p, i in enumerate(selection.kept, 1)}
    files = {"candidates", "candidates.jsonl", "candidates.html", "candidates.png"}
    assert names == best | files | {"selection.json"}
    row = json.loads((out / "selection.json").read_text())
    assert [c["score"] for c in row["candidates"]] == selection.scores
    assert [c["seed"] for c in row["kept"]] == [selection.seeds[i] for i in selection.kept]
    assert row["margin"] == selection.margin
    page = (out / "candidates.html").read_text()
    places = [page.index(f"seed {selection.seeds[i]}<") for i in np.argsort(selection.scores)[::-1]]
    assert places == sorted(places)


def kill_after(monkeypatch: pytest.MonkeyPatch, calls: int | None) -> list[list[int]]:
    """Let the pipeline be called so often; the list gets the seeds of each call."""
    seeds: list[list[int]] = []
    call = candidates._call

    def counted(
        pipe: object, prompts: list[str], generators: list[torch.Generator], arguments: object
    ) -> object:
        if calls is not None and len(seeds) == calls:
            raise Killed
        seeds.append([generator.initial_seed() for generator in generators])
        return call(pipe, prompts, generators, arguments)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(candidates, "_call", counted)
    return seeds


def test_a_killed_run_goes_on(sd: Built, tmp_path: Path) -> None:
    pipe, arguments = sd
    whole = best_of_n(pipe, PROMPT, Brightness(), 7, keep=2, batch_size=2, **arguments)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(Killed):
            best_of_n(pipe, PROMPT, Brightness(), 7, out=tmp_path, batch_size=2, **arguments)
    rows = tmp_path / "candidates.jsonl"
    with rows.open("a") as file:
        file.write('{"index": 4, "se')  # killed while it wrote
    with pytest.MonkeyPatch.context() as patch:
        seeds = kill_after(patch, None)
        selection = best_of_n(
            pipe, PROMPT, Brightness(), 7, keep=2, out=tmp_path, batch_size=2, **arguments
        )
    assert seeds == [[4, 5], [6]]
    assert selection.scores == pytest.approx(whole.scores, abs=0.005)
    assert selection.kept == whole.kept
    # Nothing is made again; more candidates are added to those that are there.
    with pytest.MonkeyPatch.context() as patch:
        seeds = kill_after(patch, None)
        again = best_of_n(pipe, PROMPT, Brightness(), 7, out=tmp_path, **arguments)
        assert seeds == []
        assert again.scores == selection.scores
        more = best_of_n(pipe, PROMPT, Brightness(), 9, out=tmp_path, **arguments)
        assert seeds == [[7, 8]]
        assert more.scores[:7] == selection.scores
        few = best_of_n(pipe, PROMPT, Brightness(), 3, out=tmp_path, **arguments)
        assert few.scores == selection.scores[:3]
    # A picture that is gone is made again.
    (tmp_path / "candidates" / "00001-seed-1.png").unlink()
    with pytest.MonkeyPatch.context() as patch:
        seeds = kill_after(patch, None)
        assert best_of_n(pipe, PROMPT, Brightness(), 9, out=tmp_path, **arguments).kept == more.kept
        assert seeds == [[1]]


def test_a_folder_of_other_settings_is_refused(sd: Built, tmp_path: Path) -> None:
    pipe, arguments = sd
    best_of_n(pipe, PROMPT, Brightness(), 1, out=tmp_path, **arguments)
    changes: list[dict[str, object]] = [{"seed": 1}, {"views": 1}, {"guidance_scale": 2.0}]
    for change in changes:
        with pytest.raises(ResumeError):
            best_of_n(pipe, PROMPT, Brightness(), 1, out=tmp_path, **{**arguments, **change})
    with pytest.raises(ResumeError, match="a dog"):
        best_of_n(pipe, "a dog", Brightness(), 1, out=tmp_path, **arguments)
    with pytest.raises(ResumeError):  # other weights under the same name
        best_of_n(pipe, PROMPT, Brightness(2.0), 1, out=tmp_path, **arguments)
    with pytest.raises(ResumeError, match="other"):
        best_of_n(pipe, PROMPT, Brightness(name="other"), 1, out=tmp_path, **arguments)
    bias = pipe.unet.conv_out.bias
    with torch.no_grad():
        bias.add_(0.125)
    try:
        with pytest.raises(ResumeError):
            best_of_n(pipe, PROMPT, Brightness(), 1, out=tmp_path, **arguments)
    finally:
        with torch.no_grad():
            bias.sub_(0.125)


def test_blanked_candidates_are_left_out_and_told(
    sd: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, arguments = sd

    def flag_first(images: torch.Tensor, *_: object) -> tuple[torch.Tensor, list[bool]]:
        images[0] = 0
        return images, [i == 0 for i in range(len(images))]

    monkeypatch.setattr(pipe, "run_safety_checker", flag_first)
    dark = Brightness(-1.0)  # the blackest would win
    with pytest.warns(UserWarning, match="2 of 4 candidates .* left out.* safety checker"):
        selection = best_of_n(
            pipe, PROMPT, dark, 4, keep=2, batch_size=2, out=tmp_path, **arguments
        )
    assert set(selection.kept) == {1, 3}
    assert [math.isnan(score) for score in selection.scores] == [True, False, True, False]
    assert "Not scored: 2" in (tmp_path / "candidates.html").read_text()
    with pytest.raises(ValueError, match=r"none of the 2 candidates.*safety checker"):
        best_of_n(pipe, PROMPT, dark, 2, batch_size=1, **arguments)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"n": 0}, ValueError, "n must be 1 or more, got 0"),
        ({"keep": 0}, ValueError, r"keep must be from 1 to n \(2\), got 0"),
        ({"keep": 3}, ValueError, r"keep must be from 1 to n \(2\), got 3"),
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more"),
        ({"views": -1}, ValueError, "views must be 0 or more"),
        ({"prompt": ""}, ValueError, "prompt 0 is empty"),
        ({"prompt": []}, ValueError, "list of prompts is empty"),
        ({"prompt": 5}, TypeError, "prompts must be"),
        ({"pipe": "sd"}, ValueError, "there is no pipeline 'sd'"),
        ({"pipe": 5}, TypeError, "pipe is a int"),
        ({"prune": {0.5: 0.5}, "batch_size": 1}, ValueError, "batch_size is 1: make it larger"),
        ({"steps": 4}, ValueError, "no argument 'steps'"),
        ({"scorer": "no-such-model"}, ValueError, "unknown model"),
    ],
)
def test_wrong_use(sd: Built, change: dict[str, object], error: type[Exception], says: str) -> None:
    pipe, arguments = sd
    call = {"pipe": pipe, "prompt": PROMPT, "scorer": Brightness(), "n": 2, **arguments}
    with pytest.raises(error, match=says):
        best_of_n(**{**call, **change})  # type: ignore[call-overload] # wrong ones


def test_noise_that_cannot_be_seeded_is_refused() -> None:
    pipe, arguments = build("sd3")
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    with pytest.raises(ValueError, match="no candidate could be made again"):
        best_of_n(pipe, PROMPT, Brightness(), 2, **arguments)


def test_fewer_candidates_leave_no_best_ones_behind(sd: Built, tmp_path: Path) -> None:
    pipe, arguments = sd
    for n in (1, 6):
        selection = best_of_n(pipe, PROMPT, Brightness(), n, seed=3, out=tmp_path, **arguments)
        (best,) = tmp_path.glob("best-*.png")
        assert best.name == f"best-01-seed-{selection.seed}.png"
    assert selection.seed != 3  # so that another one was there before


def test_a_folder_of_another_schedulers_settings_is_refused(sd: Built, tmp_path: Path) -> None:
    pipe, arguments = sd
    best_of_n(pipe, PROMPT, Brightness(), 1, out=tmp_path, **arguments)
    changed, _ = build("sd")
    changed.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    with pytest.raises(ResumeError, match="scheduler"):
        best_of_n(changed, PROMPT, Brightness(), 2, out=tmp_path, **arguments)


def test_what_select_takes_is_taken_by_name_too(sd: Built, tmp_path: Path) -> None:
    pipe, arguments = sd
    pipe.save_pretrained(tmp_path / "pipe")
    loaded = best_of_n(pipe, PROMPT, Brightness(), 2, **arguments)
    for name in (tmp_path / "pipe", str(tmp_path / "pipe")):
        by_name = best_of_n(name, PROMPT, Brightness(), 2, **arguments)
        np.testing.assert_allclose(by_name.scores, loaded.scores, atol=1e-5)
    with pytest.raises(ValueError, match="no pipeline 'shape': expected shapes"):
        best_of_n("shape", PROMPT, "no-such-scorer")
