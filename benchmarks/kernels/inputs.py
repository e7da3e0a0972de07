"""Input spikes that reach one unit each: 1,000 units, each with an input of its own, as under a Poisson drive.

The unit of measure is a link in a dependent chain of math.exp, timed in the same turn. float64, forward.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit

from benchmarks.arithmetic import interleave, quartiles
from benchmarks.tables import Table, number
from fireprop import Spikes
from fireprop.nn import LIF

UNITS = 1_000
PER_UNIT, QUICK_PER_UNIT = 1_000, 50
RATE = 10.0  # input spikes of a unit in a membrane time constant
WEIGHTS = (0.10, 0.15, 0.25)  # means; the deviation is half of it
REPEATS, QUICK_REPEATS = 20, 3
LINKS = 1_000_000


@njit(cache=True)
def chain(links: int, x: float) -> float:
    """Exponentials, each of which waits for the one before."""
    for _ in range(links):
        x = math.exp(-x)
    return x


def measure(data: Path | None, *, quick: bool) -> list[dict[str, Any]]:
    per_unit, repeats = (QUICK_PER_UNIT, QUICK_REPEATS) if quick else (PER_UNIT, REPEATS)
    return [_compare(weight, per_unit, repeats) for weight in WEIGHTS]


def table(rows: list[dict[str, Any]]) -> Table:
    head = ["spikes per unit and 1,000 inputs", "ns per input spike", "link, ns", "input spike / link", "quartiles"]
    made = Table("Inputs that reach one unit each, 1,000 units, forward", head)
    for row in rows:
        made.rows.append([
            *(number(row[k]) for k in ("spikes", "input_ns", "link_ns", "links")),
            "-".join(number(q) for q in row["quartiles"]),
        ])  # fmt: skip
    made.note = "A link is one call of math.exp in a dependent chain, compiled by Numba. Medians within a turn."
    return made


def _compare(weight: float, per_unit: int, repeats: int) -> dict[str, Any]:
    layer, inputs, t_end = poisson_drive(weight, per_unit)

    def forward() -> Spikes:
        with torch.no_grad():
            return layer(inputs, t_end=t_end)  # type: ignore[no-any-return]

    n_spikes = forward().n_spikes
    seconds = interleave({"chain": lambda: chain(LINKS, 0.3), "forward": forward}, repeats)
    links = [f / inputs.n_spikes / (c / LINKS) for f, c in zip(seconds["forward"], seconds["chain"], strict=True)]
    return {
        "spikes": 1_000 * n_spikes / inputs.n_spikes,
        "input_ns": 1e9 * float(np.median(seconds["forward"])) / inputs.n_spikes,
        "link_ns": 1e9 * float(np.median(seconds["chain"])) / LINKS,
        "links": float(np.median(links)),
        "quartiles": quartiles(links),
    }


def poisson_drive(weight: float, per_unit: int) -> tuple[LIF, Spikes, float]:
    """A layer whose units have an input each, `per_unit` spikes of each on average, and the end of the run."""
    rng, t_end = np.random.default_rng(0), per_unit / RATE
    times = np.sort(rng.uniform(0.0, t_end, UNITS * per_unit))
    units = rng.integers(0, UNITS, times.size)
    inputs = Spikes.from_padded_events(torch.from_numpy(times)[None], torch.from_numpy(units)[None], n_units=UNITS)
    own = torch.eye(UNITS, dtype=torch.bool)
    layer = LIF(UNITS, UNITS, tau_mem=1.0, tau_syn=0.5, mask=own, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(rng.normal(weight, weight / 2.0, (UNITS, UNITS))) * own)
    return layer, inputs, t_end
