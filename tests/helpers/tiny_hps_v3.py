"""HPS v3 at a tiny size, from files in the official format with made-up texts."""

import copy
import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from helpers.places import RECORDS
from stablepref.benchmarks.parity import hps_v3
from stablepref.models.catalog import BY_NAME
from stablepref.models.entry import Entry
from stablepref.models.hps_v3 import HPSv3Scorer

INSTRUCTION = hps_v3.INSTRUCTION + hps_v3.TAIL


def entry(sizes: hps_v3.Sizes = hps_v3.TINY) -> Entry:
    """The zoo's entry for these sizes and the made-up instruction."""
    digest = hashlib.sha256(INSTRUCTION.encode()).hexdigest()
    return replace(BY_NAME["hps-v3"], sizes=sizes | {"instruction_sha256": digest})


def official_scorer(sizes: hps_v3.Sizes) -> HPSv3Scorer:
    """The scorer of the official files with seeded weights."""
    with TemporaryDirectory() as folder:
        scorer = entry(sizes).build(hps_v3.write_official_files(sizes, Path(folder)))
    assert isinstance(scorer, HPSv3Scorer)
    return scorer


@cache
def _built() -> HPSv3Scorer:
    return official_scorer(hps_v3.TINY)


def tiny_hps_v3() -> HPSv3Scorer:
    """A copy of the tiny scorer."""
    return copy.deepcopy(_built())


def record(case: str) -> dict[str, Any]:
    """What the official code gave."""
    found: dict[str, Any] = json.loads(
        (RECORDS / f"hps-v3-{case}.json").read_text(encoding="utf-8")
    )
    return found
