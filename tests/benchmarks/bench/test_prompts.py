"""Prompt sets: every kind of file, real ones, names, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest

from stablepref.benchmarks.bench import prompt_sets
from stablepref.benchmarks.bench.prompt_files import BenchPrompt, read_prompt_file
from stablepref.benchmarks.bench.prompt_sets import HPDV2_STYLES, read_prompt_set
from stablepref.benchmarks.shapes.prompt_set import lab_prompts, prompts_csv
from stablepref.weights.hub import UnavailableError

COLOURS = {"category": "Colors"}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", '\ufeff"Prompts","Category"\n"a car, red","Colors"\n"a car, red","Colors"\n'),
        ("a.tsv", "Other\tPROMPT\tcategory\n1\ta car, red\tColors \n2\ta car, red\tColors\n"),
        ("a.jsonl", '{"prompt": "a car, red", "Category": "Colors"}\n\n' * 2),
        ("a.json", json.dumps([{"caption": "a car, red", "category": "Colors", "id": 3}] * 2)),
    ],
)
def test_tables_keep_repetitions_and_categories(name: str, text: str, tmp_path: Path) -> None:
    prompts = read_prompt_file(write(tmp_path, name, text))
    assert prompts == tuple(BenchPrompt(f"0000{i}", "a car, red", COLOURS) for i in range(2))


def test_plain_lists(tmp_path: Path) -> None:
    expected = ("one", " two ")
    for name, text in (("a.txt", "one\n\n two \n"), ("a.json", json.dumps(expected))):
        prompts = read_prompt_file(write(tmp_path, name, text))
        assert tuple(one.prompt for one in prompts) == expected
        assert [one.key for one in prompts] == ["00000", "00001"]
        assert all(one.labels == {} for one in prompts)


def test_several_labels(tmp_path: Path) -> None:
    text = "Prompt\tCategory\tChallenge\tNote\na cat\tAnimals\tBasic\tx\na dog\t\tStyle\tx\n"
    first, second = read_prompt_file(write(tmp_path, "parti.tsv", text))
    assert first.labels == {"category": "Animals", "challenge": "Basic"}
    assert second.labels == {"challenge": "Style"}


def test_styles_are_numbered_apart(tmp_path: Path) -> None:
    styles = {"photo": ["x", "y"], "anime": ["x"]}
    single = read_prompt_file(write(tmp_path, "a.json", json.dumps(styles)))
    assert [(one.key, one.prompt) for one in single] == [
        ("photo/00000", "x"), ("photo/00001", "y"), ("anime/00000", "x")
    ]  # fmt: skip
    assert single[0].labels == {"style": "photo"}
    folder = tmp_path / "benchmark"
    folder.mkdir()
    for style, prompts in styles.items():
        write(folder, f"{style}.json", json.dumps(prompts))
    assert {one.key for one in read_prompt_file(folder)} == {one.key for one in single}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.pdf", "x", "expected one of .csv, .tsv"),
        ("a.csv", "words\nx\n", "line 2: no column of prompt, .*there are: words"),
        ("a.csv", "prompt\nx\n  \n", "line 3: the prompt is '  '"),
        ("a.txt", "\n", "holds no prompt"),
        ("a.json", "3", "holds a int; expected a list"),
        ("a.json", "[1]", "entry 1: the prompt is 1; expected words"),
        ("a.json", "{", "not JSON"),
        ("a.json", '{"../x": ["a"]}', "is no style with a list"),
        ("a.json", '{"": ["a"]}', "is no style with a list"),
        ("a.json", '{"..": ["a"]}', "is no style with a list"),
        ("a.csv", 'prompt\n"a" b\n', "not readable as UTF-8 text or a table"),
        ("a.json", '{"x": "a"}', "is no style with a list"),
        ("a.jsonl", '{"prompt": "x"}\n[]\n', "line 2: a list; expected a JSON object"),
    ],
)
def test_what_is_no_set_of_prompts(name: str, text: str, says: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(ValueError, match=says) as found:
        read_prompt_file(path)
    assert str(path) in str(found.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('prompt\tcategory\n"Hello" on a sign\tWords\n', ['"Hello" on a sign']),
        ('prompt\tcategory\n"unclosed\tWords\na dog\tX\n', ['"unclosed', "a dog"]),
        ('prompt\tcategory\n"""Hello"" on\ta sign"\tWords\n', ['"Hello" on\ta sign']),
    ],
)
def test_quotes_in_tsv_files(text: str, expected: list[str], tmp_path: Path) -> None:
    """Those around whole fields are no words; any others are, for the format has no quotes."""
    found = read_prompt_file(write(tmp_path, "a.tsv", text))
    assert [one.prompt for one in found] == expected
    assert found[0].labels == {"category": "Words"}


def test_hpdv2s_folder_holds_other_sets_too(tmp_path: Path) -> None:
    """Its code expects drawbench.json beside the four styles."""
    for style in (*HPDV2_STYLES, "drawbench"):
        write(tmp_path, f"{style}.json", json.dumps(["x"] * 800))
    found = read_prompt_set("hpdv2", file=tmp_path)
    assert {one.labels["style"] for one in found.prompts} == set(HPDV2_STYLES)
    assert len(read_prompt_file(tmp_path)) == 4000


def test_text_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt\n\xff\xfe\n")
    with pytest.raises(ValueError, match="not readable as UTF-8"):
        read_prompt_file(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"without \.json files"):
        read_prompt_file(tmp_path / "empty")


def test_the_laboratorys_prompts_need_no_file(tmp_path: Path) -> None:
    lab = read_prompt_set("lab")
    assert len(lab.prompts) == 200
    path = write(tmp_path, "lab.csv", prompts_csv(lab_prompts()))
    same = read_prompt_set(path)
    assert same.prompts == lab.prompts
    assert same.digest() == lab.digest()
    assert same.name == "lab"
    path.write_text(path.read_text().replace("circle", "disc", 1))
    assert read_prompt_set(path).digest() != lab.digest()


def test_drawbench_as_published(shared_data: Path) -> None:
    found = read_prompt_set("drawbench", file=shared_data / "prompts" / "drawbench.csv")
    assert found.prompts[0] == BenchPrompt("00000", "A red colored car.", COLOURS)
    counts = Counter(one.labels["category"] for one in found.prompts)
    assert len(counts) == 11
    assert counts["Reddit"] == 38
    assert counts["Gary Marcus et al."] == 10  # without the blank behind it in the file


def test_hpdv2_as_published(shared_data: Path) -> None:
    path = shared_data / "prompts" / "hpsv2_benchmark_prompts.json"
    found = read_prompt_set("hpdv2", file=path)
    assert Counter(one.labels["style"] for one in found.prompts) == dict.fromkeys(HPDV2_STYLES, 800)
    raw = json.loads(path.read_text())
    by_key = {one.key: one.prompt for one in found.prompts}
    assert by_key["paintings/00799"] == raw["paintings"][799]
    assert len({one.prompt for one in found.prompts}) < 3200  # repeated prompts stay


def test_imagereward_as_published(shared_data: Path) -> None:
    path = shared_data / "imagereward" / "benchmark-prompts.json"
    assert len(read_prompt_set("imagereward", file=path).prompts) == 100


def test_names_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="neither a file of prompts nor one of drawbench, hpdv2"):
        read_prompt_set("drawbenhc")
    with pytest.raises(ValueError, match="geneval has no place to be fetched from"):
        read_prompt_set("geneval")
    path = write(tmp_path, "a.txt", "x\n")
    with pytest.raises(ValueError, match=r"drawbench has 200 prompts .*, but 1 were found in"):
        read_prompt_set("drawbench", file=path)
    with pytest.raises(ValueError, match="is none of drawbench"):
        read_prompt_set(path, file=path)

    def no_network(url: str) -> None:
        raise OSError(f"no way to {url}")

    monkeypatch.setattr(prompt_sets, "require_network", no_network)
    for name in ("drawbench", "parti", "hpdv2"):
        with pytest.raises(UnavailableError, match=f"{name} cannot be downloaded .*--prompts"):
            read_prompt_set(name)


def test_rows_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"Prompts": f"prompt {i}", "Category": "x"} for i in range(200)]
    monkeypatch.setattr(prompt_sets, "require_network", lambda _: None)
    monkeypatch.setattr(prompt_sets, "hub_rows", lambda name, split: rows)
    found = read_prompt_set("drawbench")
    assert found.prompts[199] == BenchPrompt("00199", "prompt 199", {"category": "x"})
