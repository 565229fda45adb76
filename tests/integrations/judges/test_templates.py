"""Judges by name, and templates of one's own."""

import re
from pathlib import Path

import pytest
from helpers.judged import completion, judge, shown, text_of
from helpers.served import grey

import stablepref
from stablepref.integrations.judges.judge import Judge, open_judge
from stablepref.integrations.judges.template import bundled_templates, read_template
from stablepref.models.registry import entry_of

TEMPLATE = """
mode = "rubric"
answer = "unified-point"
lowest = 1
highest = 5
system = "You judge."
image_format = "jpeg"
text = '''{"json": true} {prompt}'''
[options.chat_template_kwargs]
enable_thinking = false
"""


def test_a_template_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TEMPLATE)
    text = "Alignment Score: 2\nCoherence Score: 3\nStyle Score: 4"
    scorer, endpoint = judge(lambda _: completion(text), template=str(path))
    assert scorer.score(grey(1), "a {prompt} b").tolist() == [3]
    request = endpoint.requests[0]
    assert request["messages"][0] == {"role": "system", "content": "You judge."}
    assert text_of(request) == '{"json": true} a {prompt} b'
    assert request["chat_template_kwargs"] == {"enable_thinking": False}
    assert shown(request)[0].format == "JPEG"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"rubric"', '"other"', "mode = 'other'"),
        ('"unified-point"', '"winner"', "answer = 'winner'"),
        ("{prompt}", "", "no {prompt}"),
        ("highest = 5", "highest = 1", "below highest"),
        ('"jpeg"', '"gif"', "image_format"),
        ("system", "sistem", "sistem"),
        ("mode", "mode =", "cannot be used"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TEMPLATE.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(words)):
        read_template(str(path))


def test_a_template_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"no template file .*pairwise, rubric, yes-no"):
        read_template("nowhere.toml")


def test_all_bundled_templates_can_be_used() -> None:
    assert [read_template(name).mode for name in bundled_templates()] == bundled_templates()


def opened(name: str) -> Judge:
    return open_judge(entry_of(name), ())


def test_names(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    scorer = opened(
        f"judge:org/model@v2@http://localhost:8000?template=yes-no&concurrency=3&cache={cache}"
    )
    assert scorer.name == "judge:org/model@v2"
    assert scorer.unit == "probability of yes"
    assert scorer.concurrency == 3
    assert cache.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("judge:model", "judge:MODEL@URL"),
        ("judge:@http://localhost", "judge:MODEL@URL"),
        ("judge:m@http://localhost?retries=x&cache=none", "not a number"),
        ("judge:m@http://localhost?colour=x&cache=none", "no option 'colour'"),
        ("judge:m@http://localhost?concurrency=0&cache=none", "concurrency=0"),
        ("judge:m@http://localhost?template=none&cache=none", "no template file"),
    ],
)
def test_names_that_mean_nothing(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        opened(name)


def test_load_takes_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLEPREF_CACHE", str(tmp_path))
    stablepref.load.cache_clear()
    scorer = stablepref.load("judge:m@http://127.0.0.1:1", device="cpu")
    assert isinstance(scorer, Judge)
    assert (tmp_path / "judges" / "answers.sqlite").exists()
    stablepref.load.cache_clear()
