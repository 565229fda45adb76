"""Whether the pipeline's text encoder tells "a red circle left of a blue star" from the reverse.

Run `python -m stablepref.benchmarks.shapes.pipeline.places`. Needs the extra `diffusers`.

A linear probe reads the order of two objects from the states that the denoiser sees: what it does
not find is at least not plainly there.
"""

import random
from typing import Annotated

import torch
import typer
from diffusers import StableDiffusionPipeline
from torch import Tensor

from stablepref.assets import PIPELINES
from stablepref.output.tables import Table, print_table

from ..world.commands import PipelineOption, ThreadsOption
from ..world.language import describe
from ..world.scenes import COLOURS, RELATIONS, Scene, sample_scene
from .words import token_ids

_RIDGE = 1.0
_BATCH = 250
PLACES = ("last state", "colour named first", "colour named later")
"""Where it is read: at the end of the text, whose state goes into every block of the denoiser, and
at the two words."""


def related_scenes(relation: str, count: int, *, seed: int) -> list[Scene]:
    """Scenes of two groups of different colours in a relation."""
    rng = random.Random(f"places {relation} {seed}")
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = sample_scene(rng)
        colours = {group.colour for group in scene.groups}
        if scene.relation == relation and len(scene.groups) == len(colours) == 2:
            scenes.append(scene)
    return scenes


@torch.no_grad()
def order_read(
    pipe: StableDiffusionPipeline, scenes: list[Scene], *, train: int, seed: int = 0
) -> dict[str, float]:
    """Share of the scenes whose order a linear probe reads from the states of their prompts.

    Least squares with a small penalty on standardised states: at the last state the colour of the
    first group against that of the second, at a word whether its group is the first.

    Args:
        pipe: whose tokenizer and text encoder are probed.
        scenes: of one relation, as `related_scenes` gives them.
        train: scenes to fit on; the others are read.
        seed: of the paraphrases.

    Returns:
        For each of `PLACES` a share; one half by chance.
    """
    rng = random.Random(f"paraphrases {seed}")
    prompts = [describe(scene, rng) for scene in scenes]
    ends, first, later, turned = [], [], [], []
    for start in range(0, len(prompts), _BATCH):
        tokens = token_ids(pipe.tokenizer, prompts[start : start + _BATCH])
        states = pipe.text_encoder(tokens)[0]
        ends.append(states[:, -1])
        for row, scene in enumerate(scenes[start : start + _BATCH]):
            here, there = (_word(pipe, tokens[row], group.colour) for group in scene.groups)
            first.append(states[row, min(here, there)])
            later.append(states[row, max(here, there)])
            turned.append(there < here)
    one, other = (
        torch.tensor([COLOURS.index(scene.groups[place].colour) for scene in scenes])
        for place in (0, 1)
    )
    wanted = torch.nn.functional.one_hot(one, len(COLOURS)).float()
    colours = _fitted(torch.cat(ends), wanted, train)
    rows = torch.arange(len(colours))
    found = {PLACES[0]: colours[rows, one[train:]] > colours[rows, other[train:]]}
    flags = torch.tensor(turned)  # the group that is named later is the first
    for place, words in zip(PLACES[1:], (first, later), strict=True):
        read = _fitted(torch.stack(words), 2.0 * flags[:, None] - 1, train)[:, 0] > 0
        found[place] = read == flags[train:]
    return {place: float(right.float().mean()) for place, right in found.items()}


def _word(pipe: StableDiffusionPipeline, tokens: Tensor, word: str) -> int:
    """The first place of a word among tokens."""
    (token,) = pipe.tokenizer(word, add_special_tokens=False).input_ids
    return int((tokens == token).nonzero()[0, 0])


def _fitted(states: Tensor, wanted: Tensor, train: int) -> Tensor:
    """What a linear map, fitted on the first rows, makes of the others."""
    mean, spread = states[:train].mean(dim=0), states[:train].std(dim=0) + 1e-6
    inputs = torch.cat([(states - mean) / spread, torch.ones(len(states), 1)], dim=1).double()
    seen, known = inputs[:train], wanted[:train].double()
    penalty = _RIDGE * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(seen.T @ seen + penalty, seen.T @ known)
    return inputs[train:] @ weights


def main(
    pipeline: PipelineOption = PIPELINES["shapes"],
    prompts: Annotated[int, typer.Option(min=10, help="of each relation; a fifth is read")] = 10000,
    seed: Annotated[int, typer.Option(help="of scenes and paraphrases")] = 0,
    threads: ThreadsOption = None,
) -> None:
    """Probe the text encoder of a pipeline of the laboratory for the order of two objects."""
    if threads is not None:
        torch.set_num_threads(threads)
    pipe = StableDiffusionPipeline.from_pretrained(pipeline)
    rows = []
    for relation in RELATIONS:
        scenes = related_scenes(relation, prompts, seed=seed)
        found = order_read(pipe, scenes, train=prompts - prompts // 5, seed=seed)
        rows.append((relation, *(f"{found[place]:.1%}" for place in PLACES)))
    title = f"order read rightly, of {prompts // 5} prompts each; 50 % by chance"
    print_table(Table(columns=("relation", *PLACES), rows=rows, title=title))


if __name__ == "__main__":
    typer.run(main)
