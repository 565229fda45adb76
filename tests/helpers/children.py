"""Processes of their own for tests: what they are told, so that they find `helpers` too."""

import os

from helpers.places import TESTS


def python_path() -> str:
    """PYTHONPATH with the folder of the tests first, wherever the child's own module lies."""
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(TESTS), before] if before else [str(TESTS)])


def child_environment() -> dict[str, str]:
    """For a child on one thread of the CPU, with nothing told to accelerate."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": python_path()}
    return inherited | own
