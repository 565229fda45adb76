"""The five main names of the integrations."""

from pathlib import Path

from helpers.isolated import heavy_imports, isolated

NAMES = """
from types import FunctionType
from stablepref.integrations import best_of_n, DifferentiableReward, Ensemble, RewardGuidance
from stablepref.integrations import finetune
assert isinstance(best_of_n, FunctionType) and isinstance(finetune, FunctionType)
import stablepref.integrations as integrations
from stablepref.integrations.best_of_n import Selection, best_of_n as again
assert integrations.best_of_n is best_of_n is again
print("all are functions")
"""


def test_they_import_nothing_until_one_is_used(tmp_path: Path) -> None:
    assert heavy_imports("import stablepref.integrations", tmp_path) == set()


def test_they_are_functions_whatever_was_imported_before(tmp_path: Path) -> None:
    """`best_of_n` and `finetune` are packages too, which an import would put in their place."""
    packages = "import stablepref.integrations.best_of_n, stablepref.integrations.finetune.run"
    assert isolated(packages + NAMES, tmp_path) == "all are functions"
