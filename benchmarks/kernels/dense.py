"""A dense layer against the bare update of its state: what exactness costs.

Bare is the least that any simulation does at an arrival, V = bV + hI and I = aI + w for every unit, in one Numba loop
of its own with the factors at hand. The layer finds every crossing besides. Same arrivals, float32.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from benchmarks.arithmetic import interleave, ratio
from benchmarks.tables import Table, number
from fireprop import engine

WIDTHS = (128, 256, 512, 1024, 2048, 4096)
QUICK_WIDTHS = (128, 1024)
N_INPUTS, ARRIVALS, T_END = 16, 100, 2.0
EVENTS, QUICK_EVENTS = 20_000_000, 2_000_000  # synaptic events of a call
REPEATS, QUICK_REPEATS = 20, 5
ALPHA, BETA = 2.0, 1.0
HIGHEST = 0.6  # of the threshold, where nothing spikes


@njit(cache=True)
def bare(weight, units, factors, v, i):
    """All arrivals of a batch: units (batch, n), factors (batch, n, 3); the highest potential of all."""
    highest = np.float32(0.0)
    for sample in range(units.shape[0]):
        v[:] = np.float32(0.0)
        i[:] = np.float32(0.0)
        for k in range(units.shape[1]):
            a, b, h = factors[sample, k]
            w = weight[units[sample, k]]
            for u in range(v.size):
                v[u] = b * v[u] + h * i[u]
                i[u] = a * i[u] + w[u]
        highest = max(highest, v.max())
    return highest


def measure(data: Path | None, *, quick: bool) -> list[dict[str, Any]]:
    events, repeats = (QUICK_EVENTS, QUICK_REPEATS) if quick else (EVENTS, REPEATS)
    return [_compare(width, events, repeats) for width in (QUICK_WIDTHS if quick else WIDTHS)]


def table(rows: list[dict[str, Any]]) -> Table:
    head = ["units", "bare, ns per event", "no spikes / bare", "spikes / bare", "spikes per unit and 100 arrivals"]
    made = Table("Dense layer, float32, forward, against the bare update", head)
    for row in rows:
        made.rows.append([str(row["units"]), *(number(row[k]) for k in ("bare_ns", "without", "with", "spikes"))])
    made.note = "Medians of ratios within a turn."
    return made


def _compare(width: int, events: int, repeats: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    batch = max(1, events // (width * ARRIVALS))
    times = np.sort(rng.uniform(0.0, T_END, (batch, ARRIVALS)), axis=1)
    units = rng.integers(0, N_INPUTS, (batch, ARRIVALS))
    gaps = np.diff(times, axis=1, prepend=times[:, :1])
    a, b = np.exp(-ALPHA * gaps), np.exp(-BETA * gaps)
    factors = np.stack([a, b, (a - b) / (BETA - ALPHA)], axis=2).astype(np.float32)
    v, i = np.zeros(width, np.float32), np.zeros(width, np.float32)
    shape = rng.normal(0.0, 1.0, (N_INPUTS, width)).astype(np.float32)

    silent = shape * np.float32(HIGHEST / _peak(shape, times, units))
    few = _scale_of_one_spike(rng.normal(1.0, 0.5, (N_INPUTS, width)).astype(np.float32), times, units)

    def run(weight: np.ndarray) -> Any:
        return _simulate(weight, times, units)

    calls = {
        "bare": lambda: bare(silent, units, factors, v, i),
        "without": lambda: run(silent),
        "with": lambda: run(few),
    }
    n_spikes = [run(weight).log.offsets[1, -1] - run(weight).log.offsets[1, 0] for weight in (silent, few)]
    assert n_spikes[0] == 0
    seconds = interleave(calls, repeats)
    n_events = batch * ARRIVALS * width
    return {
        "units": width,
        "bare_ns": 1e9 * float(np.median(seconds["bare"])) / n_events,
        "without": ratio(seconds["without"], seconds["bare"]),
        "with": ratio(seconds["with"], seconds["bare"]),
        "spikes": float(n_spikes[1]) / (batch * width),
    }


def _simulate(weight: np.ndarray, times: np.ndarray, units: np.ndarray) -> Any:
    """One layer of the engine on these arrivals; weight (inputs, units)."""
    batch, n_units = len(times), weight.shape[1]
    layer = engine.chain.Layer(
        np.ascontiguousarray(weight.T), 1.0 / BETA, 1.0 / ALPHA, np.ones(n_units), np.zeros(n_units)
    )
    offsets = np.arange(batch + 1) * ARRIVALS
    return engine.chain.simulate([layer], times.reshape(-1), units.reshape(-1), offsets, np.full(batch, T_END))


def _peak(weight: np.ndarray, times: np.ndarray, units: np.ndarray) -> float:
    """Highest potential of any unit at any arrival, far below threshold."""
    highest = 0.0
    for sample in range(min(len(times), 16)):
        v, i, last = np.zeros(weight.shape[1]), np.zeros(weight.shape[1]), times[sample, 0]
        for t, u in zip(times[sample], units[sample], strict=True):
            a, b = np.exp(-ALPHA * (t - last)), np.exp(-BETA * (t - last))
            v, i, last = b * v + (a - b) / (BETA - ALPHA) * i, a * i + weight[u], t
            highest = max(highest, float(v.max()))
    return highest


def _scale_of_one_spike(weight: np.ndarray, times: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The weights times what makes a unit fire once in the arrivals of a sample, on the mean of some samples."""
    low, high = 1e-3, 1.0
    some = slice(0, 16)
    for _ in range(14):
        middle = (low * high) ** 0.5
        run = _simulate(weight * np.float32(middle), times[some], units[some])
        if run.log.offsets[1, -1] - run.log.offsets[1, 0] > len(times[some]) * weight.shape[1]:
            high = middle
        else:
            low = middle
    return weight * np.float32(low)
