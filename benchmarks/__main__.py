"""`python -m benchmarks`: the speed of fireprop, alone and beside other simulators, as the documentation gives it."""

import contextlib
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import HOUSE, growth, machine, page, peer_tables, peers, store
from benchmarks.kernels.parts import PARTS
from fireprop.datasets import MissingDataError, load_idx

app = typer.Typer(
    no_args_is_help=True,
    help="Times fireprop, alone and beside other simulators, on one core. Compare within a run: absolute numbers "
    "depend on the machine and on what else it does.",
)


class Part(str, Enum):
    rates = "rates"
    learning = "learning"
    dense = "dense"
    recurrent = "recurrent"
    inputs = "inputs"
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
    bool,
    typer.Option(
        "--publish",
        help="Write docs/benchmarks/latest.json and the page made of it. Refuses, before it measures, if the work "
        "tree has changes.",
    ),
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
    """Training rates, time to an accuracy, layers and inputs against bare arithmetic, adjoint, threads."""
    names = [name.value for name in part or Part]
    check_data(data)
    if publish and data is None:
        raise typer.BadParameter("the page has rows of MNIST: give --data too", param_hint="--publish")
    prepare("kernels", names, publish)
    for name in names:
        module = PARTS[name]
        with contextlib.nullcontext() if name == Part.threads.value else machine.one_core():
            values = module.measure(data, quick=quick)
        store.keep("kernels", name, values, quick=quick)
        typer.echo(module.table(values).text() + "\n")
    finish("kernels", publish)


@app.command("growth")
def run_growth(quick: Quick = False, publish: Publish = False) -> None:
    """How cost grows with spikes, units, samples, layers and the horizon."""
    prepare("growth", ["all"], publish)
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
    """fireprop beside other simulators, each installed from PyPI into an environment of its own.

    Environments and results are kept in FIREPROP_BENCHMARKS_CACHE, or in the user's cache folder. The tables show the
    last result of every simulator; --only and --work say which to measure now.
    """
    check_data(data)
    chosen = [peer.value for peer in only or Peer]
    names = [w.value for w in work or WorkName if w is not WorkName.mnist or data is not None]
    prepare("peers", peers.parts(chosen, names), publish)
    with machine.one_core():
        peers.run(chosen, names, data, quick=quick)
    for table in peer_tables.tables(store.kept("peers")):
        typer.echo(table.text() + "\n")
    finish("peers", publish)


@app.command("publish")
def run_publish() -> None:
    """Publish what was measured last at a clean commit, and write the page again. Measures nothing."""
    for section in page.SECTIONS:
        finish(section, bool(store.kept(section)))
    page.write(store.published())


def check_data(folder: Path | None) -> None:
    """Refuse, before anything is measured, a folder that does not hold MNIST's files."""
    if folder is not None:
        try:
            load_idx(folder, train=False)
        except (MissingDataError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint="--data") from error


def prepare(section: str, parts: Sequence[str], publish: bool) -> None:
    """Note the commit that is measured; if it is to be published, refuse now what could not be published later."""
    machine.commit()
    if publish:
        with refusing():
            store.check_tree()
            store.check_parts(section, apart_from=parts)


def finish(section: str, publish: bool) -> None:
    """Publish the section if that is wanted."""
    if publish:
        with refusing():
            page.write(store.publish(section))
        typer.echo(f"wrote {page.PAGE.relative_to(HOUSE)}")


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Exit with code 2 and one line if something cannot be published."""
    try:
        yield
    except store.NotPublishable as error:
        typer.echo(f"not published: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
