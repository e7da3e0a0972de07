"""The commands inspect, doctor and explore: odd data, why a run does not learn, and one sample in a browser."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fireprop.cli.common import (
    Json,
    Moved,
    Run,
    Threads,
    mistakes_in_one_line,
    moved_to,
    or_null,
    print_json,
    printable,
    use_threads,
)

MOST_CLASSES = 12  # a line names


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Events, a .csv or .npz file.")],
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Labels of FILE, if they are not in FILE: columns sample, label.")
    ] = None,
    tau_mem: Annotated[
        float | None, typer.Option(metavar="TIME", help="Time constant that you plan: say if it does not fit the data.")
    ] = None,
    raster: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw one sample of each class, six at most, into this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what a file of your own events holds and what is odd about it, and draw a raster.

    The file has the format that `fireprop train FILE` reads (docs/own_data.md). The exit code is 0 even if something
    is odd.
    """
    from fireprop import datasets

    with mistakes_in_one_line():
        recordings = datasets.read_recordings(file, labels)
        found = datasets.inspect_recordings(recordings, tau_mem=tau_mem)
        if raster is not None:
            _draw(recordings, raster)
    if as_json:
        print_json(asdict(found))
        return
    for line in _lines(found):
        typer.echo(printable(line))
    if raster is not None:
        typer.echo(f"raster: {printable(raster)}")


def doctor(
    run: Run,
    samples: Annotated[int, typer.Option(min=1, help="Largest number of training samples to run.")] = 256,
    data: Moved = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Say why a run does not learn: what was found, where, how sure it is, and what to do.

    Looks at the data, the network, its gradients and the epochs of the run (docs/doctor.md). The exit code is 1 if
    there is a problem. Warnings and notes alone give 0.
    """
    from fireprop import training

    with mistakes_in_one_line():
        use_threads(threads)
        report = training.examine(run, samples=samples, data=moved_to(data))
    if as_json:
        found = [{name: or_null(value) for name, value in each.to_dict().items()} for each in report.findings]
        print_json({"facts": report.facts, "findings": found, "healthy": report.healthy})
    else:
        Console(highlight=False).print(report)
    raise typer.Exit(0 if report.healthy else 1)


def explore(
    run: Run,
    sample: Annotated[int, typer.Option(metavar="K", help="Which sample of the test part, counted from 0.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="HTML", help="File for the page. Default: explorer-K.html in RUN.")
    ] = None,
    data: Moved = None,
    threads: Threads = None,
) -> None:
    """Write a page to explore one sample of a run in a browser: spikes, potentials, causes and their gradient.

    Shows each spike with what caused it, and which share of the gradient of the loss passes along each edge
    (docs/explorer.md). The page needs no network.
    """
    from fireprop import runs, training

    with mistakes_in_one_line():
        use_threads(threads)
        folder = runs.RunFolder.open(run)
        path = folder.path / f"explorer-{sample}.html" if out is None else out
        runs.write_html(path, training.explore(folder, sample=sample, data=moved_to(data)))
    typer.echo(printable(path))


def _draw(recordings: Any, path: Path) -> None:
    from fireprop import plotting, runs

    figure = plotting.sample_rasters(
        recordings.spikes,
        labels=recordings.labels,
        class_names=recordings.class_names or None,
        sample_names=recordings.samples,
    )
    runs.write_figure(path, figure)


def _lines(found: Any) -> Iterator[str]:
    """A line for each fact, note and fault."""
    facts = {
        "samples": f"{found.samples:,}",
        "units": f"{found.units:,}",
        "events": f"{found.events:,}",
        "events per sample": _spread(found.events_per_sample),
        "events per unit": _spread(found.events_per_unit),
        "times": f"{found.t_first:.12g} to {found.t_last:.12g}; the median sample lasts {found.duration:.4g}",
        "gap within a unit": "no unit fires twice in a sample" if found.gap is None else f"median {found.gap:.4g}",
        "classes": _sizes(found.classes) or "no labels",
        "groups": _sizes(found.groups) or "none",
    }
    for name, value in facts.items():
        yield f"{name:20}{value}"
    for note in found.notes:
        yield f"note: {note}"
    for fault in found.faults:
        yield f"odd: {fault.what}: {fault.remedy}"
    if not found.faults:
        yield "nothing odd was found"


def _spread(numbers: tuple[int, float, int]) -> str:
    low, median, high = numbers
    return f"{low:,} to {high:,}, median {median:,.10g}"


def _sizes(sizes: dict[str, int]) -> str:
    shown = [f"{name} ({number:,} samples)" for name, number in list(sizes.items())[:MOST_CLASSES]]
    return ", ".join(shown) + (f", and {len(sizes) - MOST_CLASSES} more" if len(sizes) > MOST_CLASSES else "")
