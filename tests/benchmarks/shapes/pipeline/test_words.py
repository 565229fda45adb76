"""The pipeline's tokenizer agrees with open_clip's reader of the same vocabulary."""

import random
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from stablepref.benchmarks.shapes.pipeline.words import (
    TEXT_LENGTH,
    build_tokenizer,
    write_vocabulary_files,
)
from stablepref.benchmarks.shapes.world.language import describe
from stablepref.benchmarks.shapes.world.scenes import sample_scene
from stablepref.benchmarks.shapes.world.vocabulary import load_tokenizer, write_vocabulary


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def some_prompts(number: int) -> list[str]:
    rng = random.Random(3)
    return [describe(sample_scene(rng), rng) for _ in range(number)]


def test_tokens_are_those_of_open_clip(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "words.gz")
    other = load_tokenizer(tmp_path / "words.gz")
    assert len(tokenizer) == other.vocab_size
    start, end = other.vocab_size - 2, other.vocab_size - 1
    for text in [*some_prompts(100), "Zebras & 7 ÄPFEL, quickly!", ""]:
        assert tokenizer(text).input_ids == [start, *other.encode(text.lower()), end]


def test_words_of_the_grammar_are_one_token_and_all_prompts_fit(tokenizer: CLIPTokenizer) -> None:
    for prompt in some_prompts(300):
        words = prompt.replace(",", " ,").replace(":", " :").split()
        ids = tokenizer(prompt).input_ids
        assert len(ids) == len(words) + 2 <= TEXT_LENGTH - 5
        assert tokenizer.unk_token_id not in ids[:-1]


def test_texts_are_padded_and_cut_to_the_positions(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.model_max_length == TEXT_LENGTH
    ids = tokenizer(["a red circle", "word " * 99], padding="max_length", truncation=True).input_ids
    assert [len(row) for row in ids] == [TEXT_LENGTH, TEXT_LENGTH]
    assert {*ids[0][4:]} == {tokenizer.eos_token_id} == {tokenizer.pad_token_id}
    assert ids[1][0] == tokenizer.bos_token_id
    assert ids[1][-1] == tokenizer.eos_token_id


def test_both_forms_on_disk_give_the_same(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "new")
    (tmp_path / "old").mkdir()
    write_vocabulary_files(tmp_path / "old")
    for folder in ("new", "old"):
        other = CLIPTokenizer.from_pretrained(tmp_path / folder)
        for text in some_prompts(10):
            assert other(text).input_ids == tokenizer(text).input_ids
