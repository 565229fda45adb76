"""The models in the rows of the paper: which they are, how they are trained, and their names."""

import re

import pytest

from stablepref.benchmarks.paper.layouts import LAYOUTS
from stablepref.benchmarks.paper.methods import METHODS, parse_models
from stablepref.cli.settings import read_setting
from stablepref.recipes import RECIPES, TrainConfig, recipe

WHO = {  # who scores in the rows of Tables 4 and 5
    "table4": "clip-l clip-h aesthetic hps-v1 pickscore imagereward hps-v2 - - "
    "sp-clip-l sp-clip-h sp-clip-h-hps",
    "table5": "ce-clip-l ce-clip-h ce-blip - - sp-clip-l sp-clip-h sp-clip-h-hps",
}


def test_who_scores_in_each_row() -> None:
    for name, expected in WHO.items():
        keys = [line.who if line.method else "-" for line in LAYOUTS[name].lines]
        assert keys == expected.split()
    found = {key: (method.base, method.training) for key, method in METHODS.items()}
    assert found["aesthetic"] == ("laion-aesthetic-v2", "")
    assert found["ce-blip"] == ("blip-large", None)
    assert found["sp-clip-h-hps"] == ("hps-v2", "--recipe sp-clip-h-hps")


def test_the_trainings_are_recipes_from_the_rows_own_model() -> None:
    for method in METHODS.values():
        if not method.training:
            continue
        words = method.training.split()
        given = dict(zip(words[::2], words[1::2], strict=True))
        name = given.pop("--recipe")
        fields = {key.strip("-").replace("-", "_"): value for key, value in given.items()}
        values = {key: read_setting(TrainConfig, key, text) for key, text in fields.items()}
        assert recipe(name, **values).model == RECIPES[name].model == method.base


def test_rows_are_named_as_people_write_them() -> None:
    names = LAYOUTS["table4"].names()
    given = {
        "SP CLIP-H": "sp-clip-h",
        "stable preference (clip-l)": "sp-clip-l",
        "SP CLIP-H from HPS v2": "sp-clip-h-hps",
        "sp-clip-h-hps": "sp-clip-h-hps",
        "Aesthetic Score Predictor": "aesthetic",
    }
    for written, key in given.items():
        assert parse_models([f"{written}=a=b"], names) == {key: "a=b"}
    assert parse_models(["CLIP-L=x"], LAYOUTS["table5"].names()) == {"ce-clip-l": "x"}
    for wrong, says in (
        (["sp-clip-h"], "expected ROW=PATH"),
        (["blip=x"], "no row is called 'blip'; the rows are: clip-l, clip-h"),
        (["clip-h=x", "CLIP-H=y"], "the row clip-h is given twice"),
    ):
        with pytest.raises(ValueError, match=re.escape(says)):
            parse_models(wrong, names)
