"""600 random networks of 30 kinds, with the spikes and gradients that the two engines of version 0.2 find for them.

    python tests/frozen_networks.py      writes data/frozen_networks.npz

Write the file only when this module draws other networks, and with the engines of version 0.2. Never write it to make a
changed engine pass.

Every number comes from the raw bits of PCG64, which are the same in all versions of NumPy, by sums, products and
comparisons. fireprop draws nothing, so the networks do not depend on its defaults or its initial weights.
"""

import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fireprop import SpikeLimitError, Spikes
from fireprop.nn import LIF, Network, Sequential

FILE = Path(__file__).with_name("data") / "frozen_networks.npz"
N_EACH = 20
N_IN, N_TRAIN, T_INPUT, T_END = 3, 9, 2.5, 5.0
GRID = 0.125  # of times that are to meet
SIZES = {"exc": 4, "inh": 2, "out": 2}
DRIVES = {
    ("input", "exc"): 4.5, ("exc", "exc"): 0.5, ("exc", "inh"): 2.5, ("inh", "exc"): -1.0, ("inh", "inh"): -0.5,
    ("exc", "out"): 3.0,
}  # fmt: skip

# A network is kept if it has so many spikes and no slope below this: the derivative at a graze is infinite.
MIN_SPIKES, MAX_SPIKES, MAX_SPIKES_WIDE, MIN_SLOPE = 8, 90, 300, 0.1
MIN_GAP = 1e-3  # between two spikes of a population in float32, so that rounding does not change their order

# By kind: how the units are arranged, and what the network has beyond dense synapses of one tau_syn for each layer.
LAYERS, WIDE, RECURRENT, GRAPH = "layers", "wide layers", "recurrent layers", "network"
KINDS = {
    "chain": (LAYERS, {}),
    "chain of equal taus": (LAYERS, {"equal": True}),
    "chain with t_ref": (LAYERS, {"t_ref": True}),
    "chain that stops": (LAYERS, {"stop": "first_spikes"}),
    "chain in float32": (LAYERS, {"float32": True}),
    "masked chain": (LAYERS, {"mask": "dense"}),
    "wide chain": (WIDE, {}),
    "recurrent chain": (RECURRENT, {}),
    "recurrent chain with ties": (RECURRENT, {"ties": True}),
    "recurrent chain with t_ref in float32": (RECURRENT, {"t_ref": True, "float32": True}),
    "wide recurrent chain": (WIDE, {"loops": True, "mask": "dense"}),
    "sparse": (RECURRENT, {"mask": "sparse"}),
    "sparse in float32": (RECURRENT, {"mask": "sparse", "float32": True}),
    "tau_mem per unit": (RECURRENT, {"per_unit": True, "t_ref": True}),
    "several tau_syn": (RECURRENT, {"several": True}),
    "several tau_syn with ties": (RECURRENT, {"several": True, "ties": True}),
    "delays": (RECURRENT, {"delay": True}),
    "delays with ties and t_ref": (RECURRENT, {"delay": True, "ties": True, "t_ref": True}),
    "delays in float32": (RECURRENT, {"delay": True, "t_ref": True, "float32": True}),
    "bias and initial state": (RECURRENT, {"start": True}),
    "trained constants": (RECURRENT, {"trained": True, "per_unit": True, "t_ref": True, "delay": True, "start": True}),
    "forward propagation": (RECURRENT, {"gradient": "forward", "t_ref": True, "several": True}),
    "bounded sensitivity": (RECURRENT, {"max_sensitivity": 1.5}),
    "network": (GRAPH, {"per_unit": True, "several": True}),
    "network with ties": (GRAPH, {"ties": True, "t_ref": True}),
    "network with delays": (GRAPH, {"delay": True, "t_ref": True, "mask": "sparse"}),
    "network that stops": (GRAPH, {"stop": "first_spikes", "mask": "dense"}),
    "network in float32": (GRAPH, {"float32": True, "several": True, "t_ref": True}),
    "network with a bias and an initial state": (GRAPH, {"start": True, "t_ref": True, "mask": "dense"}),
    "network with trained constants": (
        GRAPH,
        {"trained": True, "per_unit": True, "several": True, "t_ref": True, "delay": True, "bias": True},
    ),
}


class Case(NamedTuple):
    """A network, its inputs as arrays of events, and how it is run."""

    net: nn.Module
    times: np.ndarray
    units: np.ndarray
    samples: np.ndarray
    options: dict


class Outcome(NamedTuple):
    """What a run gives.

    spikes  by population: times, units, offsets, t_known
    slopes  by population
    grads   of `loss_of`, by name of the parameter, and "input times"
    """

    spikes: dict
    slopes: dict
    grads: dict


class Draws:
    """Numbers in [0, 1) of 53 bits each, from a stream of its own for each network."""

    def __init__(self, kind, seed):
        self.bits = np.random.PCG64(np.random.SeedSequence([list(KINDS).index(kind), seed]))

    def uniform(self, low, high, *shape):
        raw = np.asarray(self.bits.random_raw(shape or None), np.uint64) >> np.uint64(11)
        return low + (high - low) * (raw.astype(np.float64) * 2.0**-53)

    def on_grid(self, n, *shape):
        """Multiples of GRID, n of them from 0 on."""
        return GRID * np.floor(self.uniform(0.0, n, *shape))

    def integers(self, n, *shape):
        return np.floor(self.uniform(0.0, n, *shape)).astype(np.int64)


# ------------------------------------------------------------------------------------------------- what is drawn


def draw(kind, seed):
    arrangement, flags = KINDS[kind]
    draws = Draws(kind, seed)
    net = _network(draws, flags) if arrangement == GRAPH else _layers(draws, arrangement, flags)
    n = 2 * N_TRAIN
    times = draws.on_grid(T_INPUT / GRID, n) if "ties" in flags else draws.uniform(0.0, T_INPUT, n)
    options = {"gradient": "adjoint", "max_sensitivity": None, "stop": None}
    options = {name: flags.get(name, value) for name, value in options.items()}
    options["t_end"] = torch.tensor([T_END, T_END - 0.5], dtype=torch.float64)
    if "start" in flags or "bias" in flags:
        options["t_start"] = -0.25
    return Case(net, times, draws.integers(N_IN, n), np.repeat([0, 1], N_TRAIN), options)


def _layers(draws, arrangement, flags):
    if arrangement == WIDE:
        widths = [N_IN, 70, 2]
    else:
        widths = [N_IN, 5, 2] if arrangement == RECURRENT or draws.integers(2) else [N_IN, 4, 3, 2]
    loops = arrangement == RECURRENT or "loops" in flags
    pairs = enumerate(itertools.pairwise(widths))
    return Sequential(*(_layer(draws, *sizes, flags, loops=loops and k == 0) for k, sizes in pairs))


def _layer(draws, n_in, n_out, flags, *, loops):
    """A layer, recurrent if `loops`. Recurrent synapses have the tau_syn of the others, unless there are several."""
    units = _units(draws, n_out, flags)
    feed = _synapses(draws, n_in, n_out, _drive(n_in, n_out), units, flags)
    loop = _synapses(draws, n_out, n_out, 1.0, units, flags) if loops else {}
    if loops and "several" not in flags:
        loop["tau_syn"] = feed["tau_syn"]
    if loops and "ties" in flags:
        _make_twins(units, feed, loop)
    mask, recurrent_mask = feed.pop("mask", None), loop.pop("mask", None)
    weight, recurrent_weight = feed.pop("weight"), loop.pop("weight", None)
    constants = {**units, **feed, **{f"{name}_rec": value for name, value in loop.items()}}
    layer = LIF(
        n_in, n_out, mask=_connectivity(mask, flags), recurrent=loops, dtype=_dtype(flags),
        recurrent_mask=_connectivity(recurrent_mask, flags), **_tensors(constants, flags),
    )  # fmt: skip
    layer.weight.data.copy_(_values(weight, mask, flags))
    if loops:
        layer.recurrent_weight.data.copy_(_values(recurrent_weight, recurrent_mask, flags))
    return layer


def _drive(n_in, n_out):
    """Twice the mean weight times the number of sources. With these, a unit fires a few times."""
    if n_out > 10:
        return 2.0
    return 4.5 if n_in == N_IN else 1.5 if n_in > 10 else 3.0


def _network(draws, flags):
    net = Network(N_IN, dtype=_dtype(flags))
    units = {name: _units(draws, size, flags) for name, size in SIZES.items()}
    synapses = {
        (pre, post): _synapses(draws, SIZES.get(pre, N_IN), SIZES[post], drive, units[post], flags)
        for (pre, post), drive in DRIVES.items()
    }
    if "ties" in flags:
        _make_twins(units["exc"], synapses["input", "exc"], synapses["exc", "exc"], synapses["inh", "exc"])
    for name, size in SIZES.items():
        net.add(name, size, **_tensors(units[name], flags))
    for (pre, post), constants in synapses.items():
        mask, weight = constants.pop("mask", None), constants.pop("weight")
        values = _values(weight, mask, flags).to(_dtype(flags))
        net.connect(pre, post, mask=_connectivity(mask, flags), weight=values, **_tensors(constants, flags))
    return net


def _units(draws, n, flags):
    """Constants of n units, as arrays."""
    tau_mem = draws.uniform(0.6, 1.6, n) if "per_unit" in flags else draws.uniform(0.6, 1.6)
    found = {"tau_mem": tau_mem, "v_threshold": draws.uniform(0.6, 1.4, n), "t_ref": np.zeros(n)}
    if "t_ref" in flags:
        found["t_ref"] = GRID + draws.on_grid(2, n) if "ties" in flags else draws.uniform(0.05, 0.3, n)
    if "start" in flags or "bias" in flags:
        found["bias"] = draws.uniform(-0.1, 0.3, n)
    if "start" in flags:
        found |= {"v_start": draws.uniform(-0.5, 0.4, n), "i_start": draws.uniform(-0.3, 0.8, n)}
    return found


def _synapses(draws, n_in, n_out, drive, units, flags):
    """Weights, a quarter of them of the other sign, and constants of synapses, as arrays."""
    found = {"weight": drive / n_in * draws.uniform(-0.5, 1.5, n_out, n_in)}
    near, below = draws.uniform(1.0 - 1e-9, 1.0 + 1e-9), draws.uniform(0.3, 0.8)
    ratios = [1.0, near] if "equal" in flags else [near, below, 1.0 / below]
    found["tau_syn"] = units["tau_mem"].flat[0] * ratios[draws.integers(len(ratios))]
    if "several" in flags:
        handful = np.append(draws.uniform(0.3, 1.5, 2), units["tau_mem"].flat[0])
        found["tau_syn"] = handful[draws.integers(3, *_shape(draws, n_in, n_out))]
    if "delay" in flags:
        shape = _shape(draws, n_in, n_out)
        found["delay"] = draws.on_grid(4, *shape) if "ties" in flags else draws.uniform(0.02, 0.5, *shape)
    if "mask" in flags:
        density = 0.7 if n_in < 10 else 0.1
        found["mask"] = draws.uniform(0.0, 1.0, n_out, n_in) < density
        found["weight"] /= density
    return found


def _shape(draws, n_in, n_out):
    """Of a constant: one for all synapses, per source, per unit, or per synapse."""
    return [(), (1, n_in), (n_out, 1), (n_out, n_in)][draws.integers(4)]


def _make_twins(units, feed, loop, *others):
    """Make unit 1 a copy of unit 0, so that both always fire at the same time."""
    for name, value in loop.items():
        if value.ndim == 2 and value.shape[1] > 1:
            loop[name][:, 1] = value[:, 0]
    for values in (units, feed, loop, *others):
        for value in values.values():
            if value.ndim and value.shape[0] > 1:
                value[1] = value[0]


def _dtype(flags):
    return torch.float32 if "float32" in flags else torch.float64


def _connectivity(mask, flags):
    if mask is None or flags["mask"] == "dense":
        return None if mask is None else torch.from_numpy(mask)
    return torch.from_numpy(mask).to_sparse()


def _values(weight, mask, flags):
    """The weights in the shape of the parameter."""
    return torch.from_numpy(weight if mask is None or flags["mask"] == "dense" else weight[mask])


def _tensors(constants, flags):
    """Arrays as the module takes them. Thresholds are trained always."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in constants.items()}
    trained = tensors if "trained" in flags else ["v_threshold"]
    return {name: nn.Parameter(value) if name in trained else value for name, value in tensors.items()}


# --------------------------------------------------------------------------------------------------- what is run


def run(case):
    """Spikes, slopes and gradients as arrays."""
    leaf = torch.from_numpy(case.times).requires_grad_()
    inputs = Spikes.from_events(leaf, case.units, case.samples, n_units=N_IN, batch_size=2)
    record = case.net.record(inputs, max_spikes=MAX_SPIKES_WIDE, **case.options)
    names = record.names or [f"layer {k}" for k in range(len(record))]
    loss_of(record).backward()
    spikes = {
        name: [values.detach().numpy() for values in (each.times, each.units, each.offsets, each.t_known)]
        for name, each in zip(names, record, strict=True)
    }
    slopes = {name: slope.numpy() for name, slope in zip(names, record.slopes, strict=True)}
    leaves = {**dict(case.net.named_parameters()), "input times": leaf}
    return Outcome(spikes, slopes, {name: leaf.grad.numpy() for name, leaf in leaves.items()})


def loss_of(record):
    """A sum of all spike times, each with a factor of its own between -1 and 1."""
    return sum(
        (torch.arange(each.n_spikes, dtype=torch.float64).mul(7.0 + k).remainder(11.0) / 5.0 - 1.0) @ each.times
        for k, each in enumerate(record)
    )


# ------------------------------------------------------------------------------------------------- what is frozen


def is_worth_freezing(kind, seed):
    """Whether a network fires often enough, not too often, and with steep slopes only."""
    arrangement, flags = KINDS[kind]
    try:
        found = run(draw(kind, seed))
    except SpikeLimitError:
        return False
    counts, most = [times.size for times, *_ in found.spikes.values()], MAX_SPIKES
    if arrangement == WIDE:
        most = MAX_SPIKES_WIDE
    lively = min(counts) > 1 and MIN_SPIKES <= sum(counts) <= most
    return (
        lively and min(map(np.min, found.slopes.values())) > MIN_SLOPE and ("float32" not in flags or is_apart(found))
    )


def is_apart(found):
    """Whether two spikes of a population are never nearer than MIN_GAP in a sample."""
    gaps = [
        np.diff(times[start:end])
        for times, _, offsets, _ in found.spikes.values()
        for start, end in itertools.pairwise(offsets)
    ]
    return np.concatenate(gaps).min() > MIN_GAP


def freeze():
    """The arrays of the file: times, units and gradients of all networks in turn, and an index of them as JSON."""
    index, times, units, grads = [], [], [], []
    for kind in KINDS:
        for seed in itertools.islice((seed for seed in itertools.count() if is_worth_freezing(kind, seed)), N_EACH):
            found = run(draw(kind, seed))
            ends = {name: [offsets.tolist(), known.tolist()] for name, (*_, offsets, known) in found.spikes.items()}
            index.append([kind, seed, ends, {name: grad.shape for name, grad in found.grads.items()}])
            times += [spikes[0] for spikes in found.spikes.values()]
            units += [spikes[1] for spikes in found.spikes.values()]
            grads += [grad.ravel() for grad in found.grads.values()]
    text = np.frombuffer(json.dumps(index).encode(), np.uint8)
    flat = {"times": np.concatenate(times), "units": np.concatenate(units).astype(np.uint8)}
    return {"index": text, **flat, "grads": np.concatenate(grads).astype(np.float64)}


def frozen():
    """By kind: a list of (seed, spikes, grads), with spikes and grads as in an `Outcome`."""
    with np.load(FILE) as file:
        arrays = {name: file[name] for name in file.files}
    found, at, at_grad = {kind: [] for kind in KINDS}, 0, 0
    for kind, seed, ends, shapes in json.loads(arrays["index"].tobytes()):
        spikes, grads = {}, {}
        for name, (offsets, known) in ends.items():
            part = slice(at, at := at + offsets[-1])
            spikes[name] = [arrays["times"][part], arrays["units"][part], np.array(offsets), np.array(known)]
        for name, shape in shapes.items():
            part = slice(at_grad, at_grad := at_grad + math.prod(shape))
            grads[name] = arrays["grads"][part].reshape(shape)
        found[kind].append((seed, spikes, grads))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.savez_compressed(FILE, **freeze())
