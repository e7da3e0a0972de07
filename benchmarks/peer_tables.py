"""The comparison with peers as tables and as a picture."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import peers, works
from benchmarks.peer_programs.measuring import STEPS, TRAINING_STEPS
from benchmarks.tables import Table, number

OURS = ("fireprop first-spikes", "fireprop all-spikes")
LABELS = {
    "fireprop first-spikes": "fireprop, to first spikes",
    "fireprop all-spikes": "fireprop, every spike",
    "jaxsnn eventprop-examples": "jaxsnn eventprop, ≤ 50/53 events",
    "jaxsnn eventprop-once": "jaxsnn eventprop, one spike per unit",
    "jaxsnn eventprop-all": "jaxsnn eventprop, every spike",
    "jaxsnn analytical-examples": "jaxsnn analytical, ≤ 50/53 events",
    "jaxsnn analytical-once": "jaxsnn analytical, one spike per unit",
    "jaxsnn analytical-all": "jaxsnn analytical, every spike",
    "eventax euler-200": "eventax, Euler steps",
    "norse steps-200": f"norse, {STEPS} steps",
    "snntorch steps-200": f"snnTorch, {STEPS} steps",
    "spikingjelly steps-200": f"SpikingJelly, {STEPS} steps",
}
COLOURS = {"fireprop": "#c8102e", "jaxsnn": "#30588c", "eventax": "#30588c"}
SURROGATE_COLOUR = "#9a9a9a"
HORIZON = 2.0


def tables(results: dict[str, Any]) -> list[Table]:
    """Two tables for each work: rates with the weights held at their start, and a training.

    `results` by peer and work, as stored. fireprop's rows are those beside the first peer.
    """
    made = []
    for work in works.NAMES:
        if rows := rows_of(work, results):
            made += [_held(work, rows), _training(work, rows)]
    return made


Named = tuple[str, dict[str, Any], dict[str, Any]]


def _held(work: str, rows: list[Named]) -> Table:
    head = ["program", "samples/s", "quartiles", "timed steps", "hidden spikes", "output spikes", "synaptic events/s"]
    head += ["compile s", "peak MB", "fireprop to first spikes / program", "fireprop, every spike / program", "method"]
    table = Table(f"{works.TITLES[work]}, weights held at their start", head)
    versions: dict[str, str] = {}
    for name, row, beside in rows:
        versions |= row.get("versions", {})
        if "error" in row:
            table.rows.append([LABELS[name], *["-"] * 10, f"{row['error']}. {what(name)}"])
            continue
        rate = row["samples_per_second"]
        ratios = [None if "error" in beside[own] else beside[own]["samples_per_second"] / rate for own in OURS]
        table.rows.append([
            LABELS[name], number(rate), "-".join(number(q) for q in row["quartiles"]), str(row["timed_steps"]),
            *(_spikes(row, layer) for layer in ("hidden", "output")), number(rate * row["synaptic_events"]),
            number(row["compile_seconds"], 2), number(row["peak_bytes"] / 1e6), *map(number, ratios), what(name),
        ])  # fmt: skip
    table.note = (
        "Samples and synaptic events per CPU second: forward, gradient and the arithmetic of Adam. The rate is the "
        "median of the timed steps. Spikes are per sample. fireprop / program: the rate of fireprop, measured in the "
        "same run, divided by that of the program. "
    )
    table.note += ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    return table


def _spikes(row: dict[str, Any], layer: str) -> str:
    """Spikes per sample, and how many a cap on events drops."""
    shown = number(row["spikes"][layer], 4)
    if row.get("dropped", {}).get(layer):
        return f"{shown} ({number(row['dropped'][layer], 4)} dropped)"
    cut = row["spikes"].get("cut", 0.0)
    return f"{shown} (some dropped in {cut:.0%} of samples)" if cut and "dropped" not in row else shown


def _training(work: str, rows: list[Named]) -> Table:
    head = ["program", "steps", "samples/s", "hidden spikes, start", "end", "output spikes, start", "end"]
    table = Table(f"{works.TITLES[work]}, training", [*head, "loss, start", "end"])
    for name, row, _ in rows:
        if "training" not in row:
            table.rows.append([LABELS[name], *["-"] * 8])
            continue
        training = row["training"]
        pairs = [(training[when][layer]) for layer in ("hidden", "output") for when in ("start", "end")]
        table.rows.append([
            LABELS[name], str(training["steps"]), number(training["samples_per_second"]),
            *(number(spikes, 4) for spikes in pairs), *map(number, training["losses"]),
        ])  # fmt: skip
    table.note = (
        f"The weights are updated in {TRAINING_STEPS} steps, or fewer where they take too long. Spikes per sample and "
        "loss are those of the first batch, before and after. The samples per CPU second are those of all steps."
    )
    return table


def rows_of(work: str, results: dict[str, Any]) -> list[Named]:
    """(name, row, the rows of the same run) of each program; fireprop once."""
    found: dict[str, Named] = {}
    for peer in peers.PEERS:
        rows = results.get(peers.part(peer, work), {}).get("values", {})
        for name, row in rows.items():
            if name not in found or "error" in found[name][1]:
                found[name] = name, row, rows
    return [found[name] for name in LABELS if name in found]


def what(name: str) -> str:
    program, mode = name.split()
    return peers.MODES[program][mode].format(steps=STEPS, dt=HORIZON / STEPS)


def draw(results: dict[str, Any]) -> Figure:
    """Rate and hidden spikes of every program, side by side, a row of panels for each work; axes in powers of ten."""
    works_drawn = [(work, rows) for work in works.NAMES if (rows := rows_of(work, results))]
    heights = [len(rows) for _, rows in works_drawn]
    figure = Figure(figsize=(9.5, 0.9 + 0.27 * sum(heights) + 0.75 * len(works_drawn)), layout="constrained")
    panels = figure.subplots(
        len(works_drawn), 2, squeeze=False, sharey="row", height_ratios=heights, width_ratios=[3, 2]
    )
    for (rates, spikes), (work, rows) in zip(panels, works_drawn, strict=True):
        names = [name for name, _, _ in rows]
        _points(rates, names, [row.get("samples_per_second") for _, row, _ in rows])
        _points(spikes, names, [row["spikes"]["hidden"] if "spikes" in row else None for _, row, _ in rows])
        rates.set_yticks(range(len(rows)), [LABELS[name] for name in names])
        rates.set_ylim(len(rows) - 0.5, -0.5)
        rates.set_title(works.TITLES[work], loc="left", fontsize=10, fontweight="bold")
    panels[-1][0].set_xlabel("samples per CPU second: forward, gradient, Adam")
    panels[-1][1].set_xlabel("hidden spikes per sample")
    figure.suptitle(
        "Weights held at their start, equal batches. Red: fireprop. Blue: exact, event by event. Grey: surrogate "
        "gradients on a time grid.",
        fontsize=9,
    )
    return figure


def _points(axis: Axes, names: list[str], values: list[float | None]) -> None:
    """Points, not bars: an axis in powers of ten has no zero from which a length could be read."""
    there = [value for value in values if value]
    low = 10.0 ** math.floor(math.log10(min(there, default=1.0))) / 2
    places = range(len(values))
    colours = [COLOURS.get(name.split()[0], SURROGATE_COLOUR) for name in names]
    axis.hlines(places, low, [value or low for value in values], color="#d9d9d9", linewidth=1)
    axis.scatter([value or low for value in values], places, c=colours, s=[36 * bool(v) for v in values], zorder=2)
    axis.set_xscale("log")
    axis.set_xlim(low, 6 * max(there, default=1.0))
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    for place, value in zip(places, values, strict=True):
        text = "no result" if value is None else number(value, 4)
        axis.text((value or low) * 1.15, place, text, va="center", fontsize=8)
