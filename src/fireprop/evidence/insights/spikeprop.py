r"""SpikeProp (Bohte, Kok, La Poutre 2002) as the special case in which every unit fires once.

With the postsynaptic potential of one spike in place of the feeding kernel, its delta rule reads, in our signs,

.. math:: \delta_j = \frac{dL/df_j}{\sum_i w_{ij} h'(f_j - f_i)}, \qquad
          \delta_i = \frac{\sum_j \delta_j w_{ij} h'(f_j - f_i)}{\sum_k w_{ki} h'(f_i - f_k)}, \qquad
          \frac{dL}{dw_{ij}} = -\delta_j \, h(f_j - f_i)

Its kernel t/tau exp(1 - t/tau) is our h at tau_mem = tau_syn = tau, times e/tau. Its derivation linearises the
potential around the firing time; the implicit function theorem gives the same rule as an exact derivative: of the
blocks of dG/dF that the layers make, those within a layer are diagonal, and the transpose solve from the last layer
down is the delta rule. A second spike of any unit has no place in it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from fireprop.evidence.insights.chain import Floats
from fireprop.evidence.insights.layers import Blocks, blocks_of
from fireprop.evidence.insights.recorded import end_of
from fireprop.nn import Record
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.spikes import Spikes


def spikeprop(
    net: nn.Module, inputs: Spikes, record: Record, grad_output_times: Floats, *, sample: int = 0
) -> list[Floats]:
    """dL/dW (out, in) per layer by SpikeProp's delta rule, for one sample.

    grad_output_times  (n_spikes,) dL/df of the spikes of the last layer, in their order in the record

    Raises ValueError if any unit fires more than once, and as `layers.blocks_of` does.

    >>> net, inputs, record = examples.single_spike_run(torch.Generator().manual_seed(0))
    >>> record[-1].times.sum().backward()
    >>> by_rule = spikeprop(net, inputs, record, np.ones(record[-1].n_spikes))
    >>> np.allclose(by_rule[0], net[0].weight.grad, rtol=1e-12, atol=1e-12)
    True
    """
    blocks = blocks_of(net, inputs, record, sample=sample)
    _require_single_spikes(blocks, inputs[sample], end_of(record[-1], sample))
    error = torch.as_tensor(grad_output_times, dtype=torch.float64)
    gradients: list[Floats] = []
    for layer, by_weight in reversed(list(enumerate(blocks.system.dG_dW.values()))):
        mine = blocks.spikes(layer)
        delta = error / blocks.system.slopes[mine]
        gradient = -torch.tensordot(delta, by_weight.to_dense()[mine], dims=1)
        gradients.insert(0, gradient.numpy())
        error = -delta @ blocks.between(layer)  # its entries are -w_ij h'(f_j - f_i)
    return gradients


def _require_single_spikes(blocks: Blocks, inputs: Spikes, t_end: float) -> None:
    system = blocks.system
    trains = [(f"layer {k}", system.units[blocks.spikes(k)]) for k in range(blocks.n_layers)]
    for where, units in [("the inputs", inputs.units[inputs.times < t_end]), *trains]:
        counts = torch.bincount(units)
        if counts.numel() and int(counts.max()) > 1:
            raise ValueError(
                f"unit {int(counts.argmax())} of {where} fires {int(counts.max())} times: SpikeProp handles one spike "
                "per unit. Use an earlier t_end, or loss.backward(), which handles any number"
            )


def draw_spikeprop(by_rule: Sequence[Floats], exact: Sequence[Floats]) -> Figure:
    """SpikeProp's gradient against the exact one, a dot per weight.

    by_rule, exact  gradients per layer, alike in shape
    """
    figure = new_figure(4.6, 4.4)
    ax = figure.subplots()
    pairs = zip(by_rule, exact, (pieces.BLUE, pieces.GOLD, *pieces.CLASS_COLORS[2:]), strict=False)
    everything = np.concatenate([gradient.ravel() for gradient in exact])
    span = np.array([everything.min(), everything.max()])
    ax.plot(span, span, color=pieces.GREY, lw=1.0, ls="--", zorder=1, label="equal")
    for k, (rule, truth, color) in enumerate(pairs):
        ax.plot(truth, rule, ls="", marker="o", ms=5, color=color, mec="white", mew=0.4)
        ax.plot([], [], ls="", marker="o", ms=5, color=color, label=f"weights of layer {k}")
    worst = max(float(np.abs(a - b).max()) for a, b in zip(by_rule, exact, strict=True)) / np.abs(everything).max()
    ax.set(xlabel="exact gradient, loss.backward()", ylabel="SpikeProp's delta rule")
    ax.set_title(f"one spike per unit: equal to {worst:.0e}", loc="left")
    ax.legend(frameon=False, fontsize=pieces.SMALL, loc="upper left")
    return figure
