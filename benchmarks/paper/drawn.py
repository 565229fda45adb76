"""A benchmark of the laboratory's generators: Table 6 and Figures 5 and 6 without real images."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

from PIL import Image

from stablepref.data.layouts import picture_name
from stablepref.data.prompts import ListedPrompt
from stablepref.output.durable import replacing
from stablepref.output.progress import progress_bar

from ..bench.judges import knows_shapes_only
from ..bench.prompt_sets import PromptSet
from ..bench.run import bench
from ..shapes.people.generators import GENERATORS, generate
from ..shapes.world.prompts import CATEGORIES, lab_prompts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ..bench.judges import Judge
    from ..bench.score_table import ScoreTable
    from ..shapes.world.prompts import LabPrompt

NAME: Final = "lab"
PICTURES: Final = "drawn"
RUN: Final = "run"


def in_place_of_the_papers(tables: Iterable[ScoreTable], scorers: Iterable[str]) -> bool:
    """Whether prompts or models of the laboratory stand in for the paper's."""
    return any(table.name == NAME for table in tables) or any(map(knows_shapes_only, scorers))


def drawn_run(
    out: Path,
    judges: Sequence[Judge],
    *,
    generators: Sequence[str],
    prompts: int,
    images: int = 1,
) -> ScoreTable:
    """Draw and score the generators' pictures of the laboratory's prompts; resumes a killed run.

    Args:
        out: Folder; pictures are written to `drawn`, scores to `run`.
        judges: The scorers.
        generators: Names of `GENERATORS`.
        prompts: Number of prompts, as many from each category.
        images: Images of each prompt.

    Raises:
        ResumeError: `out` has a run with other settings.
        OSError: `out` cannot be written.
    """
    chosen = _prompts(prompts)
    keys = [
        ListedPrompt(f"{place:05d}", one.prompt, {"category": one.category})
        for place, one in enumerate(chosen)
    ]
    total = len(generators) * len(keys) * images
    with progress_bar("drawing", total=total, show=None) as advance:
        for name in generators:
            folder = out / PICTURES / name
            folder.mkdir(parents=True, exist_ok=True)
            for key, one in zip(keys, chosen, strict=True):
                for number in range(images):
                    path = folder / f"{picture_name(key, number)}.png"
                    if not path.is_file():
                        _draw(path, name, one, number)
                    advance(1)
    models = [f"{name}={out / PICTURES / name}" for name in generators]
    return bench(PromptSet(NAME, tuple(keys)), models, judges, out=out / RUN, images=images)


def _prompts(count: int) -> list[LabPrompt]:
    """`count` prompts, one of each category in turn."""
    each = math.ceil(count / len(CATEGORIES))
    found = lab_prompts(per_category=each)
    return [found[place + turn] for turn in range(each) for place in range(0, len(found), each)][
        :count
    ]


def _draw(path: Path, generator: str, one: LabPrompt, number: int) -> None:
    """One picture, whole or not at all; it depends on generator, prompt and number alone."""
    rng = random.Random(f"{generator} {one.prompt} {number}")
    picture = generate(GENERATORS[generator], one.scene, rng).draw()
    with replacing(path) as staging:
        Image.fromarray(picture).save(staging, "PNG")
