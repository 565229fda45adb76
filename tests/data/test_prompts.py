"""Prompts out of files and folders: every form, real ones, and what is refused."""

import json
from pathlib import Path

import pytest

from stablepref.data.groups import DataError
from stablepref.data.prompts import ListedPrompt, read_prompt_file

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
    assert prompts == tuple(ListedPrompt(f"0000{i}", "a car, red", COLOURS) for i in range(2))


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
        ("a.json", "3", "line 1: not JSON: expected an array of objects, found '3'"),
        ("a.json", "[1]", "entry 1: the prompt is 1; expected words"),
        ("a.json", "{", "not JSON"),
        ("a.json", '{"../x": ["a"]}', "is not a style with a list"),
        ("a.json", '{"": ["a"]}', "is not a style with a list"),
        ("a.json", '{"..": ["a"]}', "is not a style with a list"),
        ("a.csv", 'prompt\n"a" b\n', "line 2: not readable as a row of a table"),
        ("a.json", '{"x": "a"}', "is not a style with a list"),
        ("a.jsonl", '{"prompt": "x"}\n[]\n', r"line 2: the prompt is \[\]; expected words"),
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


def test_text_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"line 2: .*not UTF-8 text"):
        read_prompt_file(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"without \.json and \.txt files"):
        read_prompt_file(tmp_path / "empty")


def test_a_byte_order_mark_and_a_line_separator(shared_data: Path) -> None:
    first, second = read_prompt_file(shared_data / "cases" / "prompts_bom.tsv")
    assert first == ListedPrompt(
        "00000", 'a quoted "sign" that says open', {"category": "Signs", "challenge": "Writing"}
    )
    assert second.prompt == "a line\u2028separator inside"
    assert second.labels == {"category": "Odd", "challenge": "Unicode"}


def test_objects_by_their_ids(shared_data: Path) -> None:
    """As MJHQ and GenAI-Bench have them; their images are named by the ids."""
    assert read_prompt_file(shared_data / "cases" / "prompts_by_id.json") == (
        ListedPrompt("0a1b2c", "two kettles on a stove", {"category": "indoor"}),
        ListedPrompt("3d4e5f", "a kite above a hill", {"category": "outdoor"}),
    )


def test_a_table_with_a_row_for_each_question(shared_data: Path) -> None:
    assert read_prompt_file(shared_data / "cases" / "dpg_like.csv") == (
        ListedPrompt("p_1", "a brown dog beside a red car"), ListedPrompt("p_2", "three candles")
    )  # fmt: skip


def test_a_folder_of_one_text_for_each_prompt(shared_data: Path, tmp_path: Path) -> None:
    assert read_prompt_file(shared_data / "cases" / "dpg_prompts") == (
        ListedPrompt("p_1", "a brown dog beside a red car"), ListedPrompt("p_2", "three candles")
    )  # fmt: skip
    for name, text in (("10", "ten"), ("9", "\ufeffnine\r\n"), ("note", "a\nb")):
        write(tmp_path, f"{name}.txt", text)
    assert [one.prompt for one in read_prompt_file(tmp_path)] == ["nine", "ten", "a\nb"]
    write(tmp_path, "11.txt", " \n")
    with pytest.raises(DataError, match=r"11\.txt, text: the prompt is ''"):
        read_prompt_file(tmp_path)


def test_geneval_as_people_hold_it(shared_data: Path) -> None:
    found = read_prompt_file(shared_data / "cases" / "geneval_like.jsonl")
    assert [(one.prompt, one.labels["tag"]) for one in found] == [
        ("a photo of a bench", "single_object"), ("a photo of three clocks", "counting")
    ]  # fmt: skip


def test_questions_keep_what_they_share(tmp_path: Path) -> None:
    """Rows may come in any order; ids that name no file, or none at all, are replaced by places."""
    rows = [
        {"id": "a/b", "caption": "x", "question": "1?", "category": "c", "tag": "t"},
        {"id": "2", "caption": "y", "question": "2?"},
        {"id": "a/b", "caption": "x", "question": "3?", "category": "d", "tag": "t"},
    ]
    assert read_prompt_file(write(tmp_path, "a.json", json.dumps(rows))) == (
        ListedPrompt("00000", "x", {"tag": "t"}), ListedPrompt("2", "y")
    )  # fmt: skip
    rows = [{"prompt": "x", "question": "?"}, {"prompt": "y", "question": "?"}] * 2
    found = read_prompt_file(write(tmp_path, "a.json", json.dumps(rows)))
    assert [(one.key, one.prompt) for one in found] == [("00000", "x"), ("00001", "y")]
    rows = [
        {"id": "1", "prompt": "x", "question": "?"},
        {"id": "1", "prompt": "y", "question": "?"},
    ]
    with pytest.raises(ValueError, match=r"a\.json: the id '1' stands for several prompts"):
        read_prompt_file(write(tmp_path, "a.json", json.dumps(rows)))


@pytest.mark.parametrize("key", ["../a", "", "a/b", "..", "a\nb"])
def test_ids_that_cannot_name_an_image(key: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", json.dumps({key: {"prompt": "x"}}))
    with pytest.raises(DataError, match="cannot name a file"):
        read_prompt_file(path)


def test_prompts_in_parquet_and_in_lines_of_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist([{"Prompt": "x", "Category": "c"}])
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    expected = (ListedPrompt("00000", "x", {"category": "c"}),)
    assert read_prompt_file(tmp_path / "a.parquet") == expected
    found = read_prompt_file(write(tmp_path, "a.jsonl", '"x"\n"y"\n'))
    assert [one.prompt for one in found] == ["x", "y"]
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028two\r\n\nthree".encode())
    assert [one.prompt for one in read_prompt_file(path)] == ["one\u2028two", "three"]
    path.write_bytes(b"one\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"a\.txt, line 2: not UTF-8 text"):
        read_prompt_file(path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "by_id.json",
            '{"0a": {"prompt": "a cat", "category": "pets"}, "1b": {"prompt": "a dog"}}',
            [("0a", "a cat", {"category": "pets"}), ("1b", "a dog", {})],
        ),
        (
            "questions.csv",
            "item_id,text,proposition_id,question_natural_language\r\n"
            'p_1,"a cat, asleep",1,Is it a cat?\r\np_1,"a cat, asleep",2,Does it sleep?\r\n'
            "p_2,a dog,1,Is it a dog?\r\n",
            [("p_1", "a cat, asleep", {}), ("p_2", "a dog", {})],
        ),
        (
            "mark.tsv",
            '\ufeffPrompt\tCategory\na "cat" here\tSigns\na dog\u2028there\tOdd\n',
            [
                ("00000", 'a "cat" here', {"category": "Signs"}),
                ("00001", "a dog\u2028there", {"category": "Odd"}),
            ],
        ),
        (
            "semicolons.csv",
            "prompt;tag\na cat;x\na dog;y\n",
            [("00000", "a cat", {"tag": "x"}), ("00001", "a dog", {"tag": "y"})],
        ),
    ],
)
def test_forms_that_people_hold(
    name: str, text: str, expected: list[tuple[str, str, dict[str, str]]], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert read_prompt_file(path) == tuple(ListedPrompt(*one) for one in expected)
