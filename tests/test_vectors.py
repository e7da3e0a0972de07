"""LLVM takes the loops that carry the cost of a run in vectors: on AVX2, on AVX-512, on NEON, and on this machine.

Nothing is run: the loops are compiled, and the assembly is read.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.white_box

SCRIPT = Path(__file__).parent / "vector_loops.py"
NEON = "cortex-a76"


def instructions(*cpus, **environment):
    """For each processor and loop, how many instructions work on vectors."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    result = subprocess.run(
        [sys.executable, SCRIPT, *cpus], env={**clean, **environment}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def without_vectors(counts):
    return {loop for loop, number in counts.items() if number == 0}


@pytest.mark.slow
def test_the_loops_that_carry_the_cost_are_in_vectors_on_this_machine():
    assert without_vectors(instructions()["host"]) == set()


@pytest.mark.slow
@pytest.mark.evidence
def test_the_loops_that_carry_the_cost_are_in_vectors_on_avx2_avx512_and_neon():
    found = instructions("x86-64-v3", "x86-64-v4", NEON, NUMBA_OPT="0")
    assert {cpu: without_vectors(counts) for cpu, counts in found.items()} == {cpu: set() for cpu in found}
