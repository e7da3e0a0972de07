"""How cost grows with the work: training steps on ever more spikes, units, samples, layers, and a longer horizon.

Each sweep fits log seconds against log synaptic events, over the sizes that take at least 10 ms and whose weights fit
in the second-level cache; larger ones are measured and marked. Forward and gradient, float32, one core.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import machine, works
from benchmarks.arithmetic import interleave, median, slope
from benchmarks.tables import Table, number
from fireprop import Spikes
from fireprop.nn import LIF, Sequential

LEAST_SECONDS = 0.010
REPEATS, QUICK_REPEATS = 7, 2
RATE = 4.0  # spikes of an input per unit of time
T_END = 8.0  # long against the time that it takes until a first layer fires
Case = tuple[Sequential, Spikes, float]


def _case(
    widths: list[int], *, spikes: float = RATE * T_END, t_end: float = T_END, batch: int = 8, recurrent: bool = False
) -> Case:
    """Layers of these widths, the first that of the inputs; these have `spikes` spikes each, evenly over time."""
    rng = np.random.default_rng(0)
    n_inputs = widths[0]
    n_events = round(spikes * n_inputs)
    times = np.sort(rng.uniform(0.0, t_end, (batch, n_events)), axis=1)
    units = rng.integers(0, n_inputs, (batch, n_events))
    inputs = Spikes.from_padded_events(torch.from_numpy(times), torch.from_numpy(units), n_units=n_inputs)
    layers = []
    for seed, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        generator = torch.Generator().manual_seed(seed)
        layer = LIF(
            n_in, n_out, tau_mem=1.0, tau_syn=0.5, recurrent=recurrent, dtype=torch.float32, generator=generator
        )
        # The same weights whatever the number of spikes, so that more of them cause more. At this gain a layer fires
        # about as often as the one below, so that depth neither silences nor multiplies.
        layer.reset_parameters(spikes_per_input=RATE, window=1.0, gain=2.2, generator=generator)
        layers.append(layer)
    return Sequential(*layers), inputs, t_end


SWEEPS: dict[str, tuple[str, list[int], Callable[[int], Case]]] = {
    "spikes": ("spikes of an input", [32, 64, 128, 256], lambda n: _case([64, 128, 10], spikes=n)),
    "units": ("hidden units", [2, 8, 32, 128, 512, 1024, 2048, 4096], lambda n: _case([32, n, 10])),
    "batch": ("samples", [2, 8, 32, 128], lambda n: _case([64, 128, 10], batch=n)),
    "depth": ("layers", [1, 2, 3, 4, 6, 8], lambda n: _case([64] * (n + 1))),
    "horizon": (
        "time constants of the membrane", [8, 16, 32, 64],
        lambda n: _case([64, 128, 10], spikes=RATE * n, t_end=float(n)),
    ),
    "recurrent": (
        "spikes of an input of a recurrent layer", [16, 32, 64, 128, 256],
        lambda n: _case([64, 128], spikes=n, recurrent=True),
    ),
}  # fmt: skip
QUICK_SIZES = 4


def measure(*, quick: bool) -> dict[str, Any]:
    values = {}
    for name, (_, sizes, make) in SWEEPS.items():
        values[name] = _sweep(sizes[:QUICK_SIZES] if quick else sizes, make, QUICK_REPEATS if quick else REPEATS)
    return values


def tables(values: dict[str, Any]) -> list[Table]:
    made = Table("Growth of cost, exponents", ["sweep", "sizes", "exponent"])
    head = ["sweep", "size", "synaptic events", "spikes", "ms", "ns per event", "weights in L2", "fitted"]
    points = Table("Growth of cost, points", head)
    for name, sweep in values.items():
        unit = SWEEPS[name][0]
        sizes = [row["size"] for row in sweep["points"] if row["fitted"]]
        made.rows.append([name, f"{sizes[0]} to {sizes[-1]} {unit}" if sizes else "-", number(sweep["exponent"], 3)])
        for row in sweep["points"]:
            points.rows.append([
                name, str(row["size"]), number(row["events"]), number(row["spikes"]),
                number(1e3 * row["seconds"]), number(1e9 * row["seconds"] / row["events"]),
                *("yes" if row[k] else "no" for k in ("fits", "fitted")),
            ])  # fmt: skip
    made.note = (
        f"Seconds ~ synaptic events to this power; sizes of {1e3 * LEAST_SECONDS:.0f} ms or more whose weights "
        "fit in the second-level cache."
    )
    return [made, points]


def _sweep(sizes: list[int], make: Callable[[int], Case], repeats: int) -> dict[str, Any]:
    cases = {size: make(size) for size in sizes}
    seconds = interleave({str(size): (lambda case=case: _step(*case)) for size, case in cases.items()}, repeats)
    points = []
    for size, (net, inputs, t_end) in cases.items():
        spikes = _spikes(net, inputs, t_end)
        spent = median(seconds[str(size)])
        fits = sum(p.numel() * p.element_size() for p in net.parameters()) <= machine.l2_bytes()
        points.append({
            "size": size, "events": works.synaptic_events(net, spikes), "spikes": sum(spikes[1:]), "seconds": spent,
            "fits": fits, "fitted": fits and spent >= LEAST_SECONDS,
        })  # fmt: skip
    fitted = [row for row in points if row["fitted"]]
    exponent = slope([row["events"] for row in fitted], [row["seconds"] for row in fitted], LEAST_SECONDS)
    return {"exponent": exponent, "points": points}


def _step(net: Sequential, inputs: Spikes, t_end: float) -> None:
    out = net(inputs, t_end=t_end)
    net.zero_grad()
    out.times.sum().backward()


def _spikes(net: Sequential, inputs: Spikes, t_end: float) -> list[float]:
    with torch.no_grad():
        record = net.record(inputs, t_end=t_end)
    return [float(spikes.n_spikes) for spikes in (inputs, *record)]
