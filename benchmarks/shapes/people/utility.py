"""The true utility of a picture under its prompt: what people would agree on without noise."""

from collections.abc import Mapping

import numpy as np

from stablepref.evaluation.means import Array

from ..world.scenes import Scene
from .alignment import MISTAKE_COSTS, find_mistakes
from .fidelity import FAULT_COSTS

TERMS = (*MISTAKE_COSTS, *FAULT_COSTS)
"""What lowers utility: the kinds of mistake, counted, then the faults, by severity."""

COSTS: Array = np.array([*MISTAKE_COSTS.values(), *FAULT_COSTS.values()])
"""Loss of utility for one unit of each term, shape ``(terms,)``."""


def utility_terms(wanted: Scene, shown: Scene, faults: Mapping[str, float]) -> Array:
    """The terms of a picture's utility.

    Args:
        wanted: The scene of the prompt.
        shown: The scene of the picture.
        faults: Severities by the name of the fault; absent ones are 0.

    Returns:
        Numbers of mistakes and severities in the order of `TERMS`, shape ``(terms,)``.
    """
    mistakes = find_mistakes(wanted, shown)
    return np.array([*mistakes.values(), *(faults.get(kind, 0.0) for kind in FAULT_COSTS)])


def true_utility(terms: Array) -> Array:
    """Utility, 0 for a flawless picture and less for any other.

    .. code-block:: text

        u = alignment + fidelity
        alignment = - (1.0 colours + 1.0 shapes + 0.6 sizes + 0.8 counts + 1.6 missing + 0.8 extra
                       + 1.0 relation + 0.6 background)
        fidelity  = - (1.5 blur + 1.2 noise + 1.2 contrast + 1.0 clutter + 1.0 cut + 1.0 overlap)

    The costs are a choice of this laboratory.

    Args:
        terms: From `utility_terms`, shape ``(..., terms)``.

    Returns:
        Utility in units of one wrong colour, shape ``(...)``.
    """
    return -(terms @ COSTS)
