"""The comparison with peers as tables and as a picture."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks import peers, works
from benchmarks.arithmetic import median
from benchmarks.peer_programs.measuring import STEPS
from benchmarks.tables import Table, number

OURS = ("fireprop first-spikes", "fireprop all-spikes")
LABELS = {
    "fireprop first-spikes": "fireprop, to first spikes",
    "fireprop all-spikes": "fireprop, every spike",
    "jaxsnn eventprop-examples": "jaxsnn eventprop, ≤ 50/53 events",
    "jaxsnn eventprop-once": "jaxsnn eventprop, one spike a unit",
    "jaxsnn eventprop-all": "jaxsnn eventprop, every spike",
    "jaxsnn analytical-examples": "jaxsnn analytical, ≤ 50/53 events",
    "jaxsnn analytical-once": "jaxsnn analytical, one spike a unit",
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
    """A table for each work; `results` by peer, as stored. fireprop's rows are those of the first peer."""
    return [table for work in works.NAMES if (table := _table(work, results)).rows]


def _table(work: str, results: dict[str, Any]) -> Table:
    head = ["program", "samples/s", "synaptic events/s", "compile s", "peak MB", "fireprop / it, to first spikes"]
    head += ["fireprop / it, every spike", "loss of a batch, before and after", "what it does"]
    table = Table(works.TITLES[work], head)
    table.note = (
        "Samples and synaptic events per CPU second: forward, gradient and update. fireprop / it: how many times as "
        "many samples fireprop does, to first output spikes or with every spike, in the same run as the other program."
    )
    versions: dict[str, str] = {}
    for name, row, beside in rows_of(work, results):
        versions |= row.get("versions", {})
        if "error" in row:
            table.rows.append([LABELS[name], *["-"] * 7, f"{row['error']}. {what(name)}"])
            continue
        table.rows.append(
            [
                LABELS[name],
                number(rate(row)),
                number(rate(row) * row["synaptic_events"]),
                number(row["compile_seconds"], 2),
                number(row["peak_bytes"] / 1e6),
                *(number(None if "error" in beside[own] else rate(beside[own]) / rate(row)) for own in OURS),
                f"{row['first_loss']:.3f} to {row['last_loss']:.3f}, {row['steps']} steps",
                what(name),
            ]
        )
    table.note += " " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    return table


def rows_of(work: str, results: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(name, row, the rows of the same run) of each program; fireprop once."""
    found: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {}
    for peer in peers.PEERS:
        rows = results.get(peer, {}).get("values", {}).get(work, {})
        for name, row in rows.items():
            if name not in found or "error" in found[name][1]:
                found[name] = name, row, rows
    return [found[name] for name in LABELS if name in found]


def rate(row: dict[str, Any]) -> float:
    return float(median(row["samples_per_second"]))


def what(name: str) -> str:
    program, mode = name.split()
    return peers.MODES[program][mode].format(steps=STEPS, dt=HORIZON / STEPS)


def draw(results: dict[str, Any]) -> Figure:
    """Samples per second of every program, a panel for each work, the axis in powers of ten."""
    panels = [(work, rows) for work in works.NAMES if (rows := rows_of(work, results))]
    heights = [len(rows) for _, rows in panels]
    figure = Figure(figsize=(8.0, 0.9 + 0.27 * sum(heights) + 0.55 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (work, rows) in zip(axes, panels, strict=True):
        rates = [0.0 if "error" in row else rate(row) for _, row, _ in rows]
        colours = [COLOURS.get(name.split()[0], SURROGATE_COLOUR) for name, _, _ in rows]
        low = 10.0 ** int(f"{min(r for r in rates if r > 0):e}".split("e")[1])
        # Points, not bars: an axis in powers of ten has no zero from which a length could be read.
        axis.hlines(range(len(rows)), low / 2, [max(value, low / 2) for value in rates], color="#d9d9d9", linewidth=1)
        axis.scatter(
            [value or low / 2 for value in rates],
            range(len(rows)),
            c=colours,
            s=[36 * bool(v) for v in rates],
            zorder=2,
        )
        axis.set_xscale("log")
        axis.set_yticks(range(len(rows)), [LABELS[name] for name, _, _ in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(low / 2, 4 * max(rates))
        axis.set_title(works.TITLES[work], loc="left", fontsize=10, fontweight="bold")
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        for place, value in enumerate(rates):
            axis.text(
                max(value, low / 2) * 1.15, place, number(value) if value else "no result", va="center", fontsize=8
            )
    axes[-1].set_xlabel("samples per CPU second: forward, gradient, update")
    figure.suptitle("Red: fireprop. Blue: exact, event by event. Grey: surrogate gradients on a time grid.", fontsize=9)
    return figure
