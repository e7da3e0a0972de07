"""The commands export and import: networks as files for other tools."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fireprop.cli.common import Json, Run, Threads, mistakes_in_one_line, print_json, printable, use_threads


class FormatName(str, Enum):
    """Formats of `fireprop export`."""

    nir = "nir"


def export(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file.")],
    to: Annotated[FormatName, typer.Option("--to", metavar="FORMAT", help="Format of the file: nir.")] = FormatName.nir,
) -> None:
    """Write the network of a run, with its best weights, to a file for other tools.

    docs/nir.md says what the file contains. The data of the run are not needed.
    """
    from fireprop import runs
    from fireprop.interop.nir.trained import export_run

    with mistakes_in_one_line():
        export_run(runs.RunFolder.open(run), file)
    typer.echo(printable(file))


def import_network(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file in NIR.")],
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Print the accuracy on test data: those of a task, or of the folder of a run."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --evaluate TASK: the recipe whose encoding is used.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --evaluate: folder with the files of the task.")
    ] = None,
    spike_area: Annotated[
        str | None, typer.Option(metavar="AREA", help="Area of one spike in the file: a number, or tau_syn.")
    ] = None,
    time_unit: Annotated[float, typer.Option(help="Multiplies all times of the file, e.g. 0.001 for ms as s.")] = 1.0,
    v_start: Annotated[
        str | None, typer.Option(metavar="POTENTIAL", help="Potential at the start: a number, or v_leak.")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Read a network in NIR, and print its units and connections.

    A file that fireprop cannot run exactly is refused: the error names the node and the reason.
    """
    from fireprop.interop.nir.trained import accuracy

    with mistakes_in_one_line():
        use_threads(threads)
        given = {"recipe": recipe, "data": data}
        if evaluate is None and any(given.values()):
            option = next(name for name, value in given.items() if value)
            raise ValueError(f"--{option} belongs to --evaluate: give --evaluate TASK, or leave it out")
        net = _read(file, _number(spike_area), time_unit, _number(v_start))
        found = None if evaluate is None else accuracy(net, _config(evaluate, recipe, data))
    tables: dict[str, Any] = {"units": list(_units(net)), "connections": list(_connections(net))}
    if as_json:
        test = {} if found is None else {"test_accuracy": found[0], "test_samples": found[1]}
        print_json({**tables, **test})
        return
    for name, rows in tables.items():
        Console().print(_table(name, rows))
    if found is not None:
        typer.echo(f"test accuracy {found[0]:.2%} ({found[1]} samples of {printable(evaluate)})")


def _number(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _read(file: Path, spike_area: float | str | None, time_unit: float, v_start: float | str | None) -> Any:
    from fireprop.interop.nir import from_nir, read_nir

    graph = read_nir(file)
    try:
        return from_nir(graph, spike_area=spike_area, time_unit=time_unit, v_start=v_start)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from error


def _config(evaluate: str, recipe: str | None, data: Path | None) -> Any:
    """The configuration of a task, or of the run in a folder."""
    from dataclasses import replace

    from fireprop import runs, training
    from fireprop.recipes import configure

    changes: dict[str, Any] = {} if data is None else {"data": str(data)}
    if not (Path(evaluate) / runs.CONFIG).is_file():
        return configure(evaluate, recipe, **changes)
    if recipe is not None:
        raise ValueError(
            f"--recipe {recipe}: {evaluate} is the folder of a run, which has settings of its own: leave it out"
        )
    return replace(training.read_config(runs.RunFolder.open(Path(evaluate))), **changes)


Row = dict[str, Any]


def _units(net: Any) -> Iterator[Row]:
    """A row for each layer or population."""
    from fireprop.nn import Network

    if isinstance(net, Network):
        for name, population in net.populations.items():
            yield _unit_row(name, population, cast(Any, population).size)
        return
    for k, layer in enumerate(net):
        yield _unit_row(f"layer {k}", layer, layer.out_features)


def _unit_row(name: str, module: Any, size: int) -> Row:
    constants = ("tau_mem", "v_threshold", "bias", "i_start", "v_start")
    return {"name": name, "units": size, **{each: _span(getattr(module, each, None)) for each in constants}}


def _connections(net: Any) -> Iterator[Row]:
    """A row for each connection."""
    from fireprop.nn import Network

    if isinstance(net, Network):
        for key, own in net.connections.items():
            yield _connection_row(*net.ends(key), own.weight, own.mask, own.tau_syn, own.delay)
        return
    before = "input"
    for k, layer in enumerate(net):
        name, delay = f"layer {k}", getattr(layer, "delay", None)
        yield _connection_row(before, name, layer.weight, getattr(layer, "mask", None), layer.tau_syn, delay)
        if getattr(layer, "recurrent", False):
            loop = layer.recurrent_weight, layer.recurrent_mask, layer.tau_syn_rec, layer.delay_rec
            yield _connection_row(name, name, *loop)
        before = name


def _connection_row(source: str, target: str, weight: Any, mask: Any, tau_syn: Any, delay: Any) -> Row:
    listed = getattr(mask, "n_synapses", None)
    synapses = weight.numel() if mask is None else int(mask.sum()) if listed is None else listed
    spans = {"tau_syn": _span(tau_syn), "delay": _span(delay), "weight": _span(weight)}
    return {"from": source, "to": target, "synapses": synapses, **spans}


def _span(value: Any) -> list[float] | None:
    """The smallest and the largest value."""
    if value is None or value.numel() == 0:
        return None
    return [float(value.detach().min()), float(value.detach().max())]


def _table(name: str, rows: list[Row]) -> Table:
    shown = [column for column in rows[0] if any(row[column] is not None for row in rows)]
    table = Table(*shown, title=name)
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in shown))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, list):
        low, high = value
        return f"{low:.6g}" if low == high else f"{low:.4g} to {high:.4g}"
    return "" if value is None else printable(value)
