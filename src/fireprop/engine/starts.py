"""What acts on units from the start of a sample on: biases, initial currents, initial potentials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireprop.engine.arrays import MAX_CONSTANT, MAX_WEIGHT, Array, check_times, check_weight
from fireprop.engine.interface import Part
from fireprop.kernels import starts as kernel

if TYPE_CHECKING:
    from fireprop.engine.chain import Run


class Acting(NamedTuple):
    """What acts on the units of a layer, (n,) float64 each; None: nothing."""

    bias: Array | None = None
    i_start: Array | None = None
    v_start: Array | None = None

    @property
    def is_something(self) -> bool:
        return any(part is not None for part in self)

    @property
    def weights(self) -> list[str]:
        """What counts as weights from the start: the bias, and the initial current of an initial state."""
        has_state = self.i_start is not None or self.v_start is not None
        return ["bias"] * (self.bias is not None) + ["i_start"] * has_state


@dataclass(frozen=True)
class Start:
    """t_start (batch,), and what acts on each layer from then on.

    Of a run that continues another:

    hold_end  (batch, n_units): the ends of the last refractory periods before it; -inf of units that have not fired
    attached  (batch, n_layers): see `state.State`
    """

    t_start: Array
    layers: tuple[Acting, ...]
    hold_end: Array | None = None
    attached: Array | None = None

    def potential(self, sample: int, layer: int, unit: int) -> tuple[float, float]:
        """When a sample starts, and V of a unit there."""
        v_start = self.layers[layer].v_start
        return float(self.t_start[sample]), 0.0 if v_start is None else float(v_start[unit])


NOTHING = Acting()


def gradients(run: "Run", start: Start, weights: Sequence[Array], flow: Array) -> tuple[list[Array], dict[Part, Array]]:
    """The gradients of the weights and of what counts as such, layer by layer, and those by v_start.

    flow  (n_events,): dL/df in all
    """
    ahead, found, by_part = iter(weights), [], {}
    for layer, acting in enumerate(start.layers):
        part = run.members(layer + 1)
        units, slopes = run.log.events["unit"][part], run.log.events["slope"][part]
        mu = np.divide(-flow[part], slopes, out=np.zeros(slopes.size), where=(flow[part] != 0.0) & (slopes > 0.0))
        n = int(run.chain.layers["width"][layer])
        by_name = {name: np.bincount(units, mu * rise, n) for name, rise in _rises(run, start, layer).items()}
        found += [next(ahead) for _ in range(1 + int(run.chain.layers["recurrent"][layer]))]
        found += [by_name[name].reshape(-1, 1) for name in acting.weights]
        by_part[Part("v_start", layer)] = by_name["v_start"]
    return found, by_part


def along(
    run: "Run", start: Start, d_weights: Sequence[Array | None], d_parts: Mapping[Part, Array]
) -> tuple[list[Array | None], Array]:
    """The directions of the weights, and how V(f-) of every event rises along those of all else, spike times held."""
    ahead = iter(d_weights)
    found: list[Array | None] = []
    total = np.zeros(run.log.events.size)
    for layer, acting in enumerate(start.layers):
        found += [next(ahead) for _ in range(1 + int(run.chain.layers["recurrent"][layer]))]
        directions = {name: next(ahead) for name in acting.weights} | {"v_start": d_parts.get(Part("v_start", layer))}
        part = run.members(layer + 1)
        for name, rise in _rises(run, start, layer).items():
            direction = directions.get(name)
            if direction is not None:
                total[part] += rise * direction.reshape(-1)[run.log.events["unit"][part]]
    return found, total


def _rises(run: "Run", start: Start, layer: int) -> dict[str, Array]:
    """Derivatives of V(f-) of the spikes of a layer by what acts on their units, all spike times held."""
    part, first = run.members(layer + 1), int(run.chain.layers["start"][layer])
    units = run.chain.units[first : first + int(run.chain.layers["width"][layer])]
    found = {name: np.empty(part.stop - part.start) for name in Acting._fields}
    offsets = run.log.offsets[layer + 1] - part.start
    free = np.repeat(start.t_start[:, None], units.size, axis=1)
    if start.hold_end is not None:
        free = np.maximum(free, start.hold_end[:, first : first + units.size])
    attached = np.full(free.shape[0], -np.inf) if start.attached is None else start.attached[:, layer].copy()
    kernel.rise_by(run.log.events[part], offsets, units, start.t_start, attached, free, kernel.Rise(*found.values()))
    return found


def check_start(
    t_start: Array | None, times: Array, units: Array, offsets: Array, t_end: Array, *, starts: bool, resumes: bool
) -> None:
    """Refuse a start that is missing, or is not before all inputs and the end.

    starts  whether biases or initial states act; resumes whether a run continues another
    """
    if starts and resumes and t_start is not None:
        raise ValueError("leave t_start out: the initial state is past the start")
    if (starts and not resumes) != (t_start is not None):
        raise ValueError("give t_start if the network has biases or initial states, and leave it out otherwise")
    if t_start is None:
        return
    check_times(t_start, t_end)
    early = np.flatnonzero(times < np.repeat(t_start, np.diff(offsets)))
    if early.size:
        k = int(early[0])
        sample = int(np.searchsorted(offsets, k, side="right")) - 1
        raise ValueError(
            f"inputs: times[{k}] = {float(times[k])}, unit {units[k]}, comes before t_start = "
            f"{float(t_start[sample])} of sample {sample}: start earlier"
        )
    late = np.flatnonzero(t_start >= t_end)
    if late.size:
        k = int(late[0])
        raise ValueError(f"t_start[{k}] = {float(t_start[k])}: give less than t_end = {float(t_end[k])}")


def check_v_start(where: str, v_start: Array | None, theta: Array, dtype: np.dtype[Any]) -> None:
    """Refuse initial potentials that are not finite, not below the threshold, or too low for that precision."""
    if v_start is None:
        return
    least = -min(MAX_CONSTANT, MAX_WEIGHT[dtype])
    bad = np.flatnonzero(~(np.isfinite(v_start) & (v_start < theta) & (v_start >= least)))
    if bad.size:
        k = int(bad[0])
        raise ValueError(
            f"{where}: v_start[{k}] = {float(v_start[k])}: give a finite number below v_threshold = {float(theta[k])}, "
            f"and not below {least:g}"
        )


def held_below(v: Array, theta: Array, dtype: np.dtype[Any]) -> Array:
    """Potentials below the threshold as a state of that precision holds them: below it still."""
    kept = v.astype(dtype)
    return np.where(kept < theta, kept, np.nextafter(kept, dtype.type(-np.inf)))


def check_acting(where: str, start: Acting, theta: Array, dtype: np.dtype[Any]) -> None:
    """Refuse biases and initial states that a run cannot start from, in a state of that precision."""
    for name in ("bias", "i_start"):
        values = getattr(start, name)
        if values is not None:
            check_weight(where, name, values, dtype)
    check_v_start(where, start.v_start, theta, dtype)
