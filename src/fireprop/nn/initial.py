"""Initial weights with which units fire from the start."""

import numpy as np
import torch
from torch import Tensor

from fireprop.kernels import membrane
from fireprop.nn.connectivity import Connectivity

GAIN = 2.8
SPREAD = 0.5
RECURRENT_SPREAD = 0.5


def draw_driving_(
    weight: Tensor,
    theta: Tensor,
    peaks: Tensor,
    mask: Tensor | Connectivity | None,
    *,
    gain: float = GAIN,
    spread: float = SPREAD,
    generator: torch.Generator | None = None,
) -> None:
    """Fill a weight (out, in) with normal numbers of mean gain * theta / (synapses * peaks), 0 where no synapse is.

    theta (out,); peaks: what a source does to the potential at its highest, per unit of weight, as `peaks` returns it
    """
    mean = _shared_out(gain, _fan_in(mask, weight), peaks, theta, mask)
    with torch.no_grad():
        weight.normal_(generator=generator).mul_(spread).add_(1.0).mul_(mean)
        _blank_(weight, mask)
    _require_finite(weight)


def draw_balanced_(
    weight: Tensor,
    theta: Tensor,
    peaks: Tensor,
    mask: Tensor | Connectivity | None,
    *,
    spread: float = RECURRENT_SPREAD,
    generator: torch.Generator | None = None,
) -> None:
    """Fill a weight (out, in) with normal numbers of mean 0, deviation spread * theta / (sqrt(synapses) * peaks)."""
    deviation = _shared_out(spread, _fan_in(mask, weight) ** 0.5, peaks, theta, mask)
    with torch.no_grad():
        weight.normal_(generator=generator).mul_(deviation)
        _blank_(weight, mask)
    _require_finite(weight)


def peaks(
    tau_mem: Tensor, tau_syn: Tensor, window: float = 0.0, *, mask: Tensor | Connectivity | None = None
) -> Tensor:
    """Peak of the membrane's response to one unit of current that arrives evenly over `window`, for every synapse.

    A number, (1, in), (out, 1) or (out, in), as the time constants are; with a sparse mask a number or (n_synapses,).
    """
    rows = tau_mem if tau_mem.dim() == 0 else tau_mem[:, None]
    if isinstance(mask, Connectivity):
        if rows.dim() and tau_syn.numel() == tau_syn.shape[-1:].numel() > 1:  # both per unit and per source
            rows, tau_syn = mask.at_synapses(rows), mask.at_synapses(tau_syn)
        else:
            each = peaks(tau_mem, tau_syn, window)
            return mask.at_synapses(each) if each.dim() else each
    shape = np.broadcast_shapes(rows.shape, tau_syn.shape)
    pairs = torch.stack([tau.expand(shape) for tau in (rows, tau_syn)]).reshape(2, -1)
    distinct, inverse = torch.unique(pairs, dim=1, return_inverse=True)
    found = [_peak_response(float(mem), float(syn), window) for mem, syn in distinct.T]
    return torch.tensor(found, dtype=torch.float64)[inverse].reshape(shape)


def _shared_out(
    scale: float, share: Tensor | float, peaks: Tensor, theta: Tensor, mask: Tensor | Connectivity | None
) -> Tensor:
    """scale * theta / (share * peaks), in a shape that expands to that of the weights."""
    if isinstance(mask, Connectivity):
        return mask.at_synapses(scale / share * theta[:, None]) / peaks
    return scale / (share * peaks) * theta[:, None]


def _fan_in(mask: Tensor | Connectivity | None, weight: Tensor) -> Tensor | int:
    """Synapses per unit, (out, 1) with a mask; at least 1."""
    if isinstance(mask, Connectivity):
        return mask.fan_in()[:, None].clamp(min=1).double()
    return weight.shape[1] if mask is None else mask.sum(1, keepdim=True).clamp(min=1).double()


def _blank_(weight: Tensor, mask: Tensor | Connectivity | None) -> None:
    if isinstance(mask, Tensor):
        weight.masked_fill_(~mask, 0.0)


def _require_finite(weight: Tensor) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise ValueError(
            f"v_threshold, the time constants, spikes_per_input, window, gain, spread or recurrent_spread lead to "
            f"initial weights outside the range of {weight.dtype}: choose units in which they are nearer to 1"
        )


def _peak_response(tau_mem: float, tau_syn: float, window: float) -> float:
    """Peak of the membrane's response to one unit of current that arrives evenly over `window`."""
    alpha, beta = 1.0 / tau_syn, 1.0 / tau_mem
    t_peak, height = membrane.peak(0.0, 1.0, alpha, beta)
    if window == 0.0:
        return float(height)
    arrivals = np.linspace(0.0, window, 65)
    moments = np.linspace(0.0, window + t_peak, 129)[1:]
    means = [np.mean([membrane.response(t - s, alpha, beta) if s < t else 0.0 for s in arrivals]) for t in moments]
    return float(np.max(means))
