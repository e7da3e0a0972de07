"""The page of the documentation, made of docs/benchmarks/latest.json."""

from collections.abc import Iterator
from typing import Any

from benchmarks import HOUSE, growth, peer_tables
from benchmarks.kernels.parts import PARTS
from benchmarks.tables import Table

PAGE = HOUSE / "docs" / "benchmarks.md"
PICTURE = HOUSE / "docs" / "images" / "benchmarks.png"
INTRODUCTION = """# Benchmarks

Made by `python -m benchmarks {kernels,growth,peers} --publish`; do not edit. The numbers are in
[benchmarks/latest.json](benchmarks/latest.json). Ratios within a run are the result: absolute numbers depend on the
machine and on what else it did. One core and one thread unless a table says otherwise; rates are per CPU second.
A synaptic event is one arrival handled by one receiving unit.
"""
SECTIONS = {
    "peers": """## fireprop and others

The same spikes, labels, initial weights, batches and Adam, float32; each program in an environment and a process of its
own, after warm-up. tau_mem = 1 and tau_syn = 0.5, a ratio that jaxsnn can solve. Exact programs minimise the cross
entropy of first output spikes; programs on a time grid count output spikes, and early ones weigh more. Compile: the
first step less a later one, CPU seconds; for fireprop from a warm cache of kernels.

![Samples per second of every program](images/benchmarks.png)""",
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
    yield f"{result['day']}, {machine['cpu']}, {machine['cores']} cores, {machine['system']},"
    yield (
        f"Python {machine['python']}, "
        + ", ".join(f"{name} {machine[name]}" for name in ("numba", "numpy", "torch"))
        + ","
    )
    yield f"fireprop {machine['fireprop']} ({machine['commit']})."
    if result["quick"]:
        yield "A quick run: a look at the order of magnitude."
