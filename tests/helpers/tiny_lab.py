"""A tiny model of the laboratory's kind, with random weights."""

from pathlib import Path

from stablepref.benchmarks.shapes.clip.model import MEAN, STD, build_model
from stablepref.benchmarks.shapes.world.vocabulary import load_tokenizer, write_vocabulary
from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess


def save_tiny(folder: Path, *, seed: int) -> Path:
    """A model of the laboratory's kind with two blocks of width 32 a tower."""
    folder.mkdir()
    vocabulary = folder / "words.gz"
    write_vocabulary(vocabulary)
    backbone = {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 64, "patch_size": 16, "layers": 2, "width": 32, "head_width": 16,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": 40, "vocab_size": load_tokenizer(vocabulary).vocab_size,
            "layers": 2, "width": 32, "heads": 2,
        },
    }  # fmt: skip
    scorer = CLIPScorer(
        backbone,
        preprocess=Preprocess("clip", 64, mean=MEAN, std=STD),
        name="tiny",
        preference_scale=None,
        vocabulary=vocabulary,
    )
    scorer.model.load_state_dict(build_model(scorer.backbone, seed=seed).state_dict())
    scorer.save_pretrained(folder / "model")
    return folder / "model"
