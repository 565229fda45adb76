"""Where the repository, its tests and what they read lie, however deep a test module is."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
DOCS = ROOT / "docs"
RECORDS = TESTS / "parity"
"""Scores recorded from official code."""
