"""A task that needs memory, with units that adapt and without: `python -m benchmarks.adaptation`.

The two cues of a sample are the same or different. The second comes 3 to 10 tau_mem after the first. A cue is one spike
of each of five inputs, within 0.5 tau_mem; two groups of five inputs are the two cues. The label asks whether both cues
came from the same group. A potential forgets within a few tau_mem, so a network has to keep the first cue elsewhere.

Three networks 10-20-2 with the same number of trained weights: a recurrent layer of plain units; the same whose units
adapt; the same with slow recurrent synapses. The read-out sees what the layer fires after the second cue began. All are
trained alike. Each has the learning rate of three that is best on validation, on average over the seeds, and the epoch
that is best on validation. Then the test samples are looked at, once. A run ends early if a sample has more than 100
spikes per hidden unit: the recurrent weights have run away.

The constants of the adaptation were not tuned. Its time constant is the longest gap. A spike lowers the potential by
about half a threshold.
"""

import argparse
import itertools
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import fireprop
from fireprop import SpikeLimitError, Spikes
from fireprop.nn import LI, LIF, Sequential, Trace, initialise
from fireprop.optim import Adam

GROUP, HIDDEN = 5, 20
CUE, SHORTEST, LONGEST = 0.5, 3.0, 10.0  # in units of tau_mem
SECOND = LONGEST + CUE  # when the second cue begins
T_END = SECOND + 4.0
SIZES = {"training": 600, "validation": 300, "test": 1000}
EPOCHS, BATCH = 20, 30
RATES = (0.003, 0.01, 0.03)
SEEDS = range(5)
MOST_SPIKES = 100 * HIDDEN  # of a sample
SPIKES_PER_UNIT = 2.0  # of both cues, at the start
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "adaptation": {"adaptation": 0.5, "tau_adapt": LONGEST},
    "slow recurrent synapses": {"tau_syn_rec": LONGEST},
}


@dataclass(frozen=True)
class Samples:
    inputs: Spikes
    labels: Tensor


@dataclass(frozen=True)
class Trained:
    """A network after the epoch that is best on validation."""

    classifier: "Classifier"
    validation: float


def draw(n: int, generator: torch.Generator) -> Samples:
    """Samples whose second cue begins at SECOND."""
    cues = torch.randint(2, (n, 2), generator=generator)
    gap = SHORTEST + (LONGEST - SHORTEST) * torch.rand(n, generator=generator, dtype=torch.float64)
    times = CUE * torch.rand(n, 2, GROUP, generator=generator, dtype=torch.float64) + SECOND
    times[:, 0] -= gap[:, None]
    units = GROUP * cues[:, :, None] + torch.arange(GROUP)
    inputs = Spikes.from_padded_events(times.flatten(1), units.flatten(1), n_units=2 * GROUP)
    return Samples(inputs, (cues[:, 0] == cues[:, 1]).long())


class Classifier(nn.Module):
    """A recurrent layer, and a read-out of what it fires after the second cue began."""

    def __init__(self, options: dict[str, Any], generator: torch.Generator) -> None:
        super().__init__()
        hidden = LIF(2 * GROUP, HIDDEN, tau_mem=1.0, tau_syn=0.5, recurrent=True, generator=generator, **options)
        self.net = Sequential(hidden, LI(HIDDEN, 2, tau_mem=1.0, tau_syn=0.5, generator=generator))
        self.offset = nn.Parameter(torch.zeros(2))

    def forward(self, inputs: Spikes) -> Tensor:
        trace = self.net(inputs, t_end=T_END, max_spikes=MOST_SPIKES)
        assert isinstance(trace, Trace)
        return trace.integral(SECOND, T_END) + self.offset

    def spikes(self, samples: Samples) -> float:
        """Hidden spikes of a sample, on average."""
        with torch.no_grad():
            hidden = self.net.record(samples.inputs, t_end=T_END).spikes[0]
        return hidden.n_spikes / len(hidden)

    def accuracy(self, samples: Samples) -> float:
        with torch.no_grad():
            right = self(samples.inputs).argmax(1) == samples.labels
        return float(right.double().mean())


def train(
    options: dict[str, Any], lr: float, seed: int, *, sizes: dict[str, int] = SIZES, epochs: int = EPOCHS
) -> Trained:
    training, validation, _ = parts(seed, sizes)
    generator = torch.Generator().manual_seed(1000 + seed)
    classifier = Classifier(options, generator)
    initialise(classifier.net, training.inputs[:100], t_end=T_END, spikes_per_unit=SPIKES_PER_UNIT)
    optimiser = Adam(classifier.parameters(), lr=lr)
    best, state = -1.0, classifier.state_dict()
    for _ in range(epochs):
        try:
            _epoch(classifier, optimiser, training, generator)
            found = classifier.accuracy(validation)
        except SpikeLimitError:
            break
        if found > best:
            best, state = found, {name: value.clone() for name, value in classifier.state_dict().items()}
    classifier.load_state_dict(state)
    return Trained(classifier, best)


def _epoch(classifier: Classifier, optimiser: Adam, training: Samples, generator: torch.Generator) -> None:
    for batch in torch.randperm(len(training.labels), generator=generator).split(BATCH):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(classifier(training.inputs[batch]), training.labels[batch])
        loss.backward()
        optimiser.step()


def parts(seed: int, sizes: dict[str, int]) -> list[Samples]:
    generator = torch.Generator().manual_seed(seed)
    return [draw(n, generator) for n in sizes.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; default: all")
    chosen_networks = parser.parse_args().networks or list(NETWORKS)
    strange = [name for name in chosen_networks if name not in NETWORKS]
    if strange:
        parser.error(f"networks: {strange[0]!r} is none of {', '.join(NETWORKS)}")
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    print(f"{'network':26}{'rate':>7}{'validation, %':>16}{'test, %':>16}{'each':>40}{'spikes':>16}{'CPU s':>8}")
    for name in chosen_networks:
        options = NETWORKS[name]
        begun = time.process_time()
        runs = {(lr, seed): train(options, lr, seed) for lr, seed in itertools.product(RATES, SEEDS)}
        lr = max(RATES, key=lambda rate: statistics.mean(runs[rate, seed].validation for seed in SEEDS))
        chosen = [runs[lr, seed] for seed in SEEDS]
        samples = [parts(seed, SIZES)[2] for seed in SEEDS]
        test = [100.0 * run.classifier.accuracy(part) for run, part in zip(chosen, samples, strict=True)]
        spikes = [run.classifier.spikes(part) for run, part in zip(chosen, samples, strict=True)]
        each = " ".join(f"{value:.1f}" for value in test)
        validation = spread([100.0 * run.validation for run in chosen])
        columns = f"{validation:>16}{spread(test):>16}{each:>40}{spread(spikes):>16}"
        print(f"{name:26}{lr:>7g}{columns}{time.process_time() - begun:>8.0f}", flush=True)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    main()
