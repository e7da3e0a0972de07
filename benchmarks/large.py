"""Large sparse recurrent networks: `python -m benchmarks.large --units 10000 100000 [--connections 100]`.

One recurrent layer; every unit hears `connections` others at random and a tenth as many inputs, which fire at random
instants. Recurrent weights are drawn around a mean below 0, so that rates stay where the inputs put them. Each size
runs in a process of its own, for its peak memory, after a small network has compiled the kernels. Times are CPU times
of one thread. A synaptic event is one spike handled by one receiver.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
import torch

from fireprop import Spikes, set_num_threads
from fireprop.nn import LIF

INPUT_RATE = 2.5  # of each input unit, in units of 1 / tau_mem
GAIN, RECURRENT_SPREAD, INHIBITION = 4.0, 0.3, 0.05


def random_rows(n_out, n_in, fan_in, generator):
    """A sparse mask (out, in) of fan_in distinct sources per receiver, drawn evenly."""
    # Numbers 0 <= a <= b <= ... < n_in - fan_in, plus 0, 1, 2, ..., are distinct.
    col = torch.randint(0, n_in - fan_in + 1, (n_out, fan_in), generator=generator, dtype=torch.int32)
    col = col.sort(dim=1).values.add_(torch.arange(fan_in, dtype=torch.int32)).reshape(-1)
    crow = torch.arange(n_out + 1, dtype=torch.int32) * fan_in
    values = torch.ones(1, dtype=torch.bool).expand(n_out * fan_in)
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    return torch.sparse_csr_tensor(crow, col, values, (n_out, n_in), check_invariants=False)


def build(n_units, connections, t_end, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n_in, fan_in = max(n_units // 10, connections), max(connections // 10, 1)
    layer = LIF(
        n_in, n_units, tau_mem=1.0, tau_syn=0.5, t_ref=0.1, recurrent=True, generator=generator,
        mask=random_rows(n_units, n_in, fan_in, generator),
        recurrent_mask=random_rows(n_units, n_units, connections, generator),
    )  # fmt: skip
    layer.reset_parameters(
        spikes_per_input=INPUT_RATE * t_end,
        window=t_end,
        gain=GAIN,
        recurrent_spread=RECURRENT_SPREAD,
        generator=generator,
    )
    with torch.no_grad():
        layer.recurrent_weight.sub_(INHIBITION * float(layer.recurrent_weight.std()))
    return layer


def inputs_of(n_in, t_end, seed=0):
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(int(INPUT_RATE * t_end * n_in), generator=generator, dtype=torch.float64)
    times = times.mul_(t_end).sort().values
    units = torch.randint(0, n_in, times.shape, generator=generator)
    return Spikes.from_events(times, units, torch.zeros_like(units), n_units=n_in)


def measure(n_units, connections, t_end):
    started = time.process_time()
    layer = build(n_units, connections, t_end)
    built = time.process_time()
    inputs = inputs_of(layer.in_features, t_end)
    engine_ready = _lay_out(layer)
    before = time.process_time()
    spikes = layer(inputs, t_end=t_end, max_spikes=2**62)
    middle = time.process_time()
    spikes.times.square().mean().backward()
    after = time.process_time()
    fan_out = np.bincount(layer.recurrent_mask.col_indices.numpy(), minlength=n_units)
    input_fan_out = np.bincount(layer.mask.col_indices.numpy(), minlength=layer.in_features)
    events = int(fan_out[spikes.units.numpy()].sum() + input_fan_out[inputs.units.numpy()].sum())
    counts = spikes.counts()
    return {
        "units": n_units,
        "synapses": layer.weight.numel() + layer.recurrent_weight.numel(),
        "spikes": spikes.n_spikes,
        "silent": float((counts == 0).double().mean()),
        "events": events,
        "build_s": built - started + engine_ready,
        "forward_s": middle - before,
        "adjoint_s": after - middle,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _lay_out(layer):
    """Seconds until the engine has laid the layer out, which is done once, before the first run."""
    started = time.process_time()
    layer(
        Spikes.from_events(torch.zeros(0, dtype=torch.float64), [], [], n_units=layer.in_features, batch_size=1),
        t_end=0.0,
    )
    return time.process_time() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--t-end", type=float, default=4.0, help="in units of tau_mem")
    parser.add_argument("--json", action="store_true", help="one row as JSON, of the first size")
    options = parser.parse_args()
    if min(options.units) < options.connections:
        parser.error(f"--units {min(options.units)}: give at least as many as --connections {options.connections}")
    if options.json:
        set_num_threads(1)
        torch.set_num_threads(1)
        measure(1000, 20, 1.0)
        print(json.dumps(measure(options.units[0], options.connections, options.t_end)))
        return
    head = ("units", "synapses", "spikes", "silent", "build", "forward: spike, event", "adjoint: spike, event", "peak")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for n_units in options.units:
        command = [sys.executable, "-m", "benchmarks.large", "--json", "--units", str(n_units)]
        command += ["--connections", str(options.connections), "--t-end", str(options.t_end)]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        cells = [
            f"{row['units']:,}",
            f"{row['synapses']:,}",
            f"{row['spikes']:,}",
            f"{row['silent']:.1%}",
            f"{row['build_s']:.2f} s",
        ]
        for kind in ("forward_s", "adjoint_s"):
            per_spike, per_event = 1e6 * row[kind] / row["spikes"], 1e9 * row[kind] / row["events"]
            cells.append(f"{row[kind]:.2f} s, {per_spike:.2f} us, {per_event:.1f} ns")
        print(f"| {' | '.join(cells)} | {row['peak_gib']:.2f} GiB |", flush=True)


if __name__ == "__main__":
    main()
