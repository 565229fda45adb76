"""The laboratory's vocabulary works in open_clip's tokeniser, for known and unknown words."""

import gzip
import random
from pathlib import Path

import pytest

from stablepref.assets import ASSETS
from stablepref.benchmarks.shapes.world.language import describe
from stablepref.benchmarks.shapes.world.scenes import sample_scene
from stablepref.benchmarks.shapes.world.vocabulary import (
    CONTEXT_LENGTH,
    grammar_words,
    learn_merges,
    load_tokenizer,
    write_vocabulary,
)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "bpe.txt.gz"
    write_vocabulary(path)
    return path


def test_merges_of_a_hand_worked_case() -> None:
    # "ab" twice as often as any other pair, then "abc</w>"; "b</w>" ends a word and is another
    # symbol than "b".
    assert learn_merges(("abc", "abd")) == [("a", "b"), ("ab", "c</w>"), ("ab", "d</w>")]
    assert learn_merges(("aaa",)) == [("a", "a"), ("aa", "a</w>")]


def test_all_merges_are_read_and_the_special_tokens_are_last(vocabulary: Path) -> None:
    tokenizer = load_tokenizer(vocabulary)
    merges = learn_merges(grammar_words())
    # 256 bytes, each also as the end of a word, the merges, start and end.
    assert tokenizer.vocab_size == 2 * 256 + len(merges) + 2
    assert len(tokenizer.bpe_ranks) == len(merges)
    assert tokenizer.sot_token_id == tokenizer.vocab_size - 2
    assert tokenizer.eot_token_id == tokenizer.vocab_size - 1


def test_a_line_end_after_the_last_merge_is_noticed(vocabulary: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "bpe.txt.gz"
    spoilt.write_bytes(gzip.compress(gzip.decompress(vocabulary.read_bytes()) + b"\n"))
    with pytest.raises(ValueError, match="empty line"):
        load_tokenizer(spoilt)


def test_every_word_of_the_grammar_is_one_token(vocabulary: Path) -> None:
    tokenizer = load_tokenizer(vocabulary)
    rng = random.Random(0)
    words = {
        word.strip(",:") for _ in range(2000) for word in describe(sample_scene(rng), rng).split()
    }
    assert words <= set(grammar_words())
    assert {len(tokenizer.encode(word)) for word in grammar_words()} == {1}


def test_prompts_fit_the_context_with_their_end(vocabulary: Path) -> None:
    tokenizer = load_tokenizer(vocabulary)
    rng = random.Random(1)
    prompts = [describe(sample_scene(rng), rng) for _ in range(1000)]
    tokens = tokenizer(prompts)
    assert tokens.shape == (1000, CONTEXT_LENGTH)
    for prompt, row in zip(prompts, tokens.tolist(), strict=True):
        end = row.index(tokenizer.eot_token_id)
        assert row[0] == tokenizer.sot_token_id
        assert row[1:end] == tokenizer.encode(prompt)
        assert not any(row[end + 1 :])


@pytest.mark.parametrize(
    "text", ["astronaut", "a zebra beside the red circle", "naïve café", "日本", "x² 🙂", "redd"]
)
def test_unknown_words_come_back_from_their_tokens(vocabulary: Path, text: str) -> None:
    tokenizer = load_tokenizer(vocabulary)
    tokens = tokenizer.encode(text)
    assert len(tokens) > 1
    # The tokeniser writes a blank after each word and sign.
    assert tokenizer.decode(tokens).replace(" ", "") == text.replace(" ", "")


def test_the_file_is_the_same_on_every_run_and_bundled(vocabulary: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.txt.gz"
    write_vocabulary(again)
    assert again.read_bytes() == vocabulary.read_bytes()
    bundled = ASSETS / "shapes-clip" / "bpe_shapes.txt.gz"
    assert gzip.decompress(bundled.read_bytes()) == gzip.decompress(vocabulary.read_bytes())
