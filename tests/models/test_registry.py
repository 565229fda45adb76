"""Scorers by name: what a name may be, checked without torch, and scorers from outside."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.brightness import Brightness
from helpers.commandline import run
from helpers.forked import Command, command
from helpers.plugin import install_plugin
from PIL import Image

import stablepref
from stablepref.benchmarks.bench.judges import load_judges
from stablepref.models.catalog import ENTRIES
from stablepref.models.clip import CLIPScorer
from stablepref.models.entry import Entry
from stablepref.models.registry import SCORERS, check_dtype, check_model, model_name
from stablepref.scorer import Scorer
from stablepref.weights.remote import RemoteFile


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
        "import sys, stablepref.models.registry, stablepref.cli.score; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


OUTSIDE = '''
"""A package with two scorers: a function, and a class of its own whose folders load again."""

import torch
from PIL import Image

import stablepref
from stablepref.models.entry import Entry
from stablepref.preprocess.preprocess import Preprocess
from stablepref.scorer import Scorer


class Warmth(Scorer):
    kind = "warmth"

    def __init__(self, name):
        super().__init__(
            name=name,
            unit="warmth",
            preprocess=Preprocess("clip", 8, mean=(0, 0, 0), std=(1, 1, 1)),
            preference_scale=None,
        )
        self.red = torch.nn.Parameter(torch.ones(1))

    def encode_inputs(self, inputs):
        return inputs[:, 0].mean(dim=(1, 2))

    def encode_prompts(self, prompts):
        return torch.zeros(len(prompts))

    def match(self, image_features, prompt_features):
        return self.red * image_features + 0 * prompt_features

    def config(self):
        return {"scorer": self.kind, "name": self.name}

    @classmethod
    def from_config(cls, config, folder):
        return cls(config["name"])

    def save_files(self, folder):
        pass


def build_warmth(entry, files):
    return Warmth(entry.name)


WARMTH = Entry(
    "warmth", "from_outside:build_warmth", backbone="one weight", unit="warmth", licence="MIT"
)


def build_levels(entry, files):
    def levels(images, prompts):
        return [image.getpixel((0, 0))[0] for image in images]

    return stablepref.FunctionScorer(levels, name=entry.name, unit="levels")


def build_nothing(entry, files):
    return 3
'''
GROUP = {
    "stablepref.scorers": {
        "warmth": "WARMTH",
        "levels": "build_levels",
        "broken": "not_there",
        "nothing": "build_nothing",
    }
}


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package from outside, installed; a folder for files."""
    (tmp_path / "site").mkdir()
    install_plugin(tmp_path / "site", monkeypatch, OUTSIDE, GROUP)
    stablepref.load.cache_clear()
    yield tmp_path
    stablepref.load.cache_clear()


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (9, 9), (level, level, level))


def test_an_installed_scorer_is_used_by_name(outside: Path) -> None:
    assert {"warmth", "levels"} < set(SCORERS)
    scores = stablepref.score([grey(51), grey(255)], "a", model="warmth", dtype="float32")
    assert scores.tolist() == pytest.approx([0.2, 1.0])
    assert stablepref.load("levels") is stablepref.load("levels")
    ranked = stablepref.rank([grey(10), grey(20)], "a", model="levels")
    assert [item.score for item in ranked] == [20, 10]


@contextmanager
def ended(outside: Path, *arguments: object) -> Iterator[Command]:
    """A command that has ended well in another process, in which the package is installed."""
    with command(*arguments, modules=outside / "site") as process:
        process.wait(300)
        assert process.returncode == 0, process.stderr()
        yield process


def printed(outside: Path, *arguments: object) -> list[dict[str, Any]]:
    """What such a command prints as JSON."""
    with ended(outside, *arguments, "--json") as process:
        rows: list[dict[str, Any]] = json.loads(process.stdout())
    return rows


def test_a_folder_of_an_installed_class_loads_again(outside: Path) -> None:
    stablepref.load("warmth", dtype="float32").save_pretrained(outside / "saved")
    grey(51).save(outside / "51.png")
    rows = printed(outside, "rank", outside / "51.png", "-p", "a", "-s", outside / "saved")
    assert [row["score"] for row in rows] == pytest.approx([0.2])


def test_the_command_line_of_another_process_knows_an_installed_scorer(outside: Path) -> None:
    for level in (10, 30, 20):
        grey(level).save(outside / f"{level}.png")
    pictures = [outside / f"{level}.png" for level in (10, 30, 20)]
    ranked = printed(outside, "rank", *pictures, "-p", "a", "--scorer", "levels")
    assert [row["score"] for row in ranked] == [30, 20, 10]
    with ended(outside, "models", "--json") as process:
        listed, stderr = json.loads(process.stdout()), process.stderr()
    rows = {row["name"]: row for row in listed}
    assert rows["warmth"]["backbone"] == "one weight"
    assert rows["levels"]["builder"] == "from_outside:build_levels"
    assert rows["levels"]["here"]
    assert "broken" not in rows
    assert "not listed: the scorer 'broken' of the package from_outside" in stderr
    with ended(outside, "models") as process:
        assert "levels" in process.stdout()


def test_a_broken_package_is_named(outside: Path) -> None:
    with pytest.raises(ImportError, match="scorer 'broken' of the package from_outside"):
        stablepref.load("broken")
    with pytest.raises(TypeError, match="builder of the scorer 'nothing' returned a int"):
        stablepref.load("nothing")


@pytest.fixture
def registered() -> Iterator[str]:
    """A name that is free again after the test."""
    stablepref.load.cache_clear()
    yield "mine"
    SCORERS.unregister("mine")
    stablepref.load.cache_clear()


def widths(entry: Entry, files: Sequence[Path]) -> Scorer:
    assert not files
    return stablepref.FunctionScorer(
        lambda images, _: [image.width for image in images], name=entry.name, unit="pixels"
    )


def test_a_registered_scorer_is_used_by_name(registered: str, tmp_path: Path) -> None:
    stablepref.register(registered, widths)
    stablepref.register(registered, widths)  # again, as a notebook does
    wide, slim = Image.new("RGB", (30, 10)), Image.new("RGB", (10, 30))
    assert stablepref.score([wide, slim], "a", model=registered).tolist() == [30, 10]
    assert stablepref.compare(wide, slim, "a", model=registered).margin == 20
    for name, picture in (("wide", wide), ("slim", slim)):
        picture.save(tmp_path / f"{name}.png")
    done = run("rank", tmp_path / "slim.png", tmp_path / "wide.png", "-p", "a", "-s", registered)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("wide.png") < done.stdout.index("slim.png")
    assert registered in run("models").stdout


def test_bench_judges_take_a_registered_scorer(registered: str) -> None:
    stablepref.register(registered, widths)
    (judge,) = load_judges([registered])
    assert (judge.name, judge.unit) == (registered, "pixels")
    assert judge([Image.new("RGB", (7, 3))], ["a"], [None]) == [7]


def test_a_registered_entry_says_what_is_downloaded(
    registered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STABLEPREF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "factor.txt").write_text("3")
    file = RemoteFile("factor.txt", url=(tmp_path / "factor.txt").as_uri(), size=1)

    def build(entry: Entry, files: Sequence[Path]) -> Scorer:
        factor = float(files[0].read_text())
        return stablepref.FunctionScorer(
            lambda images, _: [factor * image.width for image in images], name="mine", unit="x"
        )

    stablepref.register(registered, Entry(registered, build, files=(file,)))
    image = Image.new("RGB", (7, 3))
    assert stablepref.score(image, "a", model=registered).tolist() == [21]
    (tmp_path / "other.txt").write_text("5")
    other = stablepref.load(tmp_path / "other.txt", like=registered)
    assert other.score(image, "a").tolist() == [35]


@pytest.mark.parametrize(
    ("name", "scorer", "error", "says"),
    [
        ("shapes", widths, ValueError, "'shapes' is the name of another scorer already"),
        ("", widths, ValueError, "a scorer needs a name"),
        ("mine", 3, TypeError, r"given as int; expected a function build\(entry, files\)"),
        ("mine", Entry("yours", widths), ValueError, "has the name 'yours'; expected 'mine'"),
    ],
)
def test_what_cannot_be_registered(
    registered: str, name: str, scorer: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        stablepref.register(name, scorer)  # type: ignore[arg-type] # the point of the test
    assert registered not in SCORERS


@pytest.mark.parametrize("builder", ["nowhere_at_all:build", "json:no_such_function", "json"])
def test_a_builder_that_is_not_there(builder: str) -> None:
    with pytest.raises(ImportError, match=rf"'mine' has the builder '{builder}', which cannot"):
        Entry("mine", builder).build([])


def test_unknown_kinds_list_the_known_and_what_failed(outside: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no scorer is called 'other'; expected one of 'clip', "
    ) as caught:
        Scorer.of_kind("other")
    assert "'warmth'" in str(caught.value)
    assert "'broken' of the package from_outside" in str(caught.value)


def test_a_class_from_outside_does_not_take_over_a_kind_of_ours() -> None:
    class Other(Brightness):  # type: ignore[misc] # final, but for the test
        kind = "clip"

    assert Scorer.of_kind("clip") is CLIPScorer


@pytest.mark.parametrize(
    ("known_as", "name"),
    [
        ("pickscore", "pickscore-v1"),
        ("yuvalkirstain/PickScore_v1", "pickscore-v1"),
        ("ImageReward-v1.0", "imagereward-v1"),
        ("ImageReward", "imagereward-v1"),
        ("HPSv2", "hps-v2"),
        ("HPSv2.1", "hps-v2.1"),
        ("hps_v2.1", "hps-v2.1"),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "clip-vit-h-14"),
        ("openai/clip-vit-large-patch14", "clip-vit-l-14"),
        ("Laion Aesthetic", "laion-aesthetic-v2"),
        ("user/unknown", "user/unknown"),
    ],
)
def test_names_that_people_use_are_known(
    known_as: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert model_name(known_as) == name
    monkeypatch.chdir(tmp_path)
    (tmp_path / known_as).mkdir(parents=True)
    assert model_name(known_as) == known_as, "a folder that is here is meant"


def test_no_two_models_are_known_by_one_name() -> None:
    names: dict[str, str] = {}
    for entry in ENTRIES:
        for other in (entry.name, *entry.aliases):
            plain = "".join(c for c in other.lower() if c not in "-_ ")
            assert names.setdefault(plain, entry.name) == entry.name, other


@pytest.mark.parametrize(
    ("typed", "similar"),
    [("hps-v3.1", "hps-v2.1"), ("pikscore", "pickscore-v1"), ("imagerewards", "imagereward-v1")],
)
def test_similar_names_are_suggested(typed: str, similar: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown model '{typed}'.*did you mean .*{similar}"):
        check_model(typed, None)
