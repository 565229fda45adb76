"""The laboratory's own prompts, by category: 200 of test scenes, and others to choose by."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from .language import describe
from .scenes import MAX_GROUPS, Scene, Split, sample_scene, split_of

PROMPTS_PER_CATEGORY = 20


@dataclass(frozen=True)
class LabPrompt:
    """One prompt.

    Attributes:
        prompt: a paraphrase of the scene.
        category: one of `CATEGORIES`.
        scene: what a picture must show.
    """

    prompt: str
    category: str
    scene: Scene


def _plain(scene: Scene, *, groups: int, related: bool) -> bool:
    """One object in each of `groups` groups, without sizes and background."""
    sized = any(group.size for group in scene.groups)
    single = len(scene.groups) == scene.objects == groups
    return single and not sized and not scene.background and related == bool(scene.relation)


def _shared(scene: Scene) -> int:
    """How many attributes the first two groups share."""
    one, other = scene.groups[:2]
    return (one.colour == other.colour) + (one.shape == other.shape)


CATEGORIES: dict[str, Callable[[Scene], bool]] = {
    "single object": lambda scene: scene.objects == 1,
    "counting": lambda scene: len(scene.groups) == 1 and scene.objects > 1,
    "colour binding": lambda scene: _plain(scene, groups=2, related=False) and not _shared(scene),
    "shared attribute": lambda s: _plain(s, groups=2, related=False) and bool(_shared(s)),
    "left and right": lambda s: _plain(s, groups=2, related=True) and s.relation == "left of",
    "above and below": lambda s: _plain(s, groups=2, related=True) and s.relation == "above",
    "sizes": lambda s: s.objects == len(s.groups) > 1 and any(group.size for group in s.groups),
    "backgrounds": lambda s: s.objects > 1 and s.background is not None,
    "three objects": lambda scene: _plain(scene, groups=3, related=False),
    "rows and columns of three": lambda scene: _plain(scene, groups=MAX_GROUPS, related=True),
}
"""Whether a scene belongs to a category. One that belongs to several is listed under one."""


def lab_prompts(
    split: Split = "test", *, per_category: int = PROMPTS_PER_CATEGORY
) -> list[LabPrompt]:
    """The prompt set, the same on every call.

    Args:
        split: "test" is the prompt set; "validation" gives prompts to choose by.
        per_category: prompts of each category.

    Returns:
        The prompts, category by category in the order of `CATEGORIES`. No scene occurs twice.
    """
    return list(_lab_prompts(split, per_category))


@cache
def _lab_prompts(split: Split, per_category: int) -> tuple[LabPrompt, ...]:
    prompts: dict[Scene, LabPrompt] = {}
    for category, belongs in CATEGORIES.items():
        rng = random.Random(f"prompt set {split} {category}")
        found = 0
        while found < per_category:
            scene = sample_scene(rng)
            if belongs(scene) and split_of(scene) == split and scene not in prompts:
                prompts[scene] = LabPrompt(describe(scene, rng), category, scene)
                found += 1
    return tuple(prompts.values())
