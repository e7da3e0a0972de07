"""A recurrent layer at held weights, every spike, against the bare update of its state at the same arrivals.

The network is (c) of the works, also four times as wide. Bare knows all spikes beforehand: it moves the units of both
layers at each arrival, in order, and neither finds nor logs a spike. float32, forward.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import works
from benchmarks.arithmetic import interleave, quartiles, ratio
from benchmarks.kernels.dense import bare
from benchmarks.tables import Table, number
from fireprop.nn import LIF

WIDTHS = (256, 1024)
BATCH, QUICK_BATCH = 16, 2
REPEATS, QUICK_REPEATS = 20, 3
ALPHA, BETA = 1.0 / works.TAU_SYN, 1.0 / works.TAU_MEM


# Of a layer in a sample: what arrives, as rows of its weights, and the factors of the gap before each.
Arrivals = tuple[np.ndarray, np.ndarray]


def measure(data: Path | None, *, quick: bool) -> list[dict[str, Any]]:
    batch, repeats = (QUICK_BATCH, QUICK_REPEATS) if quick else (BATCH, REPEATS)
    return [_compare(width, batch, repeats) for width in WIDTHS]


def table(rows: list[dict[str, Any]]) -> Table:
    head = ["recurrent units", "hidden spikes", "output spikes", "bare, us", "forward / bare", "quartiles"]
    made = Table("Recurrent layer, weights held, every spike, forward, against the bare update", head)
    for row in rows:
        made.rows.append([
            str(row["units"]), *(number(row[k]) for k in ("hidden", "output", "bare_us", "ratio")),
            "-".join(number(q) for q in row["quartiles"]),
        ])  # fmt: skip
    made.note = "Spikes and microseconds are per sample. Medians of ratios within a turn."
    return made


def _compare(width: int, batch: int, repeats: int) -> dict[str, Any]:
    work = works.make_recurrent(width, batch)

    def forward() -> Any:
        with torch.no_grad():
            return work.net.record(work.spikes, t_end=work.t_end)

    record = forward()
    weights = [_rows(layer) for layer in work.net]
    arrivals = [_arrivals_of(work, record, sample) for sample in range(batch)]
    seconds = interleave({"bare": lambda: _all_bare(weights, arrivals), "forward": forward}, repeats)
    each = [a / b for a, b in zip(seconds["forward"], seconds["bare"], strict=True)]
    return {
        "units": width,
        "hidden": record[0].n_spikes / batch,
        "output": record[1].n_spikes / batch,
        "bare_us": 1e6 * float(np.median(seconds["bare"])) / batch,
        "ratio": ratio(seconds["forward"], seconds["bare"]),
        "quartiles": quartiles(each),
    }


def _all_bare(weights: list[np.ndarray], arrivals: list[list[Arrivals]]) -> None:
    for sample in arrivals:
        for weight, (rows, factors) in zip(weights, sample, strict=True):
            v, i = np.zeros(weight.shape[1], np.float32), np.zeros(weight.shape[1], np.float32)
            bare(weight, rows[None], factors[None], v, i)


def _rows(layer: LIF) -> np.ndarray:
    """The weights of a layer, a row for each unit below and, if it is recurrent, for each of its own."""
    weights = [layer.weight, layer.recurrent_weight] if layer.recurrent else [layer.weight]
    return np.ascontiguousarray(np.concatenate([w.detach().numpy().T for w in weights]))


def _arrivals_of(work: works.Work, record: Any, sample: int) -> list[Arrivals]:
    """Of each layer in one sample, in order of time."""
    trains = [spikes[sample : sample + 1] for spikes in (work.spikes, *record)]
    made = []
    for below, layer, own in zip(trains, work.net, trains[1:], strict=False):
        sources = [(below, 0), (own, below.n_units)] if layer.recurrent else [(below, 0)]
        times = np.concatenate([spikes.times.detach().numpy() for spikes, _ in sources])
        rows = np.concatenate([spikes.units.numpy() + start for spikes, start in sources])
        order = np.argsort(times, kind="stable")
        made.append((rows[order], _factors(times[order])))
    return made


def _factors(times: np.ndarray) -> np.ndarray:
    gaps = np.diff(times, prepend=times[:1])
    a, b = np.exp(-ALPHA * gaps), np.exp(-BETA * gaps)
    return np.stack([a, b, (a - b) / (BETA - ALPHA)], axis=1).astype(np.float32)
