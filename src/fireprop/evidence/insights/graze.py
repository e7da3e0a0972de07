"""Where the gradient ends: the implicit function theorem needs V'(f-) > 0, and near a graze it tells how it fails.

One unit, one input spike, weight w. The peak of V is w h(t*), so w_c = theta / h(t*) only touches the threshold. Just
above it the first spike has the derivative df/dw ~ (w - w_c)^(-1/2) (derived from the formula of V; Lee et al.
2023, section 1: "the conditions for IFT are always satisfied at firing times").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from fireprop import arguments
from fireprop.evidence.insights.chain import Floats
from fireprop.evidence.insights.recorded import of_sample, system_of
from fireprop.kernels import membrane
from fireprop.nn import LIF, Record
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.spikes import Spikes

DISTANCES = tuple(10.0**-k for k in range(1, 8))
T_END = 12.0


@dataclass(frozen=True)
class Graze:
    """First spikes on the way to a graze at w_c, each array (n,) over `distances`, (w - w_c) / w_c.

    power  the exponent of |df/dw| against the distance, from the two nearest: -1/2 in the limit
    """

    tau_mem: float
    tau_syn: float
    w_critical: float
    distances: Floats
    times: Floats
    slopes: Floats
    derivatives: Floats

    @property
    def power(self) -> float:
        """Exponent of |df/dw| against the distance, from the two nearest distances."""
        ratio = np.log(self.derivatives[-1] / self.derivatives[-2])
        return float(ratio / np.log(self.distances[-1] / self.distances[-2]))


@dataclass(frozen=True)
class Determinant:
    """det dG/dF of one sample, as log |det| computed from the whole matrix, and as the sum of the log slopes."""

    n_spikes: int
    sign: float
    log_determinant: float
    log_product_of_slopes: float
    smallest_slope: float


def graze(*, tau_mem: float = 1.0, tau_syn: float = 1.0 / 0.999, distances: Sequence[float] = DISTANCES) -> Graze:
    """The first spike of a unit and its exact derivative, ever nearer to the weight at which it would vanish.

    distances  (w - w_c) / w_c > 0, in falling order, at least two

    >>> round(graze().power, 2)
    -0.5
    """
    tau_mem = arguments.number("tau_mem", tau_mem, above=0.0)
    tau_syn = arguments.number("tau_syn", tau_syn, above=0.0)
    far = arguments.finite("distances", arguments.reals("distances", distances)).detach()
    if far.dim() != 1 or len(far) < 2 or float(far.min()) <= 0.0:
        raise ValueError(f"distances = {tuple(far.reshape(-1)[:9].tolist())}: give at least two, all > 0")
    distances = far.tolist()
    w_critical = _critical_weight(tau_mem, tau_syn)
    found = np.array([_first_spike(w_critical * (1.0 + d), tau_mem, tau_syn) for d in distances])
    return Graze(tau_mem, tau_syn, w_critical, np.array(distances, dtype=float), *found.T)


def determinant(net: nn.Module, inputs: Spikes, record: Record, *, sample: int = 0) -> Determinant:
    """det dG/dF by elimination, which knows nothing of order or slopes, beside the slopes that fireprop reports.

    net  any network that `ift.explicit_system` takes

    >>> found = determinant(*examples.recurrent_run(torch.Generator().manual_seed(0)))
    >>> abs(found.log_determinant - found.log_product_of_slopes) < 1e-10
    True
    """
    system = system_of(net, inputs, record, sample=sample)
    # By unit, the matrix is no longer triangular.
    order = torch.argsort(system.units, stable=True)
    sign, log_determinant = torch.linalg.slogdet(system.dG_dF.to_dense()[order][:, order])
    slopes = torch.cat(of_sample(record.slopes, record, sample))
    return Determinant(len(system), float(sign), float(log_determinant), float(slopes.log().sum()), float(slopes.min()))


def _critical_weight(tau_mem: float, tau_syn: float) -> float:
    """theta / h(t*) for theta = 1."""
    _, height = membrane.peak(0.0, 1.0, 1.0 / tau_syn, 1.0 / tau_mem)
    return 1.0 / float(height)


def _unit(weight: float, tau_mem: float, tau_syn: float) -> tuple[LIF, Spikes]:
    layer = LIF(1, 1, tau_mem=tau_mem, tau_syn=tau_syn, dtype=torch.float64)
    torch.nn.init.constant_(layer.weight, weight)
    return layer, Spikes.from_latencies([[0.0]])


def _first_spike(weight: float, tau_mem: float, tau_syn: float) -> tuple[float, float, float]:
    """Time, slope, and df/dw of the first spike."""
    layer, inputs = _unit(weight, tau_mem, tau_syn)
    record = layer.record(inputs, t_end=T_END * max(tau_mem, tau_syn))
    first = record[0].times[0]
    (derivative,) = torch.autograd.grad(first, layer.weight)
    return float(first.detach()), float(record.slopes[0][0]), float(derivative)


# ------------------------------------------------------------------------------------------------------------ picture


def draw_graze(result: Graze) -> Figure:
    """The potential as it comes to touch the threshold, and the derivative as it diverges."""
    figure = new_figure(9.0, 3.9)
    traces, law = figure.subplots(1, 2)
    _draw_traces(traces, result)
    law.loglog(
        result.distances, -result.derivatives, "o-", color=pieces.BLUE, lw=1.2, ms=5, label="|df/dw|, exact gradient"
    )
    law.loglog(result.distances, result.slopes, "s-", color=pieces.GOLD, lw=1.2, ms=5, label="slope $V'(f-)$")
    nearest_first = result.distances[::-1]
    pieces.guide(law, nearest_first, -1.15 * result.derivatives[-1], -0.5, "power -1/2")
    pieces.guide(law, nearest_first, 0.85 * result.slopes[-1], 0.5, "power 1/2")
    law.set(xlabel="distance from the graze, $(w - w_c) / w_c$")
    law.set_title(f"it diverges with the power {result.power:.4f}", loc="left")
    law.legend(frameon=False, fontsize=pieces.SMALL, loc="center left")
    return figure


def _draw_traces(ax: Axes, result: Graze) -> None:
    rates = 1.0 / result.tau_syn, 1.0 / result.tau_mem
    grid = np.linspace(0.0, 3.0 * max(result.tau_mem, result.tau_syn), 400)
    kernel = np.array([membrane.response(t, *rates) for t in grid])
    shown = [(-0.1, pieces.FAINT), (0.0, pieces.RED), (0.01, pieces.shades(4)[2]), (0.1, pieces.shades(4)[1])]
    for distance, color in [*shown, (0.4, pieces.BLUE)]:
        v = result.w_critical * (1.0 + distance) * kernel
        crossed = int(np.argmax(v >= 1.0)) if distance > 0.0 else len(v)
        name = "$w_c$, touches" if distance == 0.0 else f"{1.0 + distance:g} $w_c$"
        ax.plot(grid[: crossed + 1], np.minimum(v[: crossed + 1], 1.0), color=color, lw=1.4, label=name)
        if distance > 0.0:
            t, _, _ = _first_spike(result.w_critical * (1.0 + distance), result.tau_mem, result.tau_syn)
            ax.plot(t, 1.0, marker="o", ms=5, color=color, zorder=3)
    pieces.mark_threshold(ax, 1.0)
    ax.set(xlabel="time", ylabel="V, up to the first spike", ylim=(0.0, 1.12))
    ax.set_title("the spike slides towards the peak, then is gone", loc="left")
    ax.legend(frameon=False, fontsize=pieces.SMALL, loc="lower right")
