"""What a program has to load: `import fireprop` little more than torch, training neither plots nor the command line."""

import re
import subprocess
import sys

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(["matplotlib", "typer", "rich", "click", "sklearn", "snntorch"]))  # not to be found
"""
TRAINING = """
import warnings
import torch
from fireprop import certify, datasets, diagnose, external, gradcheck, ift, losses, nn, objectives, sweeping, training
from fireprop.plans import Settings, Splits

torch.manual_seed(0)
torch.set_num_threads(1)
features, labels = datasets.xor()
from fireprop import Spikes
data = datasets.SpikeDataset(Spikes.from_latencies(features), labels)
net = nn.Sequential(nn.LIF(2, 4, tau_mem=1.0, tau_syn=0.5), nn.LI(4, 2, tau_mem=1.0, tau_syn=0.5))
settings = Settings(t_end=4.0, epochs=3, batch_size=2, lr=0.05)
trainer = training.Trainer(net, Splits(data, None, data), objectives.LIMaximum(), settings)
before = net[0].weight.detach().clone()
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    result = training.fit(trainer, sys.argv[1])
assert not torch.equal(before, net[0].weight)
print(len(trainer.metrics), [str(each.message) for each in told])
"""


def _python(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_fireprop_loads_neither_the_compiler_nor_plots_nor_data_sets_nor_the_command_line():
    names = ("numba", "llvmlite", "matplotlib", "sklearn", "typer", "rich")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, fireprop; print([name for name in {names} if name in sys.modules])"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_public_names_are_there_at_the_first_question_and_listed_before():
    code = """
import fireprop
missing = {*fireprop.__all__, "__version__"} - {*dir(fireprop)}
named = [getattr(fireprop, name) for name in fireprop.__all__]
print(missing or "all listed", fireprop.nn.LIF.__name__, fireprop.GrazeError.__name__)
try:
    fireprop.unknown
except AttributeError as error:
    print(error)
"""
    assert _python(code) == "all listed LIF GrazeError\nmodule 'fireprop' has no attribute 'unknown'\n"


def test_training_needs_neither_plots_nor_the_command_line(tmp_path):
    """And `fit` says what it has left out."""
    out = tmp_path / "run"
    printed = _python(WITHOUT + TRAINING, str(out))
    assert re.fullmatch(r"3 \['.*run: the run has no plots, since matplotlib is not installed: .*'\]\n", printed)
    assert {path.name for path in out.iterdir()} >= {"config.json", "metrics.csv", "checkpoint.pt", "result.json"}
    assert not list(out.glob("*.png"))
