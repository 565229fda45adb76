"""Training the laboratory's CLIP, and the words of the bundled one."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from stablepref.assets import ASSETS
from stablepref.benchmarks.shapes.clip.batches import BatchConfig
from stablepref.benchmarks.shapes.clip.train import TrainConfig, train
from stablepref.benchmarks.shapes.world.vocabulary import load_tokenizer, write_vocabulary
from stablepref.models.clip import encode_tokens
from stablepref.zoo import load

SHAPES = ASSETS / "shapes-clip"
SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 40, "layers": 1, "width": 32, "heads": 2},
}


def small_config(folder: Path, steps: int) -> TrainConfig:
    write_vocabulary(folder / "bpe.txt.gz")
    words = load_tokenizer(folder / "bpe.txt.gz").vocab_size
    described = json.loads((SHAPES / "config.json").read_text())["backbone"]["text_cfg"]
    text = {
        **SMALL["text_cfg"],  # type: ignore[dict-item] # a configuration, nested
        "vocab_size": words,
        "context_length": described["context_length"],
    }
    return TrainConfig(
        batch=BatchConfig(batch_size=16, group_size=4),
        steps=steps,
        warmup=2,
        precision="fp32",
        backbone={**SMALL, "text_cfg": text},
    )


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=12)
    whole = train(config, tmp_path / "whole", workers=0, checkpoint_every=4)
    train(config, tmp_path / "parts", workers=0, checkpoint_every=4, stop_after=5)
    resumed = train(config, tmp_path / "parts", workers=0, checkpoint_every=4)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0]
    saved = load(tmp_path / "whole" / "model", device="cpu", dtype="float32")
    assert saved.name == "shapes-clip"


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    train(small_config(tmp_path, steps=1), tmp_path / "run", workers=0)
    with pytest.raises(ValueError, match="steps was 1 and is 2"):
        train(small_config(tmp_path, steps=2), tmp_path / "run", workers=0)


def test_the_short_text_form_equals_open_clips() -> None:
    scorer = load(SHAPES, device="cpu", dtype="float32")
    tokens = scorer.tokenize(["a red circle", "from left to right: a red circle and a blue star"])
    with torch.no_grad():
        short = encode_tokens(scorer.model, tokens)
        torch.testing.assert_close(short, scorer.model.encode_text(tokens), rtol=1e-4, atol=1e-5)


def test_the_vocabulary_reads_any_word() -> None:
    tokenizer = load_tokenizer(SHAPES / "bpe_shapes.txt.gz")
    text = gzip.decompress((SHAPES / "bpe_shapes.txt.gz").read_bytes()).decode()
    assert not text.endswith("\n")  # open_clip would read an empty merge there
    assert tokenizer.sot_token_id == tokenizer.vocab_size - 2
    assert tokenizer.eot_token_id == tokenizer.vocab_size - 1
    for words in ("a red circle", "zebra quixotic", "naïve"):
        ids = tokenizer.encode(words)
        assert max(ids) < tokenizer.vocab_size - 2
        assert tokenizer.decode(ids).strip() == words
    assert len(tokenizer.encode("a red circle left of a blue square")) == 8
