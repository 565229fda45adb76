"""Freed memory that stays: counted in page faults, in a process of its own."""

import json
import subprocess
import sys

import pytest
from helpers.places import ROOT

FAULTS = """
import json, resource, sys
sys.path.insert(0, {root!r})
from stablepref.runtime.allocator import keep_freed_memory
changed = keep_freed_memory() if {keep} else False
block = 40 * 2**20
counts = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    data = bytearray(block)
    for place in range(0, block, 4096):
        data[place] = 1
    del data
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps([changed, counts]))
"""


def measured(root: str, *, keep: bool, **environment: str) -> tuple[bool, list[int]]:
    code = FAULTS.format(root=root, keep=keep)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    changed, counts = json.loads(done.stdout)
    return changed, counts


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_a_freed_block_is_used_again() -> None:
    root = str(ROOT)
    changed, kept = measured(root, keep=True)
    if not changed:
        pytest.skip("no glibc")
    _, usual = measured(root, keep=False)
    assert min(usual) > 1000  # each block comes from the kernel
    assert max(kept[1:]) < min(usual) / 10
    # What a user has set is left as it is.
    assert measured(root, keep=True, MALLOC_TRIM_THRESHOLD_="131072")[0] is False
