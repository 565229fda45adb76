"""Compare our scores with the recorded ones and print the largest differences as a table.

    python -m stablepref.benchmarks.parity.compare --images GALLERY [--full] [MODEL ...]

from the root of the repository, in an environment that has stablepref.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, final

import torch

from stablepref.models.catalog import BY_NAME

from .cases import CASES, TWO_BLOCKS, official_state, write_official_files
from .inputs import load_pictures, picture_digest
from .weights import state_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

    from stablepref.models.entry import Entry
    from stablepref.scorer import Scorer

TOLERANCE = 1e-4


@final
@dataclasses.dataclass(frozen=True)
class Comparison:
    """A model with seeded weights, and the scores of its official code with equal ones.

    Attributes:
        scorer: Our scorer, in float32.
        pictures: The RGB pictures.
        prompts: The prompts.
        expected: Scores of the official code, `(pictures, prompts)`.
    """

    scorer: Scorer
    pictures: list[Image]
    prompts: list[str]
    expected: Tensor

    def deviation(self, scores: Tensor) -> float:
        """Largest |ours - official| / max(1, |official|) of scores for all pictures and prompts."""
        return ((scores - self.expected).abs() / self.expected.abs().clamp(min=1)).max().item()


def load_comparison(record_file: Path, images: Path) -> Comparison:
    """The comparison for a record of `benchmarks.parity.record`.

    Args:
        record_file: The record.
        images: Folder of the HPD v2 gallery's images.

    Raises:
        ValueError: The pictures or the weights made here are not those of the record.
    """
    record = json.loads(record_file.read_text(encoding="utf-8"))
    name, blocks = record["model"], tuple(record["blocks"])
    pictures = load_pictures(images)
    if [picture_digest(picture) for picture in pictures] != [
        picture["sha256"] for picture in record["pictures"]
    ]:
        msg = f"{images} gives other pixels than those of {record_file}: record it again"
        raise ValueError(msg)
    if state_digest(official_state(name, blocks)) != record["weights_sha256"]:
        msg = f"this torch draws other weights than those of {record_file}: record it again"
        raise ValueError(msg)
    expected = torch.tensor(record["scores"])
    return Comparison(seeded_scorer(name, blocks), pictures, record["prompts"], expected)


def entry_with_blocks(name: str, blocks: tuple[int, int]) -> Entry:
    """The zoo's entry for files with these numbers of vision and text blocks."""
    entry = BY_NAME[name]
    sizes = copy.deepcopy(entry.sizes)
    if "vision_cfg" in sizes:
        sizes["vision_cfg"]["layers"], sizes["text_cfg"]["layers"] = blocks
    else:
        sizes["vision_depth"], sizes["text_depth"] = blocks
    return dataclasses.replace(entry, sizes=sizes)


def seeded_scorer(name: str, blocks: tuple[int, int]) -> Scorer:
    """Our scorer from the official files, through the zoo's own reader, in float32."""
    with TemporaryDirectory() as folder:
        files = write_official_files(name, blocks, Path(folder))
        scorer: Scorer = entry_with_blocks(name, blocks).build(files)
        return scorer.to(torch.float32)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--images", type=Path, required=True, help="folder of the HPD v2 gallery")
    parser.add_argument("--full", action="store_true", help="all blocks instead of two")
    parser.add_argument("--records", type=Path, default=Path("tests/parity"))
    options = parser.parse_args(arguments)
    if not options.images.is_dir():
        parser.error(f"--images {options.images}: there is no such folder")
    print("| model | blocks | official scores | largest difference |")
    print("| --- | --- | --- | --- |")
    for name in options.models or CASES:
        file = options.records / f"{name}-{'full' if options.full else 'two'}.json"
        if not file.is_file() and not options.models:
            continue
        case = load_comparison(file, options.images)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(cut|loses its end)")
            difference = case.deviation(case.scorer.score_matrix(case.pictures, case.prompts))
        blocks = CASES[name].blocks if options.full else TWO_BLOCKS
        low, high = case.expected.aminmax()
        print(
            f"| `{name}` | {blocks[0]} + {blocks[1]} | {low:.2f} to {high:.2f} "
            f"| {difference:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
