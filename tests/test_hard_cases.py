"""Where float64 has little left: every case ends in the right spikes and the right gradient, or in an error by name.

Every case runs on the kernels of chains and on those of graphs: a time constant per unit makes a layer a graph.
"""

import numpy as np
import pytest
import torch

from fireprop import Spikes, TimeResolutionError
from fireprop.nn import LIF

EITHER_KERNEL = pytest.mark.parametrize("as_graph", [False, True], ids=["chain", "graph"])


def lif(weight, *, tau_mem, tau_syn, v_threshold=1.0, t_ref=0.0, as_graph=False):
    """A layer with these weights whose threshold is trained; as_graph gives every unit a tau_mem of its own."""
    weight = torch.as_tensor(np.atleast_2d(weight), dtype=torch.float64)
    n_out, n_in = weight.shape
    theta = torch.nn.Parameter(torch.as_tensor(v_threshold, dtype=torch.float64).expand(n_out).clone())
    tau_mem = torch.as_tensor(tau_mem, dtype=torch.float64)
    tau_mem = tau_mem.expand(n_out).clone() if as_graph else tau_mem
    tau_syn = torch.as_tensor(tau_syn, dtype=torch.float64)
    layer = LIF(n_in, n_out, tau_mem=tau_mem, tau_syn=tau_syn, v_threshold=theta, t_ref=t_ref, dtype=torch.float64)
    layer.weight.data.copy_(weight)
    return layer


@EITHER_KERNEL
@pytest.mark.parametrize("t", [1e5, 1e6, 1e7, 1e8, 1e9])
def test_weights_of_1e8_at_large_times_raise_with_their_place(t, as_graph):
    # intervals of 1e-8, 700 ulps at 1e5 and less than one at 1e8: from one per mille on rounding is no longer small
    layer = lif([[1.0], [1e8]], tau_mem=1.0, tau_syn=0.5, as_graph=as_graph)
    inputs = Spikes.from_latencies([[np.inf], [t]])
    with pytest.raises(
        TimeResolutionError, match=r"sample 1, layer 0, unit 1, t = \d+\.\d+: the next spike of this unit"
    ):
        layer(inputs, t_end=t + 1.0)
