"""fireprop against NEST and Brian2, live, on one delayed recurrent network of 200 units over 200 ms.

    python -m parity.simulators nest            # needs pip install "fireprop[nest]"
    python -m parity.simulators brian2          # needs pip install "fireprop[interop]"
    python -m parity.simulators nest --freeze   # writes tests/data/simulators.npz anew, and keeps the part of Brian2

Unlike the other scripts here it imports fireprop: `to_nest` and `to_brian` build the network in the other simulator.
"""

import argparse
from pathlib import Path
from random import Random

import numpy as np
import torch

from fireprop import Spikes
from fireprop.interop import brian, nest
from fireprop.nn import Network
from fireprop.nn.checks import Synapse

FROZEN = Path(__file__).parents[1] / "tests/data/simulators.npz"
T_END = 200.0  # ms
STEP = 2.0**-4  # ms, of NEST: all delays and t_ref are multiples of it
STEPS = [2.0**-k for k in (6, 8, 10, 12)]  # ms, of Brian2
N_INPUTS, SIZES = 40, {"excitatory": 160, "inhibitory": 40}
# tau_syn of the synapses that inhibit, ms; the others have 4. And the kind of all synapses.
NETWORKS: dict[str, tuple[float, Synapse]] = {
    "two tau_syn": (6.0, "exponential"),
    "one tau_syn": (4.0, "exponential"),
    "alpha": (6.0, "alpha"),
}
# pre, post, probability, mean weight, and its spread, per ms
PATHS = [
    ("input", "excitatory", 0.2, 0.085, 0.02),
    ("input", "inhibitory", 0.2, 0.085, 0.02),
    ("excitatory", "excitatory", 0.1, 0.008, 0.003),
    ("excitatory", "inhibitory", 0.1, 0.016, 0.004),
    ("inhibitory", "excitatory", 0.2, -0.024, 0.006),
    ("inhibitory", "inhibitory", 0.2, -0.016, 0.004),
]


def network(name: str) -> Network:
    """160 units that excite and 40 that inhibit; every synapse has a delay of its own, 0.5 to 2 ms."""
    rng, (tau_syn_inhibitory, synapse) = Random("balanced"), NETWORKS[name]
    net = Network(N_INPUTS, dtype=torch.float64)
    net.add("excitatory", SIZES["excitatory"], tau_mem=10.0, t_ref=2.0)
    net.add("inhibitory", SIZES["inhibitory"], tau_mem=8.0, t_ref=1.0)
    for pre, post, share, mean, spread in PATHS:
        n_in, n_out = SIZES.get(pre, N_INPUTS), SIZES[post]
        there = [[rng.random() < share for _ in range(n_in)] for _ in range(n_out)]
        sign = 1.0 if mean > 0.0 else -1.0
        weight = [[sign * abs(round(rng.gauss(mean, spread), 4)) for _ in range(n_in)] for _ in range(n_out)]
        delay = [[rng.randint(8, 32) / 16 for _ in range(n_in)] for _ in range(n_out)]
        net.connect(
            pre, post, tau_syn=4.0 if mean > 0.0 else tau_syn_inhibitory, weight=double(weight), delay=double(delay),
            mask=torch.tensor(there), synapse=synapse,
        )  # fmt: skip
    return net


def inputs() -> Spikes:
    """40 trains of about 40 spikes per second, no two of one input within 2 ms."""
    rng = Random("balanced inputs")
    trains = []
    for _ in range(N_INPUTS):
        t, train = 0.0, []
        while (t := t + 2.0 + rng.expovariate(1.0 / 23.0)) < T_END:
            train.append(round(t, 3))
        trains.append(train)
    return Spikes.from_lists([trains])


def double(values: list[list[float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def exact(net: Network) -> list[Spikes]:
    with torch.no_grad():
        return list(net.record(inputs(), t_end=T_END))


def sensitivity(name: str, found: list[Spikes]) -> float:
    """The largest shift of a spike per shift of thresholds: each is moved up or down by 1e-9, at random."""
    rng, change = Random("sensitivity"), 1e-9
    moved = network(name)
    for population_name, population in moved.populations.items():
        signs = double([[rng.choice((-1.0, 1.0)) for _ in range(SIZES[population_name])]])[0]
        population.v_threshold = 1.0 + change * signs
    return difference(found, exact(moved)) / change


def difference(mine: list[Spikes], theirs: list[Spikes]) -> float:
    """The largest difference of a firing time, ms; inf if some unit fires another number of times."""
    worst = 0.0
    for a, b in zip(mine, theirs, strict=True):
        if not torch.equal(a.counts(), b.counts()):
            return float("inf")
        fired = a.to_padded_trains().isfinite()
        worst = max(worst, float((a.to_padded_trains()[fired] - b.to_padded_trains()[fired]).abs().max()))
    return worst


def relative(mine: list[Spikes], theirs: list[Spikes]) -> float:
    """The largest difference of a firing time, relative to that time; inf as `difference`."""
    if difference(mine, theirs) == float("inf"):
        return float("inf")
    parts = [
        (a.to_padded_trains() / b.to_padded_trains() - 1.0).nan_to_num().abs().max()
        for a, b in zip(mine, theirs, strict=True)
    ]
    return float(torch.stack(parts).max())


def against_nest() -> dict[str, list[Spikes]]:
    found = {}
    for name in NETWORKS:
        net = network(name)
        mine, theirs = exact(net), nest.to_nest(net, inputs(), t_end=T_END, resolution=STEP)
        print(
            f"NEST, {name}: {sum(s.n_spikes for s in mine)} spikes, largest difference {difference(mine, theirs):.1e} "
            f"ms, relative {relative(mine, theirs):.1e}; sensitivity {sensitivity(name, mine):.0f} ms per threshold"
        )
        found[f"nest {name}"] = list(theirs)
    return found


def against_brian2() -> dict[str, list[Spikes]]:
    net, found = network("two tau_syn"), {}
    mine = exact(net)
    for dt in STEPS:
        theirs = list(brian.to_brian(net, inputs(), t_end=T_END, dt=dt))
        print(f"Brian2, dt = {dt:g} ms: largest difference {difference(mine, theirs):.1e} ms")
        found[f"brian2 {dt:g}"] = theirs
    return found


def frozen(name: str) -> list[Spikes]:
    """What the other simulator found when it was frozen: "nest two tau_syn", "brian2 0.0625" and so on."""
    with np.load(FROZEN) as file:
        return [
            Spikes.from_events(file[f"{name} {p} times"], file[f"{name} {p} units"], None, n_units=n, batch_size=1)
            for p, n in SIZES.items()
        ]


def freeze(found: dict[str, list[Spikes]]) -> None:
    content = {}
    if FROZEN.exists():
        with np.load(FROZEN) as file:
            content = dict(file)
    for name, spikes in found.items():
        for population, part in zip(SIZES, spikes, strict=True):
            content[f"{name} {population} times"] = part.times.numpy()
            content[f"{name} {population} units"] = part.units.numpy().astype(np.int16)
    np.savez_compressed(FROZEN, **content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulator", choices=["nest", "brian2"])
    parser.add_argument("--freeze", action="store_true", help="write the spikes into tests/data/simulators.npz")
    given = parser.parse_args()
    found = against_nest() if given.simulator == "nest" else against_brian2()
    if given.freeze:
        freeze(found)


if __name__ == "__main__":
    main()
