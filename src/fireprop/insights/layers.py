r"""Forward in layers: in a feed-forward network dF/dW needs no order in time, one triangular solve per layer does.

With A_l the block of dG/dF within layer l and B_l the block towards the layer below,

.. math:: \frac{dF_l}{dW_l} = -A_l^{-1} y, \qquad \frac{dF_l}{dW_m} = -A_l^{-1} B_l \frac{dF_{l-1}}{dW_m} \quad (m < l)

Source: Lee et al. 2023, introduction ("forward in time, or forward in layers for feed-forward networks").
"""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fireprop.insights import canvas, system
from fireprop.insights.chain import Chain, Floats, Ints, Layer, Net, read_chain
from fireprop.nn import Record
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class Jacobian:
    """dF/dW of one sample: `blocks[l][m]` (n_spikes of layer l, out_m, in_m), for m <= l; beyond, it is 0."""

    blocks: tuple[tuple[Floats, ...], ...]

    def gradient(self, grad_times: list[Floats]) -> list[Floats]:
        """dL/dW per layer for dL/df of every spike (n_spikes,) per layer: any number of losses from one Jacobian."""
        return [
            np.asarray(sum(np.tensordot(grad_times[k], self.blocks[k][m], axes=1) for k in range(m, len(self.blocks))))
            for m in range(len(self.blocks))
        ]


def forward_in_layers(net: Net, inputs: Spikes, record: Record, *, sample: int = 0) -> Jacobian:
    """dF/dW, a layer at a time: all spikes of a layer together, then those of the next.

    Dense, for study: its size is spikes times weights. Raises ValueError as `chain.read_chain` does.

    >>> run = examples.lively_run(torch.Generator().manual_seed(0))
    >>> by_layer, in_time = forward_in_layers(*run), forward_in_time(*run)
    >>> np.allclose(by_layer.blocks[1][0], in_time.blocks[1][0], rtol=1e-12, atol=1e-12)
    True
    """
    chain = read_chain(net, inputs, record, sample=sample)
    blocks: list[tuple[Floats, ...]] = []
    for k, layer in enumerate(chain.layers):
        below = [np.tensordot(system.between(layer), block, axes=1) for block in blocks[k - 1]] if k > 0 else []
        blocks.append(tuple(_solve(system.within(layer), -right) for right in [*below, by_weight(layer)]))
    return Jacobian(tuple(blocks))


def forward_in_time(net: Net, inputs: Spikes, record: Record, *, sample: int = 0) -> Jacobian:
    """The same dF/dW from the whole system, spike after spike in the order in which they happened."""
    chain = read_chain(net, inputs, record, sample=sample)
    matrix, places = system.assemble(chain)
    right = _all_by_weight(chain, places)
    rows = np.zeros_like(right)
    done: list[int] = []
    for k in system.time_order(chain).tolist():
        rows[k] = -(right[k] + matrix[k, done] @ rows[done]) / matrix[k, k]
        done.append(k)
    return _cut(chain, places, rows)


def by_weight(layer: Layer) -> Floats:
    """dG/dW of a layer's spikes with respect to its own weights: (n_spikes, out, in), y in the row of the unit."""
    n_spikes = layer.spikes.times.size
    derivative = np.zeros((n_spikes, *layer.weight.shape))
    derivative[np.arange(n_spikes), layer.spikes.units] = layer.feeding
    return derivative


def _solve(matrix: Floats, right: Floats) -> Floats:
    flat = right.reshape(len(matrix), math.prod(right.shape[1:]))
    return np.asarray(np.linalg.solve(matrix, flat), np.float64).reshape(right.shape)


def _all_by_weight(chain: Chain, places: list[slice]) -> Floats:
    """dG/dW of all spikes and all weights: (F, number of weights)."""
    columns = []
    for place, layer in zip(places, chain.layers, strict=True):
        column = np.zeros((chain.n_spikes, layer.weight.size))
        column[place] = by_weight(layer).reshape(-1, layer.weight.size)
        columns.append(column)
    return np.concatenate(columns, axis=1)


def _cut(chain: Chain, places: list[slice], rows: Floats) -> Jacobian:
    ends = np.cumsum([layer.weight.size for layer in chain.layers])
    columns = np.split(rows, ends[:-1], axis=1)
    return Jacobian(
        tuple(
            tuple(columns[m][place].reshape(-1, *chain.layers[m].weight.shape) for m in range(k + 1))
            for k, place in enumerate(places)
        )
    )


# ------------------------------------------------------------------------------------------------------------ picture


def draw_layers(net: Net, inputs: Spikes, record: Record, *, sample: int = 0) -> Figure:
    """Where dG/dF has entries, in the order of time and in the order of layers: triangular both ways."""
    chain = read_chain(net, inputs, record, sample=sample)
    matrix, places = system.assemble(chain)
    order = system.time_order(chain)
    kinds = _kinds(matrix, places)
    figure = canvas.figure(9.4, 5.1)
    left, right = figure.subplots(1, 2)
    _draw_kinds(left, kinds[np.ix_(order, order)])
    _draw_kinds(right, kinds)
    left.set(ylabel="spike k", xlabel="spike m, in order of time")
    left.set_title("forward in time: spike after spike", loc="left")
    right.set(xlabel="spike m, layer by layer")
    right.set_title("forward in layers: block after block", loc="left")
    for k, place in enumerate(places):
        _frame(right, place, place, f"layer {k}")
        if k > 0:
            _frame(right, place, places[k - 1], f"layer {k} from {k - 1}")
    left.legend(loc="upper right", frameon=False, fontsize=canvas.SMALL + 1)
    return figure


KINDS = (("slope of the spike", canvas.INK), ("own reset", canvas.RED), ("spike of the layer below", canvas.BLUE))


def _kinds(matrix: Floats, places: list[slice]) -> Ints:
    """For each entry of dG/dF the index of its kind in KINDS, -1 where it is 0."""
    kinds = np.where(matrix != 0.0, 2, -1)
    for place in places:
        kinds[place, place] = np.where(matrix[place, place] != 0.0, 1, -1)
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
    ax.add_patch(Rectangle(corner, width, height, fc="#F1F1F1", ec=canvas.GREY, lw=1.0, zorder=0))
    upper_right = (columns.stop - 1.0, rows.start + 0.2)
    box = {"fc": "#F1F1F1", "ec": "none", "pad": 1.0}
    ax.text(*upper_right, name, fontsize=canvas.SMALL, ha="right", va="top", color=canvas.INK, bbox=box, zorder=3)
