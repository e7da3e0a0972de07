"""What constants beyond the plain ones cost: `python -m benchmarks.physics`.

Three networks without a stop, each beside itself with more constants and the same weights, in turns: CPU milliseconds
forward and backward on one thread, medians, and their ratios to the plain network. Spikes per sample and the engine are
printed for each, since a comparison is fair at equal activity only.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import fireprop
from fireprop import Spikes
from fireprop.nn import LIF, Network, Sequential
from fireprop.nn.record import Record

RUNS = 9
Draw = Callable[[torch.Generator], Tensor]


@dataclass(frozen=True)
class Shape:
    """Inputs, hidden units and outputs, and the activity: input spikes per sample, the mean and the spread of hidden
    weights and of recurrent ones, the end of a sample."""

    inputs: int
    hidden: int
    outputs: int
    batch: int
    input_spikes: int
    weight: tuple[float, float]
    above: tuple[float, float]
    own: float | None = None
    t_end: float = 2.5


SMALL = Shape(5, 150, 3, 150, 5, (1.5, 1.2), (0.93, 0.1))
DENSE = Shape(784, 256, 10, 50, 150, (0.05, 0.15), (0.05, 0.1))
RECURRENT = Shape(100, 128, 10, 16, 300, (0.06, 0.12), (0.05, 0.1), own=0.15)
SHAPES = {"5-150-3": SMALL, "784-256-10": DENSE, "100-128-10, recurrent": RECURRENT}


def fixed(*shape: int, value: float) -> Draw:
    return lambda _: torch.full(shape, value, dtype=torch.float64)


def spread(*shape: int, low: float, high: float, values: int | None = None) -> Draw:
    """Values drawn evenly, or so many distinct ones."""

    def draw(generator: torch.Generator) -> Tensor:
        drawn = torch.rand(shape, dtype=torch.float64, generator=generator)
        if values is not None:
            drawn = (drawn * values).floor() / values
        return low + (high - low) * drawn

    return draw


def trained(draw: Draw) -> Draw:
    return lambda generator: nn.Parameter(draw(generator))


def cases(shape: Shape) -> dict[str, dict[str, Draw]]:
    """The constants of the hidden layer by name, beside those of the plain network."""
    n, n_in = shape.hidden, shape.inputs
    tau_syn = fixed(value=0.25)
    found = {
        "tau_mem per unit, all equal": {"tau_mem": fixed(n, value=1.0)},
        "tau_mem per unit, 8 values": {"tau_mem": spread(n, low=0.95, high=1.05, values=8)},
        "tau_mem per unit": {"tau_mem": spread(n, low=0.95, high=1.05)},
        "one delay": {"delay": fixed(value=0.1)},
        "a bias": {"bias": spread(n, low=-0.05, high=0.05)},
        "an initial state": {"v_start": spread(n, low=-0.1, high=0.1), "i_start": spread(n, low=-0.1, high=0.1)},
        "adaptation": {"adaptation": fixed(value=0.01), "tau_adapt": fixed(value=4.0)},
        "adaptation, tau_mem per unit": {
            "adaptation": fixed(value=0.01),
            "tau_adapt": fixed(value=4.0),
            "tau_mem": spread(n, low=0.95, high=1.05),
        },
        "adaptation, tau_mem trained": {
            "adaptation": fixed(value=0.01),
            "tau_adapt": fixed(value=4.0),
            "tau_mem": trained(fixed(value=1.0)),
        },
        "adaptation, t_ref trained": {
            "adaptation": fixed(value=0.01),
            "tau_adapt": fixed(value=4.0),
            "t_ref": trained(fixed(value=0.01)),
        },
        "two tau_syn per unit": {"tau_syn": spread(1, n_in, low=0.24, high=0.28, values=2)},
        "tau_mem trained": {"tau_mem": trained(fixed(value=1.0))},
        "tau_syn trained": {"tau_syn": trained(tau_syn)},
        "t_ref trained": {"t_ref": trained(fixed(value=0.01))},
        "a delay trained": {"delay": trained(fixed(value=0.1))},
        "tau_mem, tau_syn, t_ref trained, per unit": {
            "tau_mem": trained(spread(n, low=0.95, high=1.05)),
            "tau_syn": trained(spread(n, 1, low=0.24, high=0.26)),
            "t_ref": trained(spread(n, low=0.01, high=0.02)),
        },
    }
    if n_in < 100:
        found |= {
            "a delay per source, trained": {"delay": trained(spread(1, n_in, low=0.0, high=0.3))},
            "a delay per synapse": {"delay": spread(n, n_in, low=0.0, high=0.3)},
            "a delay per synapse, trained": {"delay": trained(spread(n, n_in, low=0.0, high=0.3))},
            "a tau_syn per synapse, trained": {"tau_syn": trained(spread(n, n_in, low=0.2, high=0.3))},
        }
    if shape.own is not None:
        found["two tau_syn per unit"] = {"tau_syn_rec": fixed(value=0.28)}
        found["tau_syn trained"] = {"tau_syn": trained(tau_syn), "tau_syn_rec": tau_syn}
        del found["tau_mem, tau_syn, t_ref trained, per unit"]
        found["tau_syn and tau_syn_rec trained, still equal"] = {
            "tau_syn": trained(tau_syn),
            "tau_syn_rec": trained(tau_syn),
        }
        found["one delay of own spikes"] = {"delay_rec": fixed(value=0.1)}
    return found


def network(shape: Shape, draws: dict[str, Draw]) -> Sequential:
    """The same weights for all constants."""
    generator = torch.Generator().manual_seed(1)
    constants: dict[str, Draw] = {"tau_mem": fixed(value=1.0), "tau_syn": fixed(value=0.25), **draws}
    drawn: dict[str, Any] = {name: draw(generator) for name, draw in constants.items()}
    hidden = LIF(shape.inputs, shape.hidden, recurrent=shape.own is not None, **drawn)
    above = LIF(shape.hidden, shape.outputs, tau_mem=1.0, tau_syn=0.25)
    weights = torch.Generator().manual_seed(2)
    with torch.no_grad():
        hidden.weight.normal_(*shape.weight, generator=weights)
        if shape.own is not None:
            hidden.recurrent_weight.normal_(0.0, shape.own, generator=weights)
        above.weight.normal_(*shape.above, generator=weights)
    return Sequential(hidden, above)


def two_populations(plain: Sequential) -> Network:
    """The recurrent layer of a network as two populations, of a fifth and the rest of its units."""
    hidden, above = plain[0], plain[1]
    first = hidden.out_features // 5
    parts = {"i": slice(0, first), "e": slice(first, hidden.out_features)}
    net = Network(hidden.in_features)
    for name, units in parts.items():
        net.add(name, units.stop - units.start, tau_mem=1.0)
    net.add("out", above.out_features, tau_mem=1.0)
    for post, rows in parts.items():
        net.connect("input", post, tau_syn=0.25, weight=hidden.weight.detach()[rows])
        for pre, columns in parts.items():
            net.connect(pre, post, tau_syn=0.25, weight=hidden.recurrent_weight.detach()[rows, columns])
        net.connect(post, "out", tau_syn=0.25, weight=above.weight.detach()[:, rows])
    return net


def inputs_of(shape: Shape) -> Spikes:
    generator = torch.Generator().manual_seed(0)
    n = shape.batch * shape.input_spikes
    times = 0.5 + 1.5 * torch.rand(n, dtype=torch.float64, generator=generator)
    units = torch.randint(shape.inputs, (n,), generator=generator)
    samples = torch.arange(shape.batch).repeat_interleave(shape.input_spikes)
    return Spikes.from_events(times, units, samples, n_units=shape.inputs, batch_size=shape.batch)


def measure(net: nn.Module, inputs: Spikes, t_end: float) -> tuple[Record, float, float]:
    """A run, and milliseconds forward and backward."""
    start = time.process_time()
    record = net.record(inputs, t_end=t_end, t_start=0.0)
    middle = time.process_time()
    sum(layer.times.sum() for layer in record).backward()
    return record, 1e3 * (middle - start), 1e3 * (time.process_time() - middle)


def compare(name: str, net: nn.Module, plain: nn.Module, inputs: Spikes, t_end: float) -> None:
    """Print what a network costs beside the plain one; the first two runs compile."""
    found: list[tuple[float, float, float, float]] = []
    for _ in range(RUNS + 2):
        record, forward, backward = measure(net, inputs, t_end)
        _, plain_forward, plain_backward = measure(plain, inputs, t_end)
        found.append((forward, backward, forward / plain_forward, backward / plain_backward))
    forward, backward, *ratios = (statistics.median(values) for values in zip(*found[2:], strict=True))
    spikes = sum(layer.n_spikes for layer in record.spikes) / inputs.batch_size
    engine = record.engines[0].engine
    print(
        f"{name:44}{engine:>7}{spikes:>8.0f}{forward:>9.2f}{backward:>10.2f}{ratios[0]:>9.2f}{ratios[1]:>10.2f}",
        flush=True,
    )


def main() -> None:
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    for title, shape in SHAPES.items():
        print(f"{title:44}{'engine':>7}{'spikes':>8}{'forward':>9}{'backward':>10}{'ratio':>9}{'ratio':>10}")
        inputs, plain = inputs_of(shape), network(shape, {})
        compare("nothing more", network(shape, {}), plain, inputs, shape.t_end)
        if shape.own is not None:
            compare("two populations", two_populations(plain), plain, inputs, shape.t_end)
        for name, draws in cases(shape).items():
            compare(name, network(shape, draws), plain, inputs, shape.t_end)


if __name__ == "__main__":
    main()
