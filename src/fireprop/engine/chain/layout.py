"""The constants of a chain, and how they are laid out for its kernels."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fireprop.engine import memory
from fireprop.engine.arrays import Array, copy_of, records
from fireprop.engine.starts import NOTHING, Acting
from fireprop.kernels.chain.layout import BETA, GAP, LANES, LAYER, N_PAIRS, N_RATES, PAIRS, UNIT, Chain
from fireprop.kernels.chain.varied import N_ROWS

# A graph takes 0.78 of the time of a chain for 2000 x 2000 with 1 % of the synapses, 2.2 with 5 %; for 1000: 1.0, 1.7.
LARGE, SPARSE = 1000, 0.02
LEAST_BIAS, MOST_BIAS = -2.0, 0.5  # potentials to which a bias alone may take a unit, in thresholds
MOST_PAIRS = N_PAIRS  # distinct pairs of rates whose factors are found once for each pair
ALL_VARIED = False  # whether uniform layers are treated as varied: for tests. No bit depends on it
FIXED_LOOK = 0.0  # how far a recurrent layer looks ahead at first; 0: it adapts. No spike depends on it


@dataclass(frozen=True)
class Layer:
    """Constants of one layer. `weight` (out, in), `recurrent_weight` (out, out) or None for a layer without recurrence,
    float32 or float64; `tau_mem`, `tau_syn` a number of all units, or (out,); `v_threshold`, `t_ref` (out,) float64;
    `start` what acts from the start of a sample on; `delay` of what comes from below, `recurrent_delay` of own
    spikes."""

    weight: Array
    tau_mem: float | Array
    tau_syn: float | Array
    v_threshold: Array
    t_ref: Array
    recurrent_weight: Array | None = None
    start: Acting = NOTHING
    delay: float = 0.0
    recurrent_delay: float = 0.0

    @property
    def weights(self) -> list[Array]:
        """Those that there are, in the order in which gradients come."""
        return [self.weight] if self.recurrent_weight is None else [self.weight, self.recurrent_weight]


def is_sparse(width: int, n_synapses: int, room: int) -> bool:
    """Whether a graph, which visits synapses that exist, is faster than a chain in which the others have weight 0.

    Of a layer of that width with n_synapses of all the synapses that it has room for.
    """
    return width >= LARGE and n_synapses < SPARSE * room


def is_quiet(bias: Any, tau_mem: Any, v_threshold: Any) -> bool:
    """Whether biases move potentials by so little that a chain, which measures V from there, loses no digits.

    Arrays or tensors, which have no arrays under torch.func.
    """
    reach = bias * tau_mem / v_threshold
    return bool(((reach >= LEAST_BIAS) & (reach <= MOST_BIAS)).all())


def lay_out(layers: Sequence[Layer], outline: Chain | None = None) -> Chain:
    """The flat form of a chain: rates for time constants, a row of weights per source unit, padded to blocks.

    outline  what `outline_of` a chain of layers with the same constants says, without biases
    """
    chain = _new_outline(layers) if outline is None else outline._replace(units=copy_of(outline.units))
    chain = chain._replace(weight=memory.zeros(chain.weight.size, layers[0].weight.dtype))
    weights = [one for layer in layers for one in layer.weights]
    for part, given in zip(weights_of(chain, chain.weight), weights, strict=True):
        part[:] = given
    for own, layer in zip(units_of(chain, chain.units), layers, strict=True):
        own["theta"] = layer.v_threshold
        if layer.start.bias is not None:
            own["rest"] = -layer.start.bias * layer.tau_mem
    return chain


def outline_of(chain: Chain) -> Chain:
    """What another chain with the same constants may share: nobody writes into it. It has no weights."""
    return chain._replace(weight=_no_weights(chain.weight.size, chain.weight.dtype))


def _no_weights(number: int, dtype: np.dtype[Any]) -> Array:
    """An array of that size, which takes no room."""
    return np.broadcast_to(np.zeros((), dtype), number)


def _new_outline(layers: Sequence[Layer]) -> Chain:
    shapes = [(*layer.weight.shape, layer.recurrent_weight is not None) for layer in layers]
    rows, n_units, n_weights = _rows_of(*shapes)
    rows = copy_of(rows)
    rows["delay"] = [layer.delay for layer in layers]
    rows["own_delay"] = [layer.recurrent_delay for layer in layers]
    rows["uniform"] = [_is_uniform(layer) for layer in layers]
    # Own spikes that come late do not cut the gap in which they fire: all of it is looked at.
    rows["fixed_look"] = np.where(rows["own_delay"] > 0.0, np.inf, FIXED_LOOK * rows["recurrent"])
    units = records(n_units, UNIT)
    units["theta"] = np.inf
    units["sample"] = -1
    weight = _no_weights(n_weights, layers[0].weight.dtype)
    places = np.zeros(n_units, f"i{weight.itemsize}")  # as wide as what is handed out by them
    chain = Chain(rows, units, weight, np.zeros((N_RATES, n_units)), places)
    for own, layer in zip(units_of(chain, units), layers, strict=True):
        own["t_ref"], own["alpha"], own["beta"] = layer.t_ref, 1.0 / layer.tau_syn, 1.0 / layer.tau_mem
    rows["alpha"], rows["beta"] = units["alpha"][rows["start"]], units["beta"][rows["start"]]
    for number in np.flatnonzero(~rows["uniform"]).tolist():
        _lay_out_rates(chain, number, layers[number])
    return chain


def _is_uniform(layer: Layer) -> bool:
    return not (ALL_VARIED or isinstance(layer.tau_mem, np.ndarray) or isinstance(layer.tau_syn, np.ndarray))


def _lay_out_rates(chain: Chain, number: int, layer: Layer) -> None:
    """What the kernels read of the rates of a varied layer: columns, the distinct pairs if few, and the slowest."""
    row = chain.layers[number]
    start, stop, width = (int(row[name]) for name in ("start", "stop", "width"))
    own = chain.rates[: BETA + 1, start:stop]
    own[0, :width], own[1, :width] = 1.0 / layer.tau_syn, 1.0 / layer.tau_mem
    own[:, width:] = own[:, :1]
    row["alpha"], row["beta"] = own.min(axis=1)
    pairs, places = np.unique(own, axis=1, return_inverse=True)
    n_pairs = pairs.shape[1]
    if n_pairs <= MOST_PAIRS:
        row["n_pairs"], chain.places[start:stop] = n_pairs, places.ravel()
        chain.rates[PAIRS:GAP, start:stop] = own[:, :1]
        chain.rates[PAIRS:GAP, start : start + n_pairs] = pairs


@functools.lru_cache(maxsize=64)
def _rows_of(*shapes: tuple[int, int, bool]) -> tuple[Array, int, int]:
    """Where layers (out, in, recurrent or not) lie among all units and weights, and how many of these there are."""
    rows = records(len(shapes), LAYER)
    n_units = n_weights = 0
    for row, (width, n_sources, recurrent) in zip(rows, shapes, strict=True):
        stride = -(-width // LANES) * LANES
        row["width"], row["start"], row["stop"] = width, n_units, n_units + stride
        row["weight_start"], row["recurrent_start"] = n_weights, n_weights + stride * n_sources
        row["recurrent"] = recurrent
        n_units += stride
        n_weights += stride * (n_sources + width * recurrent)
    return rows, n_units, n_weights


def weights_of(chain: Chain, flat: Array) -> list[Array]:
    """What belongs to the weights (out, in) of each layer and of its recurrence in an array like chain.weight: views.

    They come as `Layer.weights` do, layer by layer.
    """
    names = ("weight_start", "recurrent_start", "recurrent", "start", "stop", "width")
    columns = [chain.layers[name].tolist() for name in names]
    parts = []
    for first, own, recurrent, start, stop, width, end in zip(*columns, [*columns[0][1:], flat.size], strict=True):
        for a, b in ((first, own), (own, end)) if recurrent else ((first, own),):
            parts.append(flat[a:b].reshape(-1, stop - start)[:, :width].T)
    return parts


def units_of(chain: Chain, values: Array) -> list[Array]:
    """What belongs to the units of each layer in an array like chain.units: views."""
    starts, widths = chain.layers["start"].tolist(), chain.layers["width"].tolist()
    return [values[start : start + width] for start, width in zip(starts, widths, strict=True)]


def widest(chain: Chain) -> int:
    """The width of the widest layer, padding included."""
    return int((chain.layers["stop"] - chain.layers["start"]).max())


def columns_of(chain: Chain) -> Array | None:
    """Room for the columns of `kernels/varied.py`; None for a chain of uniform layers."""
    if chain.layers["uniform"].all():
        return None
    return np.zeros(N_ROWS * chain.units.size, chain.weight.dtype)
