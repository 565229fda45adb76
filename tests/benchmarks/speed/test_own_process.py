"""Measurements in another process, and what the processes that are started take."""

import json
import subprocess
import sys
import time

import pytest

from stablepref.benchmarks.speed.own_process import ProcessTree, measure_apart

COUNTS = """
import json, os, sys
job = json.load(open(sys.argv[1]))
found = {"sum": sum(job["numbers"]), **{name: os.environ[name] for name in job["names"]}}
json.dump(found, open(job["out"], "w"))
"""


def test_a_command_gets_its_job_and_its_environment() -> None:
    measured = measure_apart(
        [sys.executable, "-c", COUNTS],
        {"numbers": [1, 2, 3], "names": ["OMP_NUM_THREADS", "SPEED_TEST"]},
        what="a sum",
        threads=3,
        environment={"SPEED_TEST": "set"},
    )
    assert measured == {"sum": 6, "OMP_NUM_THREADS": "3", "SPEED_TEST": "set"}


@pytest.mark.parametrize("script", ["pass", "import sys; sys.exit('no such model')"])
def test_a_command_that_fails_or_writes_nothing_is_an_error(script: str) -> None:
    status, said = ("0", "") if script == "pass" else ("1", "no such model")
    with pytest.raises(RuntimeError, match=rf"a sum failed with exit status {status}:\n{said}"):
        measure_apart([sys.executable, "-c", script], json.loads("{}"), what="a sum", threads=1)


def test_a_tree_counts_processes_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stablepref.benchmarks.speed.own_process.INTERVAL", 0.05)
    busy = (
        "import subprocess, sys, time\n"
        "held = bytearray(100_000_000)\n"
        "while time.process_time() < 0.5: pass\n"
        "if sys.argv[1:]: subprocess.run([sys.executable, *sys.orig_argv[1:-1]])\n"
        "time.sleep(0.3)"
    )
    began = time.process_time()
    with ProcessTree() as tree:
        subprocess.run([sys.executable, "-c", busy, "parent"], check=True)
    assert tree.cpu_seconds() > 0.9  # no less than both worked; what else runs here counts too
    assert tree.peak_bytes > 100_000_000
    assert time.process_time() - began < tree.cpu_seconds()  # its own is not among them
