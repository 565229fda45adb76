"""The five main names of the integrations."""

import sys
from pathlib import Path

from helpers.forked import start
from helpers.isolated import heavy_imports

PACKAGES = "import stablepref.integrations.best_of_n, stablepref.integrations.finetune.run"
NAMES = """
from types import FunctionType
from stablepref.integrations import best_of_n, DifferentiableReward, Ensemble, RewardGuidance
from stablepref.integrations import finetune
assert isinstance(best_of_n, FunctionType) and isinstance(finetune, FunctionType)
import stablepref.integrations as integrations
from stablepref.integrations.best_of_n import Selection, best_of_n as again
assert integrations.best_of_n is best_of_n is again
"""


def test_they_import_nothing_until_one_is_used(tmp_path: Path) -> None:
    assert heavy_imports("import stablepref.integrations", tmp_path) == set()


def import_packages_first() -> None:
    """In a process that has imported nothing of this package yet."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "stablepref"]:
        del sys.modules[name]
    exec(PACKAGES + NAMES, {})


def test_they_are_functions_whatever_was_imported_before() -> None:
    """`best_of_n` and `finetune` are packages too, which an import would put in their place."""
    process = start(import_packages_first)
    process.join()
    assert process.exitcode == 0
