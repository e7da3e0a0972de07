"""Exponential synapses: a spike adds its weight to a current that decays."""

from fireprop.kernels import membrane, readout
from fireprop.kernels.graph import flow
from fireprop.synapses.kind import Kind


def _peak(alpha: float, beta: float) -> tuple[float, float]:
    time, height = membrane.peak(0.0, 1.0, alpha, beta)
    return float(time), float(height)


EXPONENTIAL = Kind(
    name="exponential",
    number=flow.EXPONENTIAL,
    n_channels=flow.CHANNELS[flow.EXPONENTIAL],
    responses=readout.responses,
    peak=_peak,
    # A fit, to 4 % of the exact value for tau_syn <= 100 tau_mem (tests/test_starting_weights.py).
    margin=lambda ratio: 1.0 / (1.0 + 1.25 * ratio**0.7),
    left_current=lambda turned: 1.0,
    nest="iaf_psc_exp_ps_lossless",
)
