"""Perturbations after which a picture still shows its prompt: none is mirrored."""

from typing import Final

from stablepref.augment.perturbations import TABLE_1, UNSEEN

CROPS: Final = tuple(name.removeprefix("hflip+") for name in TABLE_1)
"""Those of the paper's Table 1 without its flips, which would change what is left of what."""
PERTURBATIONS: Final = (*CROPS, *UNSEEN)
"""All that the laboratory's models are measured under: crops, and others that no training saw."""
