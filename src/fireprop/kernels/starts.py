"""What biases and initial states do to each spike of a layer while all spike times hold still, in closed form.

V starts from 0 at the end of each refractory period, so that V(f-) of a spike is a sum over what acted since then
(design 3): a bias for all that time, an initial current by what was left of it, and an initial potential before the
first spike alone.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import kernel
from fireprop.kernels.exponential import decay
from fireprop.kernels.membrane import response


class Rise(NamedTuple):
    """Derivatives of V(f-) of every spike by constants of its unit: (n_spikes,) float64 each."""

    bias: np.ndarray
    current: np.ndarray
    potential: np.ndarray


@kernel
def rise_by(events, offsets, units, t_start, attached, free, out):
    """Write the derivatives by bias, initial current and initial potential of the spikes of one layer.

    events    (n_spikes,) EVENT of the layer; offsets (batch + 1,)
    units     (n_units,) UNIT of the layer
    t_start   (batch,)
    attached  (batch,): since when anything counts; what acted before is a constant
    free      (batch, n_units) float64: since when V of each unit moves freely, at first; overwritten
    """
    for sample in range(t_start.size):
        start, counts = t_start[sample], attached[sample] < t_start[sample]
        for u in range(units.size):
            free[sample, u] = max(free[sample, u], attached[sample])
        for k in range(offsets[sample], offsets[sample + 1]):
            event = events[k]
            unit = units[event.unit]
            since = free[sample, event.unit]
            left, gap = decay(unit.alpha * (since - start)) if counts else 0.0, event.time - since
            out.bias[k] = response(gap, 0.0, unit.beta)
            out.current[k] = left * response(gap, unit.alpha, unit.beta)
            out.potential[k] = decay(unit.beta * gap) if counts and since == start else 0.0
            free[sample, event.unit] = event.time + unit.t_ref
