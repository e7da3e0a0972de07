"""`python -m benchmarks`: every number that the documentation gives of fireprop's speed, and its peers beside it."""

import contextlib
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import HOUSE, growth, machine, page, peer_tables, peers, store
from benchmarks.kernels.parts import PARTS

app = typer.Typer(
    no_args_is_help=True,
    help="Times fireprop, alone and beside its peers, on one core. Ratios within a run are the result: absolute "
    "numbers depend on the machine and on what else it does.",
)


class Part(str, Enum):
    rates = "rates"
    learning = "learning"
    dense = "dense"
    adjoint = "adjoint"
    threads = "threads"


class Peer(str, Enum):
    jaxsnn = "jaxsnn"
    eventax = "eventax"
    norse = "norse"
    snntorch = "snntorch"
    spikingjelly = "spikingjelly"


class WorkName(str, Enum):
    yin_yang = "yin-yang"
    mnist = "mnist"
    recurrent = "recurrent"


Quick = Annotated[bool, typer.Option("--quick", help="A run in minutes, to see that everything works.")]
Publish = Annotated[
    bool, typer.Option("--publish", help="Write docs/benchmarks/latest.json and the page that is made of it.")
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of MNIST's IDX files. Without it, the work on MNIST is left out.")
]


@app.command("kernels")
def run_kernels(
    part: Annotated[list[Part] | None, typer.Option(help="Only this part; may be repeated.")] = None,
    data: Data = None,
    quick: Quick = False,
    publish: Publish = False,
) -> None:
    """Training rates, time to an accuracy, the dense layer against the bare update, adjoint, threads."""
    for name in part or list(Part):
        module = PARTS[name.value]
        with contextlib.nullcontext() if name is Part.threads else machine.one_core():
            values = module.measure(data, quick=quick)
        store.keep("kernels", name.value, values, quick=quick)
        typer.echo(module.table(values).text() + "\n")
    finish("kernels", publish)


@app.command("growth")
def run_growth(quick: Quick = False, publish: Publish = False) -> None:
    """How cost grows with spikes, units, samples, layers and the horizon."""
    with machine.one_core():
        values = growth.measure(quick=quick)
    store.keep("growth", "all", values, quick=quick)
    for table in growth.tables(values):
        typer.echo(table.text() + "\n")
    finish("growth", publish)


@app.command("peers")
def run_peers(
    only: Annotated[list[Peer] | None, typer.Option(help="Only this peer; may be repeated.")] = None,
    work: Annotated[list[WorkName] | None, typer.Option(help="Only this work; may be repeated.")] = None,
    data: Data = None,
    quick: Quick = False,
    publish: Publish = False,
) -> None:
    """fireprop beside other programs, each installed from PyPI into an environment of its own.

    Environments and results are kept in FIREPROP_BENCHMARKS_CACHE, or in the user's cache folder: the table shows all
    peers as they were measured last, those named by --only anew.
    """
    names = [w.value for w in work or WorkName if w is not WorkName.mnist or data is not None]
    with machine.one_core():
        peers.run([peer.value for peer in only or Peer], names, data, quick=quick)
    for table in peer_tables.tables(store.kept("peers")):
        typer.echo(table.text() + "\n")
    finish("peers", publish)


def finish(section: str, publish: bool) -> None:
    """Write the page if that is wanted."""
    if publish:
        page.write(store.publish(section))
        typer.echo(f"wrote {page.PAGE.relative_to(HOUSE)}")


if __name__ == "__main__":
    app()
