r"""Forward in layers: in a feed-forward network dF/dW needs no order in time, one triangular solve per layer does.

With A_l the block of dG/dF within layer l and B_l the block towards the layer below,

.. math:: \frac{dF_l}{dW_l} = -A_l^{-1} y, \qquad \frac{dF_l}{dW_m} = -A_l^{-1} B_l \frac{dF_{l-1}}{dW_m} \quad (m < l)

Source: Lee et al. 2023, introduction ("forward in time, or forward in layers for feed-forward networks").
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from fireprop.evidence.insights.chain import Ints
from fireprop.evidence.insights.recorded import system_of
from fireprop.ift import ExplicitSystem, Jacobian
from fireprop.nn import Record
from fireprop.nn.view import GraphView, graph_view
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class Blocks:
    """The explicit system of a chain, cut by layer; within each, spikes are in order of time.

    within(l)   dG/dF of the spikes of layer l among themselves: slopes on the diagonal, own earlier spikes below
    between(l)  dG/dF of the spikes of layer l by those of layer l - 1
    """

    system: ExplicitSystem
    n_layers: int

    def spikes(self, layer: int) -> Tensor:
        """(F,) bool: which spikes are those of a layer."""
        return self.system.layers == layer

    def within(self, layer: int) -> Tensor:
        """The block of the layer's spikes by each other, (spikes, spikes)."""
        return self._dense[self.spikes(layer)][:, self.spikes(layer)]

    def between(self, layer: int) -> Tensor:
        """The block of the layer's spikes by those of the layer below, (spikes, spikes below)."""
        return self._dense[self.spikes(layer)][:, self.spikes(layer - 1)]

    @cached_property
    def _dense(self) -> Tensor:
        return self.system.dG_dF.to_dense()


def blocks_of(net: nn.Module, inputs: Spikes, record: Record, *, sample: int = 0) -> Blocks:
    """The system of one sample of a recorded run of a chain of feed-forward layers, cut by layer.

    Raises ValueError if a connection leads anywhere but to the next layer, and what `ift.explicit_system` raises.
    """
    view = graph_view(net)
    _require_chain(view)
    return Blocks(system_of(net, inputs, record, sample=sample), len(view.structure.populations))


def forward_in_layers(net: nn.Module, inputs: Spikes, record: Record, *, sample: int = 0) -> Jacobian:
    """dF/dW of one sample, a layer at a time: all spikes of a layer together, then those of the next.

    Dense, for study: its size is spikes times weights. Its rows are in order of time, as those of
    `ExplicitSystem.derivatives_by_level`, which goes forward in time. Raises as `blocks_of` does.

    >>> net, inputs, record = examples.lively_run(torch.Generator().manual_seed(0))
    >>> by_layer = forward_in_layers(net, inputs, record).by
    >>> in_time = system_of(net, inputs, record).derivatives_by_level()
    >>> all(torch.allclose(by_layer[name], in_time[name], rtol=1e-12) for name in by_layer)
    True
    """
    blocks = blocks_of(net, inputs, record, sample=sample)
    system = blocks.system
    by_weight = {name: side.to_dense() for name, side in system.dG_dW.items()}
    rows = {name: torch.zeros_like(side) for name, side in by_weight.items()}
    for layer in range(blocks.n_layers):
        now, before = blocks.spikes(layer), blocks.spikes(layer - 1)
        for m, name in enumerate(rows):
            if m == layer:
                rows[name][now] = _solve(blocks.within(layer), -by_weight[name][now])
            elif m < layer:
                fed = torch.tensordot(blocks.between(layer), rows[name][before], dims=1)
                rows[name][now] = _solve(blocks.within(layer), -fed)
    samples = torch.full_like(system.layers, sample)
    return Jacobian(samples, system.layers, system.units, system.times, rows)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.solve_triangular(matrix, right.flatten(1), upper=False)
    return solution.reshape(right.shape)


def _require_chain(view: GraphView) -> None:
    for k, connection in enumerate(view.structure.connections):
        if (connection.pre, connection.post) != (k - 1, k):
            raise ValueError(
                f"{view.weight_names[k]} closes a loop or skips a layer, or is a second connection: give a chain of "
                "feed-forward layers"
            )


# ------------------------------------------------------------------------------------------------------------ picture


def draw_layers(net: nn.Module, inputs: Spikes, record: Record, *, sample: int = 0) -> Figure:
    """Where dG/dF has entries, in the order of time and in the order of layers: triangular both ways."""
    blocks = blocks_of(net, inputs, record, sample=sample)
    system = blocks.system
    kinds = _kinds(system)
    by_layer = torch.argsort(system.layers, stable=True).numpy()
    ends = np.cumsum([0, *(int(blocks.spikes(k).sum()) for k in range(blocks.n_layers))]).tolist()
    places = [slice(start, stop) for start, stop in pairwise(ends)]
    figure = new_figure(9.4, 5.1)
    left, right = figure.subplots(1, 2)
    _draw_kinds(left, kinds)
    _draw_kinds(right, kinds[np.ix_(by_layer, by_layer)])
    left.set(ylabel="spike k", xlabel="spike m, in order of time")
    left.set_title("forward in time: spike after spike", loc="left")
    right.set(xlabel="spike m, layer by layer")
    right.set_title("forward in layers: block after block", loc="left")
    for k, place in enumerate(places):
        _frame(right, place, place, f"layer {k}")
        if k > 0:
            _frame(right, place, places[k - 1], f"layer {k} from {k - 1}")
    left.legend(loc="upper right", frameon=False, fontsize=pieces.SMALL + 1)
    return figure


KINDS = (("slope of the spike", pieces.INK), ("own reset", pieces.RED), ("spike of the layer below", pieces.BLUE))


def _kinds(system: ExplicitSystem) -> Ints:
    """For each entry of dG/dF the index of its kind in KINDS, -1 where it is 0."""
    matrix, layers = system.dG_dF.to_dense().numpy(), system.layers.numpy()
    kinds = np.where(layers[:, None] == layers[None, :], 1, 2)
    kinds[matrix == 0.0] = -1
    np.fill_diagonal(kinds, 0)
    return kinds


def _draw_kinds(ax: Axes, kinds: Ints) -> None:
    size = len(kinds)
    for kind, (name, color) in enumerate(KINDS):
        rows, columns = np.nonzero(kinds == kind)
        ax.scatter(columns, rows, s=(160.0 / size) ** 2, marker="s", c=color, lw=0, label=name, zorder=2)
    ax.set(xlim=(-1, size), ylim=(size, -1), aspect="equal")


def _frame(ax: Axes, rows: slice, columns: slice, name: str) -> None:
    width, height = columns.stop - columns.start, rows.stop - rows.start
    corner = (columns.start - 0.5, rows.start - 0.5)
    ax.add_patch(Rectangle(corner, width, height, fc="#F1F1F1", ec=pieces.GREY, lw=1.0, zorder=0))
    upper_right = (columns.stop - 1.0, rows.start + 0.2)
    box = {"fc": "#F1F1F1", "ec": "none", "pad": 1.0}
    ax.text(*upper_right, name, fontsize=pieces.SMALL, ha="right", va="top", color=pieces.INK, bbox=box, zorder=3)
