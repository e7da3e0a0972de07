"""The example of PyTorch Lightning runs, and shows what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "with_lightning.py"


@pytest.mark.slow
def test_the_example_resumes_to_the_bit_and_its_gradient_is_exact():
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    learnt, resumed, gradient = done.stdout.splitlines()
    loss, accuracy = re.fullmatch(r"epoch 4: loss (0\.\d+), accuracy (\d+\.\d)%", learnt).groups()
    assert float(loss) < 1.0
    assert float(accuracy) > 50.0
    assert resumed == "resumed after epoch 2: the same weights, bit for bit"
    exact, difference = map(float, re.fullmatch(r"exact (\S+), central difference (\S+)", gradient).groups())
    assert exact == pytest.approx(difference, rel=1e-6)
