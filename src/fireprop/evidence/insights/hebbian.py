r"""The gradient as a Hebbian rule: dL/dW_ji is a weighted sum of the feeding kernel y_ji at the firing times of i.

.. math:: \frac{dL}{dW_{ji}} = \sum_{f \in F_i} \mu_f \, y_{ji}(f)

Source: Lee et al. 2023, introduction ("almost an average of the feeding kernel"); design, section 3, for mu.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from fireprop.evidence.insights.chain import Floats, Ints, one_hot
from fireprop.evidence.insights.recorded import of_sample, spike_gradients, system_of
from fireprop.ift import ExplicitSystem, Form
from fireprop.nn import Record
from fireprop.nn.connectivity import dense_only
from fireprop.nn.view import graph_view
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.spikes import Spikes

MASKS = {"weight": "mask", "recurrent_weight": "recurrent_mask"}


@dataclass(frozen=True)
class HebbianTerms:
    """What the gradient of the weights of one connection is made of, in one sample.

    times, units  (n_spikes,) of the units that these weights reach
    mu            (n_spikes,) the multiplier of each spike, of either sign: what moving it would cost, over its slope
    y             (n_spikes, in) the feeding kernel of each source at each spike, never negative
    n_units       how many units these weights reach
    """

    times: Floats
    units: Ints
    mu: Floats
    y: Floats
    n_units: int

    @property
    def gradient(self) -> Floats:
        """dL/dW (out, in): the sum over spikes of mu times y."""
        return one_hot(self.units, self.n_units).T @ (self.mu[:, None] * self.y)


def feeding(
    net: nn.Module, inputs: Spikes, record: Record, weight: str, *, sample: int = 0, form: Form | None = None
) -> Floats:
    """y_ji(f): how much of source j's smoothed spikes has reached the membrane of i when i fires at f.

    Arguments as for `hebbian_terms`. Returns (n_spikes, in), a row for each spike of the units that `weight` reaches.
    """
    layer = reached_by(net, weight)
    return _feeding(system_of(net, inputs, record, sample=sample, form=form), weight, layer)


def hebbian_terms(
    net: nn.Module,
    inputs: Spikes,
    record: Record,
    loss: Tensor,
    weight: str,
    *,
    sample: int = 0,
    form: Form | None = None,
) -> HebbianTerms:
    """mu and y of one connection. Their `gradient`, summed over the samples, is weight.grad to rounding.

    net     any network that `ift.explicit_system` takes: recurrent, of several tau_syn, with t_ref > 0
    record  what `net.record` returned
    loss    a number, computed from the times of `record`; its graph is kept
    weight  the name of the weights in `net.named_parameters()`: "weight", "recurrent_weight", "0.weight",
            "connections.a->b.weight"
    form    of the system. "paper", the default if t_ref = 0 everywhere: y sums over all earlier spikes of j, own resets
            act through mu. "restarted": y is what has reached the membrane since the last reset. Both sums are the same

    Raises ValueError for a name that is not there, TypeError for weights of a convolution or with a sparse mask, and
    what `ift.explicit_system` raises.

    >>> net, inputs, record = examples.recurrent_run(torch.Generator().manual_seed(0))
    >>> loss = record[0].times.sum()
    >>> loss.backward(retain_graph=True)
    >>> terms = hebbian_terms(net, inputs, record, loss, "recurrent_weight")
    >>> np.allclose(terms.gradient, net.recurrent_weight.grad, rtol=1e-12, atol=1e-12)
    True
    """
    layer = reached_by(net, weight)
    system = system_of(net, inputs, record, sample=sample, form=form)
    mu = system.adjoint(system.of_layers(of_sample(spike_gradients(loss, record), record, sample)))
    mine = system.layers == layer
    return HebbianTerms(
        times=system.times[mine].numpy(),
        units=system.units[mine].numpy(),
        mu=mu[mine].numpy(),
        y=_feeding(system, weight, layer),
        n_units=system.dG_dW[weight].shape[1],
    )


def reached_by(net: nn.Module, weight: str) -> int:
    """The number of the layer or population whose units the weights of this name reach."""
    view = graph_view(net)
    if weight not in view.weight_names:
        raise ValueError(f"weight = {weight!r}: the weights are {', '.join(view.weight_names)}")
    path, _, name = weight.rpartition(".")
    if name in MASKS:
        dense_only(getattr(net.get_submodule(path), MASKS[name]))
    return view.structure.connections[view.weight_names.index(weight)].post


def _feeding(system: ExplicitSystem, weight: str, layer: int) -> Floats:
    by_weight = system.dG_dW[weight]
    if by_weight.dim() == 2:  # of a bias or an i_start, whose one source is the start
        by_weight = by_weight.unsqueeze(2).coalesce()
    spikes, _, sources = by_weight.indices()
    y = torch.zeros(len(system), by_weight.shape[2], dtype=torch.float64)
    y[spikes, sources] = by_weight.values()  # the unit is that which fires
    found: Floats = y[system.layers == layer].numpy()
    return found


def draw_hebbian(terms: HebbianTerms, *, unit: int) -> Figure:
    """A weight change drawn as the sum that it is, for one unit, and for all weights of its layer."""
    figure = new_figure(9.0, 4.2)
    bars, cloud = figure.subplots(1, 2, width_ratios=[1.25, 1.0])
    mine = terms.units == unit
    _draw_parts(bars, terms.times[mine], terms.mu[mine], terms.y[mine])
    bars.set_title(f"unit {unit}: weight changes, spike by spike", loc="left")
    _draw_cloud(cloud, terms)
    return figure


def _draw_parts(ax: Axes, times: Floats, mu: Floats, y: Floats) -> None:
    """Stacked bars per source: what each spike contributes to -dL/dW, upward where it strengthens the weight."""
    parts = -mu[:, None] * y
    shades = pieces.shades(len(times))
    up, down = np.zeros(y.shape[1]), np.zeros(y.shape[1])
    sources = np.arange(y.shape[1])
    for time, part, shade in zip(times, parts, shades, strict=True):
        ax.bar(sources, np.maximum(part, 0.0), bottom=up, color=shade, width=0.7, label=f"spike at {time:.2f}")
        ax.bar(sources, np.minimum(part, 0.0), bottom=down, color=shade, width=0.7)
        up, down = up + np.maximum(part, 0.0), down + np.minimum(part, 0.0)
    ax.plot(sources, parts.sum(axis=0), ls="", marker="D", ms=6, color=pieces.INK, label="their sum: -dL/dW")
    ax.axhline(0.0, color=pieces.INK, lw=0.8)
    ax.set(xlabel="source j", ylabel=r"change of the weight, $-\mu\,y$", xticks=sources)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + (0.08 + 0.04 * len(times)) * (high - low))  # room for the legend
    ax.legend(frameon=False, fontsize=pieces.SMALL, loc="upper left", ncols=2)


def _draw_cloud(ax: Axes, terms: HebbianTerms) -> None:
    """Every term of the layer: feeding kernel against share of the weight change, a line through 0 per spike."""
    for mu, y in zip(terms.mu, terms.y, strict=True):
        color = pieces.STRONGER if mu < 0.0 else pieces.WEAKER
        reach = np.array([0.0, y.max(initial=0.0)])
        ax.plot(reach, -mu * reach, color=color, lw=0.8, alpha=0.5)
        ax.plot(y, -mu * y, ls="", marker="o", ms=4, color=color, mec="white", mew=0.4)
    ax.axhline(0.0, color=pieces.INK, lw=0.8)
    ax.set(xlabel="feeding kernel $y_{ji}(f)$", ylabel=r"share of the weight change, $-\mu\,y$")
    ax.set_title(r"all spikes of the layer: slope $-\mu$ each", loc="left")
    style: dict[str, Any] = {"marker": "o", "ms": 5}
    handles = [
        Line2D([], [], color=pieces.STRONGER, label=r"$\mu < 0$: firing earlier helps, weights grow", **style),
        Line2D([], [], color=pieces.WEAKER, label=r"$\mu > 0$: firing later helps, weights shrink", **style),
    ]
    ax.legend(handles=handles, frameon=False, fontsize=pieces.SMALL)
