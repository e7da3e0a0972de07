"""How networks of random shapes start: `python -m benchmarks.starts`. Takes three minutes.

Chains of layers, recurrent or not, dense or sparse, and populations that excite and inhibit one another, each with
three starts: weights that drive each unit several times over (`gain=2.8, recurrent_spread=0.5`, once the default), the
default weights, and the default weights after `nn.initialise`. Once each input fires one spike, and once 1 to 30.
Wanted is one spike per unit; of the first two starts, which know nothing of the inputs, the rate of the inputs.

Printed are the shares of layers whose spikes per unit are within a factor of 3 and of 1.5 of the wanted number, of
layers that stay silent, and of networks that raise SpikeLimitError or ValueError. Then, over networks that ran: by what
factor the norm of the gradient of the mean output spike time differs between neighbouring layers, at most; the gradient
by the spike times of a layer (chains), by its weights, and by its weights from the second layer on.

A last table trains 3-20-2 to tell which of two inputs fires first, by the first output spike: the accuracy after 15
epochs, over ten runs of five seeds and two learning rates.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import fireprop
from fireprop import SpikeLimitError, Spikes
from fireprop.losses import first_spike_cross_entropy, first_spike_predictions
from fireprop.nn import LIF, Network, Sequential, initialise
from fireprop.optim import Adam

N_SHAPES = 50
BATCH = 8
LIMIT = 1000  # spikes per unit: a runaway
KINDS = ("chain", "recurrent", "populations")


@dataclass(frozen=True)
class Shape:
    """A network and its inputs. Times in units of tau_mem; duration is how long inputs arrive."""

    kind: str
    widths: tuple[int, ...]
    tau_syn: float
    density: float
    rate: int
    duration: float
    seed: int

    @property
    def t_end(self) -> float:
        return self.duration + 5.0 * (1.0 + self.tau_syn) * (1 + len(self.widths) / 5)


def shapes() -> list[Shape]:
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    def log_uniform(low: float, high: float) -> float:
        return math.exp(uniform(math.log(low), math.log(high)))

    found = []
    for seed in range(N_SHAPES):
        kind = KINDS[seed % len(KINDS)]
        depth = int(uniform(1, 11))
        widths = tuple(round(log_uniform(20, 300)) for _ in range(depth + 1))
        density = 1.0 if seed % 2 else uniform(0.1, 0.5)
        rate = round(log_uniform(1, 30))
        found.append(Shape(kind, widths, log_uniform(0.1, 2.0), density, rate, log_uniform(1.0, 20.0), seed))
    return found


def mask_of(shape: Shape, n_out: int, n_in: int, generator: torch.Generator) -> Tensor | None:
    """At least five synapses per unit, unless there are fewer sources; None for all."""
    if shape.density == 1.0:
        return None
    drawn = torch.rand(n_out, n_in, generator=generator)
    least = drawn.sort(dim=1).values[:, min(5, n_in) - 1 :][:, :1]
    return (drawn < shape.density) | (drawn <= least)


def driven(n_in: int, n_out: int, options: dict[str, Any]) -> LIF:
    """A layer that is driven several times over."""
    layer = LIF(n_in, n_out, **options)
    layer.reset_parameters(gain=2.8, recurrent_spread=0.5 if layer.recurrent else None, generator=options["generator"])
    return layer


def network(shape: Shape, make: Callable[[int, int, dict[str, Any]], LIF] | None) -> Sequential | Network:
    """make: a layer; None for the default weights."""
    generator = torch.Generator().manual_seed(shape.seed)
    constants: dict[str, Any] = {"tau_mem": 1.0, "tau_syn": shape.tau_syn, "generator": generator}
    if shape.kind != "populations":
        layers = []
        for n_in, n_out in pairwise(shape.widths):
            options = {"mask": mask_of(shape, n_out, n_in, generator), "recurrent": shape.kind == "recurrent"}
            layers.append((make or (lambda a, b, given: LIF(a, b, **given)))(n_in, n_out, constants | options))
        return Sequential(*layers)
    n_in, n_units = shape.widths[:2]
    sizes = {"input": n_in, "e": max(4, 4 * n_units // 5), "i": max(2, n_units // 5), "out": 10}
    net = Network(n_in, generator=generator)
    for name in ("e", "i", "out"):
        net.add(name, sizes[name], tau_mem=1.0)
    for pre, post in (("input", "e"), ("e", "i"), ("e", "e"), ("i", "e"), ("i", "i"), ("e", "out")):
        mask = mask_of(shape, sizes[post], sizes[pre], generator)
        weight = None if make is None else make(sizes[pre], sizes[post], constants | {"mask": mask}).weight.detach()
        net.connect(pre, post, tau_syn=shape.tau_syn, mask=mask, weight=weight)
    return net


def inputs_of(shape: Shape, rate: int) -> Spikes:
    """Each input fires so often, evenly at random."""
    generator = torch.Generator().manual_seed(shape.seed)
    n = shape.widths[0]
    times = shape.duration * torch.rand(BATCH, n, rate, generator=generator, dtype=torch.float64)
    return Spikes.from_lists(times.sort().values.tolist())


@dataclass
class Outcome:
    """What was counted over all shapes."""

    errors: list[float] = field(default_factory=list)  # |log(spikes per unit / wanted)| of every layer
    n_silent: int = 0
    n_raised: int = 0
    by_times: list[float] = field(default_factory=list)  # per network, the largest ratio of neighbouring layers
    by_weights: list[float] = field(default_factory=list)
    by_later_weights: list[float] = field(default_factory=list)

    def share(self, factor: float) -> float:
        return statistics.mean(error <= math.log(factor) for error in self.errors)

    def line(self, name: str) -> str:
        return (
            f"{name:26}{self.share(3.0):>8.1%}{self.share(1.5):>8.1%}{self.n_silent / len(self.errors):>8.1%}"
            f"{self.n_raised / N_SHAPES:>8.1%}{summary(self.by_times)}{summary(self.by_weights)}"
            f"{summary(self.by_later_weights)}"
        )


def summary(steps: list[float]) -> str:
    """Median, 90th percentile, and the share that is at most 10."""
    if not steps:
        return f"{'-':>8}" * 3
    ordered = sorted(steps)
    return (
        f"{statistics.median(ordered):>8.1f}{ordered[int(0.9 * len(ordered))]:>8.1f}"
        f"{statistics.mean(step <= 10.0 for step in ordered):>8.1%}"
    )


def rates(net: nn.Module, inputs: Spikes, t_end: float) -> tuple[list[float], bool]:
    """Spikes per unit of every layer, infinite from a runaway on, and whether there is one."""
    if isinstance(net, Network):
        largest = max(net._population(name).size for name in net.populations)
        try:
            record = net.record(inputs, t_end=t_end, max_spikes=LIMIT * largest)
        except SpikeLimitError:
            return [math.inf] * len(net.populations), True
        return [spikes.n_spikes / (BATCH * spikes.n_units) for spikes in record], False
    found: list[float] = []
    spikes, layers = inputs, list(net.children())
    for layer in layers:
        try:
            spikes = layer(spikes, t_end=t_end, max_spikes=LIMIT * layer.out_features)
        except SpikeLimitError:
            return found + [math.inf] * (len(layers) - len(found)), True
        found.append(spikes.n_spikes / (BATCH * spikes.n_units))
    return found, False


def step(norms: list[float]) -> list[float]:
    """The largest ratio of neighbours, if all of them are above 0 and there are two."""
    if len(norms) < 2 or min(norms) == 0.0:
        return []
    return [max(max(a / b, b / a) for a, b in pairwise(norms))]


def note_gradients(outcome: Outcome, net: nn.Module, inputs: Spikes, t_end: float) -> None:
    """Differentiate the mean output spike time by the spike times and the weights of every layer."""
    trains: list[Spikes] = []
    if isinstance(net, Network):
        out = net(inputs, t_end=t_end, on_graze="zero")
        weights = [net.connections[key].weight for key in ("input->e", "e->out")]
    else:
        out = inputs
        for layer in net.children():  # one by one, so that the times between them are in torch's graph
            out = layer(out, t_end=t_end, on_graze="zero")
            trains.append(out)
            out.times.retain_grad()
        weights = [layer.weight for layer in net.children()]
    if out.n_spikes == 0:
        return
    out.times.mean().backward()
    outcome.by_times += step([float(spikes.times.grad.norm()) for spikes in trains])
    norms = [float(weight.grad.double().norm()) for weight in weights]
    outcome.by_weights += step(norms)
    outcome.by_later_weights += step(norms[1:])


def measure(outcome: Outcome, net: nn.Module, inputs: Spikes, t_end: float, wanted: float) -> None:
    with torch.no_grad():
        found, raised = rates(net, inputs, t_end)
    outcome.n_raised += raised
    outcome.n_silent += sum(rate == 0.0 for rate in found)
    outcome.errors += [abs(math.log(rate / wanted)) if rate > 0.0 else math.inf for rate in found]
    if not raised:
        note_gradients(outcome, net, inputs, t_end)


def compare(title: str, rate_of: Callable[[Shape], int]) -> None:
    outcomes = {name: Outcome() for name in ("gain 2.8", "default", "default, then initialise")}
    for shape in shapes():
        rate = rate_of(shape)
        inputs = inputs_of(shape, rate)
        measure(outcomes["gain 2.8"], network(shape, driven), inputs, shape.t_end, rate)
        net = network(shape, None)
        measure(outcomes["default"], net, inputs, shape.t_end, rate)
        net.zero_grad()
        outcome = outcomes["default, then initialise"]
        try:
            initialise(net, inputs, t_end=shape.t_end)
        except ValueError as error:
            outcome.n_raised += 1
            print(f"{shape}: {error}")
        measure(outcome, net, inputs, shape.t_end, 1.0)
    print(f"\n{title}")
    titles = "".join(f"{f'by {by}':>24}" for by in ("spike times", "weights", "later weights"))
    print(f"{'':26}{'layers':>16}{'silent':>8}{'nets':>8}{titles}")
    steps = f"{'median':>8}{'90 %':>8}{'<= 10':>8}"
    print(f"{'':26}{'x3':>8}{'x1.5':>8}{'layers':>8}{'raise':>8}{steps * 3}")
    for name, outcome in outcomes.items():
        print(outcome.line(name), flush=True)


def accuracy(hidden_gain: float | None, output_gain: float | None, seed: int, lr: float) -> float:
    """Of a trained 3-20-2; gains as of `reset_parameters`, None for the default weights."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(200, 2, generator=generator, dtype=torch.float64)
    labels = (features[:, 1] < features[:, 0]).long()
    inputs = Spikes.from_latencies(torch.cat([features, torch.zeros(200, 1, dtype=torch.float64)], dim=1))
    net = Sequential(*(LIF(a, b, tau_mem=1.0, tau_syn=0.5, generator=generator) for a, b in ((3, 20), (20, 2))))
    for layer, gain in zip(net, (hidden_gain, output_gain), strict=True):
        layer.reset_parameters(gain=gain, generator=generator)
    optimizer = Adam(net.parameters(), lr=lr)
    for _ in range(15):
        for batch in torch.randperm(200, generator=generator).split(50):
            out = net(inputs[batch], t_end=4.0, stop="first_spikes", on_graze="zero")
            loss = first_spike_cross_entropy(out, labels[batch], tau=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = first_spike_predictions(net(inputs, t_end=4.0))
    return float((found == labels).double().mean())


def train() -> None:
    print(f"\n{'first-spike training':40}{'median':>9}{'worst':>9}")
    starts: dict[str, tuple[float | None, float | None]] = {
        "gain 2.8 in both layers": (2.8, 2.8),
        "default": (None, None),
        "default, gain 2.8 in the output layer": (None, 2.8),
    }
    for name, gains in starts.items():
        found = [accuracy(*gains, seed, lr) for seed in range(5) for lr in (0.005, 0.02)]
        print(f"{name:40}{statistics.median(found):>9.1%}{min(found):>9.1%}", flush=True)


def main() -> None:
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    compare("One spike per input", lambda _: 1)
    compare("1 to 30 spikes per input", lambda shape: shape.rate)
    train()


if __name__ == "__main__":
    main()
