"""The sheet of a group: every picture, and what is said below it."""

from itertools import islice
from pathlib import Path

from helpers.typed import refused
from PIL import Image

from stablepref.benchmarks.shapes.people.collect import collect
from stablepref.benchmarks.shapes.people.generators import Picture
from stablepref.benchmarks.shapes.people.settings import IMAGEREWARD
from stablepref.benchmarks.shapes.sheet import draw_sheet, main, what_is_wrong
from stablepref.benchmarks.shapes.world.language import parse


def test_what_is_wrong_is_said_in_words() -> None:
    wanted = parse("two red circles on a pink background")
    right = Picture(wanted, wanted, {}, 0, "level-9")
    wrong = Picture(wanted, parse("a red square"), {"blur": 0.412}, 0, "level-1")
    assert what_is_wrong(right) == "flawless"
    assert what_is_wrong(wrong) == "1 shape, 1 count, 1 background, blur 0.41"


def test_a_sheet_is_drawn_the_same_every_time(tmp_path: Path) -> None:
    main(tmp_path / "a" / "sheet.png", setting="imagereward", groups=2, seed=1)
    groups = list(islice(collect(IMAGEREWARD, split="test", seed=1), 2))
    draw_sheet(tmp_path / "b.png", groups)
    with Image.open(tmp_path / "a" / "sheet.png") as one, Image.open(tmp_path / "b.png") as other:
        assert one.tobytes() == other.tobytes()
        assert one.width > one.height > 200
    told = refused(main, tmp_path / "c.png", "--setting", "hpd")
    assert "'hpd' is not one of 'hpdv2', 'imagereward'" in told
