"""What an exact gradient does not see: spikes that appear and disappear, and the jumps that they make in a loss.

Between two changes of spikes a loss is the integral of its exact gradient. At a change it jumps, or bends, and no
derivative says so; `fireprop.validity` says where the next one is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fireprop import validity
from fireprop.evidence.insights.chain import Floats
from fireprop.nn import LIF, Record, Sequential
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.spikes import Spikes

Loss: TypeAlias = Callable[[Record], Tensor]

T_END = 3.0


@dataclass(frozen=True)
class Sweep:
    """A loss along a line through one weight, (n,) each.

    weights    the values of the weight
    losses     the loss at each
    gradients  its exact derivative there
    counts     number of spikes of all layers
    reaches    how far the weight may grow before a spike count changes, to first order; inf if it does not
    """

    weights: Floats
    losses: Floats
    gradients: Floats
    counts: Floats
    reaches: Floats

    @property
    def integral(self) -> Floats:
        """The integral of the gradient from the first weight on, by the trapezoid rule, and the first loss."""
        areas = 0.5 * np.diff(self.weights) * (self.gradients[1:] + self.gradients[:-1])
        integral: Floats = self.losses[0] + np.concatenate([[0.0], np.cumsum(areas)])
        return integral

    @property
    def changes(self) -> Floats:
        """The weights between which the spike count changes: the second of each pair of neighbours."""
        changes: Floats = self.weights[1:][np.diff(self.counts) != 0.0]
        return changes


def example() -> tuple[Sequential, Spikes, Loss, Floats]:
    """Two hidden units, one driven up to firing, and an output; its inputs and loss; weights of input 0 to hidden 1."""
    hidden, out = (LIF(2, n, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64) for n in (2, 1))
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[6.0, 0.0], [0.0, 2.5]]))
        out.weight.copy_(torch.tensor([[2.5, 3.0]]))
    inputs = Spikes.from_latencies([[0.0, 0.4]])

    def loss(record: Record) -> Tensor:
        return torch.clamp(record[-1].first(1)[0, 0, 0], max=T_END)

    return Sequential(hidden, out), inputs, loss, np.linspace(0.5, 5.0, 361)


def sweep(net: Sequential, inputs: Spikes, loss: Loss, place: tuple[int, int], values: Sequence[float]) -> Sweep:
    """The loss of a network against the weight `place` = (unit, source) of its first layer; it is set back afterwards.

    loss  of a Record of one run to T_END, a scalar

    >>> found = sweep(*example()[:3], (1, 0), [1.0, 1.1])
    >>> bool(abs(found.losses[1] - found.integral[1]) < 1e-4)
    True
    """
    weight = dict(net.named_parameters())["0.weight"]
    kept, direction = weight.detach().clone(), torch.zeros_like(weight)
    direction[place] = 1.0
    rows = []
    for value in values:
        with torch.no_grad():
            weight[place] = value
        record = net.record(inputs, t_end=T_END)
        found = loss(record)
        (gradient,) = torch.autograd.grad(found, weight) if found.requires_grad else (torch.zeros_like(weight),)
        report = validity.validity_report(net, inputs, t_end=T_END, along={"0.weight": direction})
        count = sum(spikes.n_spikes for spikes in record)
        rows.append((value, float(found.detach()), float(gradient[place]), float(count), float(report.reach.min())))
    with torch.no_grad():
        weight.copy_(kept)
    return Sweep(*np.array(rows).T)


def draw_jumps(result: Sweep) -> Figure:
    """The loss beside the integral of its gradient, the number of spikes, and how far each point can see."""
    figure = new_figure(7.0, 5.6)
    losses, counts, reaches = figure.subplots(3, 1, sharex=True, height_ratios=[2.2, 1.0, 1.4])
    losses.plot(result.weights, result.integral, color=pieces.RED, lw=1.2, ls="--", label="integral of its gradient")
    starts = [0, *(1 + np.flatnonzero(np.diff(result.counts))), result.weights.size]
    for k, (a, b) in enumerate(pairwise(starts)):
        label = "loss: time of the first output spike" if k == 0 else None
        losses.plot(result.weights[a:b], result.losses[a:b], color=pieces.INK, lw=1.8, label=label)
        counts.plot(result.weights[a:b], result.counts[a:b], color=pieces.INK, lw=1.8)
    reaches.plot(result.weights, result.reaches, color=pieces.BLUE, lw=1.4, label="reach, to first order")
    reaches.plot(result.weights, _distances(result), color=pieces.GREY, lw=1.0, ls=":", label="distance to the change")
    for ax in (losses, counts, reaches):
        for change in result.changes:
            ax.axvline(change, color=pieces.FAINT, lw=0.8, zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
    losses.set_ylabel("loss")
    counts.set_ylabel("spikes")
    reaches.set(xlabel="weight", ylabel="reach", ylim=(0.0, 1.1 * float(np.nanmax(_distances(result)))))
    losses.legend(frameon=False, fontsize=pieces.SMALL)
    reaches.legend(frameon=False, fontsize=pieces.SMALL, loc="upper right")
    return figure


def _distances(result: Sweep) -> Floats:
    """From each weight to the next change of spikes above it; nan after the last."""
    place = np.searchsorted(result.changes, result.weights, side="right")
    return np.append(result.changes, np.nan)[place] - result.weights
