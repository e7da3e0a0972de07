"""Alpha synapses: a spike brings the current w (t / tau_syn) exp(-t / tau_syn)."""

import math

from fireprop.kernels import alpha as kernel
from fireprop.kernels.graph import flow
from fireprop.synapses.kind import Kind

ALPHA = Kind(
    name="alpha",
    number=flow.ALPHA,
    n_channels=flow.CHANNELS[flow.ALPHA],
    responses=kernel.each_response,
    peak=kernel.peak,
    # A fit, within 2 % of the exact margin for tau_syn / tau_mem from 0.1 to 30.
    margin=lambda ratio: 1.0 / (1.0 + 1.565 * ratio**0.673 + 0.528 * ratio**1.637),
    left_current=lambda turned: turned,
    nest="iaf_psc_alpha_ps",
    nest_unit=math.e,  # NEST's weight is the peak of the current
)
