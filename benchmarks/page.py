"""The page of the documentation, made of docs/benchmarks/latest.json."""

from collections.abc import Iterator
from typing import Any

from benchmarks import HOUSE, growth, peer_tables
from benchmarks.kernels.parts import PARTS
from benchmarks.tables import Table

PAGE = HOUSE / "docs" / "benchmarks.md"
PICTURE = HOUSE / "docs" / "images" / "benchmarks.png"
INTRODUCTION = """# Benchmarks

`python -m benchmarks {kernels,growth,peers} --publish` writes this page; do not edit it. The numbers are in
[benchmarks/latest.json](benchmarks/latest.json). Compare numbers within a table: absolute numbers depend on the machine
and on its other work. Programs run on one core with one thread unless a table says otherwise. Rates are per CPU second.
A synaptic event is one spike handled by one receiving unit. The line below the tables of a section names the processor,
the vector instructions that Numba compiles for, and the commit that was measured.
"""
SECTIONS = {
    "peers": """## fireprop and other simulators

All programs get the same spikes, labels, initial weights, batches and Adam in float32. Each runs in an environment and
a process of its own, after warm-up, with tau_mem = 1 and tau_syn = 0.5, a ratio that jaxsnn can solve. Programs with
time steps count output spikes, early ones more, and their gradient goes through all steps. "fireprop, every spike" has
the same loss, and the gradient of every spike. The other rows of exact programs minimise the cross entropy of first
output spikes. There the gradient ends at these, whatever was simulated. Compile seconds are the CPU time of the first
step minus that of a later one; fireprop has a warm kernel cache.

The first table of each work holds the weights. Hidden activity is nearly the same in all programs that run to t_end and
let units fire again; the others have less. Adam has a learning rate of 0: each step does all of its work, but the
weights keep their initial values, and so does the number of spikes. All programs cycle through the same four batches,
and the table shows how many spikes each simulates. Programs with time steps merge or lose spikes, and a unit crosses
threshold at most once a step, so their counts differ at equal weights. The second table shows a training from the same
weights: activity drifts, and the rates with it. A program without a row was not measured on that work.

![Samples per second and hidden spikes per sample of every program](images/benchmarks.png)""",
    "kernels": "## fireprop alone",
    "growth": "## Growth",
}


def write(latest: dict[str, Any]) -> None:
    """Write the page, and the picture if peers have been measured."""
    parts = [INTRODUCTION]
    for section, head in SECTIONS.items():
        if section in latest:
            parts += [
                head,
                *(table.markdown() for table in tables(section, latest[section])),
                _measured(latest[section]),
            ]
    PAGE.write_text("\n\n".join(part.strip() for part in parts) + "\n")
    if "peers" in latest:
        PICTURE.parent.mkdir(exist_ok=True)
        peer_tables.draw(latest["peers"]).savefig(PICTURE, dpi=144, metadata={"Software": None})


def tables(section: str, results: dict[str, Any]) -> list[Table]:
    """The tables of a section, of all its parts that have been measured."""
    if section == "peers":
        return peer_tables.tables(results)
    if section == "growth":
        return growth.tables(results["all"]["values"])
    return [part.table(results[name]["values"]) for name, part in PARTS.items() if name in results]


def _measured(results: dict[str, Any]) -> str:
    """Where and when the parts of a section were measured, those together that share it."""
    groups: dict[str, list[str]] = {}
    for name, result in results.items():
        groups.setdefault(" ".join(_circumstances(result)), []).append(name)
    alone = len(groups) == 1
    return "\n".join(
        f"Measured{'' if alone else ' (' + ', '.join(names) + ')'}: {text}" for text, names in groups.items()
    )


def _circumstances(result: dict[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    yield f"{result['day']}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}."
    if "instruction_set" in machine:
        yield f"Vectors: {machine['instruction_set']} (Numba compiles for {machine['numba_cpu']})."
    yield (
        f"Versions: Python {machine['python']}, "
        + ", ".join(f"{name} {machine[name]}" for name in ("numba", "numpy", "torch"))
        + ","
    )
    yield f"fireprop {machine['fireprop']} ({machine['commit']})."
    if result["quick"]:
        yield "A quick run: it shows orders of magnitude only."
