"""The page on augmentation shows what runs."""

from helpers.docs import python_blocks
from helpers.places import DOCS

from stablepref.augment.perturbations import PERTURBATIONS, Perturbation


def test_python_blocks_run() -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        for block in python_blocks((DOCS / "augmentation.md").read_text()):
            exec(compile(block, "docs/augmentation.md", "exec"), names)
        own = names["posterise"]
        assert isinstance(own, Perturbation)
        assert PERTURBATIONS[own.name] is own
    finally:
        PERTURBATIONS.unregister("posterise")
