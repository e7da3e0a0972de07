"""Evidence from the command line: reproduce, gradcheck, verify, and their bars."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Column, Table

from fireprop.cli import lines
from fireprop.cli.common import Json, Threads, mistakes_in_one_line, or_null, print_json, printable, use_threads


class NetworkKind(str, Enum):
    """Random networks that `fireprop gradcheck` can draw; a test compares it with random_networks.KINDS."""

    chain = "chain"
    recurrent = "recurrent"
    several_tau_syn = "several-tau-syn"
    hold = "hold"
    populations = "populations"
    delays = "delays"
    alpha = "alpha"


class ExperimentName(str, Enum):
    """What `fireprop reproduce` can run; a test compares it with experiments.EXPERIMENTS, which is slow to import."""

    xor = "xor"
    iris = "iris"
    yin_yang = "yin-yang"
    surrogates = "surrogates"
    insights = "insights"
    all = "all"


def reproduce(
    experiment: Annotated[ExperimentName, typer.Argument(metavar="EXPERIMENT", help=f"{', '.join(ExperimentName)}.")],
    seeds: Annotated[
        int | None, typer.Option(help="Number of independent runs. Default: the number of each experiment.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Use smaller budgets: `all` takes about ten minutes.")] = False,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="Run the configuration of the authors too, beside the fair one.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the report. Default: runs/EXPERIMENT-DATE-TIME.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Repeat the experiments of the paper and write a report that compares results with published numbers.

    The folder contains the report (report.md), plots, and the raw numbers as CSV and JSON.
    """
    from fireprop.evidence import experiments

    with mistakes_in_one_line():
        use_threads(threads)
        plan = experiments.Plan(seeds=seeds, quick=quick, as_published=as_published)
        with _experiment_bar() as show:
            result = experiments.reproduce(experiment.value, out, plan=plan, watch=show)
    if as_json:
        print_json(result)
        return
    for part in result.get("experiments", {experiment.value: result}).values():
        Console().print(_findings_table(part))
    typer.echo(f"report: {printable(Path(result['report']) / 'report.md')}")


def gradcheck(
    networks: Annotated[int, typer.Option(min=1, help="Number of random networks, spread over the kinds.")] = 25,
    kind: Annotated[
        list[NetworkKind] | None, typer.Option(help="Kind of network; repeat for more. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the random networks.")] = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare exact gradients with central differences on random networks.

    Checks reverse mode, forward mode, the explicit system and forward propagation for every kind of parameter. The
    exit code is 1 if a gradient is wrong or cannot be confirmed.
    """
    from fireprop.evidence import gradchecks

    kinds: list[Any] = [each.value for each in kind or NetworkKind]
    with mistakes_in_one_line():
        use_threads(threads)
        with _bar("checking", networks) as advance:
            reports = gradchecks.check_random_networks(networks, seed=seed, kinds=kinds, on_report=lambda _: advance())
    report = gradchecks.summarize(reports, kinds)
    _answer(report, as_json, "verdict", "passed")


def verify(
    networks: Annotated[int, typer.Option(min=1, help="Number of random networks whose gradients are checked.")] = 50,
    crossings: Annotated[int, typer.Option(min=1, help="Number of threshold crossings to prove.")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the random networks.")] = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Check spike times and gradients on this machine and print a table of the worst errors.

    Compares with frozen results of other simulators and with central differences, proves threshold crossings, and
    checks that batches and threads do not change a result. The exit code is 1 if a check fails.
    """
    from fireprop.evidence import verify as evidence

    with mistakes_in_one_line():
        use_threads(threads)
        with _status("starting") as show:
            report = evidence.verify(networks=networks, crossings=crossings, seed=seed, on_progress=show)
    _answer(report, as_json, "passed")


def _answer(report: Any, as_json: bool, *judged: str) -> NoReturn:
    """Print a report, its rows with these of their properties if as JSON, and exit with code 1 unless it has passed."""
    if as_json:
        rows = [asdict(row) | {name: getattr(row, name) for name in judged} for row in report.rows]
        print_json([{key: or_null(value) for key, value in row.items()} for row in rows])
    else:
        Console().print(report)
    raise typer.Exit(0 if report.passed else 1)


@contextlib.contextmanager
def _status(text: str) -> Iterator[Any]:
    """What is being done now, on stderr; yields a function that changes it."""
    if not lines.on_terminal():
        yield lines.say
        return
    with Console(stderr=True).status(text) as status:
        yield status.update


@contextlib.contextmanager
def _bar(what: str, total: int) -> Iterator[Any]:
    """A bar on stderr; yields a function that takes it one step further."""
    if not lines.on_terminal():
        show, steps = lines.tenths(what), itertools.count(1)
        yield lambda: show(next(steps), total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)


@contextlib.contextmanager
def _experiment_bar() -> Iterator[Any]:
    """A bar on stderr for each stage of the experiments, with what it measured last; yields what moves it."""
    if not lines.on_terminal():
        stages: dict[str, Any] = {}

        def say(experiment: str, step: Any) -> None:
            stage = f"{experiment}, {step.stage}"
            stages.setdefault(stage, lines.tenths(stage))(step.done, step.total, step.numbers)

        yield say
        return
    # In a narrow terminal the numbers are cut, not the bar.
    whole, cut = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("[bold]{task.description}", table_column=whole),
        BarColumn(bar_width=12, table_column=whole),
        MofNCompleteColumn(table_column=whole),
        TimeRemainingColumn(compact=True, table_column=whole),
        TextColumn("{task.fields[numbers]}", table_column=cut),
    )
    with ProgressBar(*columns, console=Console(stderr=True), expand=True) as progress:
        bars: dict[tuple[str, str], Any] = {}

        def show(experiment: str, step: Any) -> None:
            stage = experiment, step.stage
            if stage not in bars:
                bars[stage] = progress.add_task(f"{experiment}, {step.stage}", total=step.total, numbers="")
            progress.update(bars[stage], completed=step.done, total=step.total, numbers=step.numbers)

        yield show


def _findings_table(result: dict[str, Any]) -> Table:
    columns = ("quantity", "setting", "fireprop", "published or recorded")
    table = Table(*columns, title=result["title"])
    for finding in result["findings"]:
        table.add_row(finding["quantity"], finding["setting"], finding["ours"], finding["recorded"])
    return table
