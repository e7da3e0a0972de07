"""The command line: each command parses, calls one public function, prints. Results to stdout, progress to stderr.

A user's mistake ends with exit code 2 and one line.
"""

import contextlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Column, Table
from rich.text import Text

app = typer.Typer(
    name="fireprop",
    help="Train spiking neural networks with exact gradients of their firing times.",
    epilog="Example: fireprop train yin-yang --seed 1 --out runs/first",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class TaskName(str, Enum):
    """What `fireprop train` can train; a test compares it with tasks.TASKS."""

    yin_yang = "yin-yang"
    xor = "xor"
    iris = "iris"
    mnist = "mnist"
    fashion_mnist = "fashion-mnist"
    nmnist = "nmnist"


class ScheduleName(str, Enum):
    """How the learning rate goes down."""

    exponential = "exponential"
    cosine = "cosine"


class GradientName(str, Enum):
    """How a gradient is found; both are exact."""

    adjoint = "adjoint"
    forward = "forward"


class NetworkKind(str, Enum):
    """Random networks that `fireprop gradcheck` can draw; a test compares it with gradcheck.KINDS."""

    chain = "chain"
    recurrent = "recurrent"
    several_tau_syn = "several-tau-syn"
    hold = "hold"
    populations = "populations"
    delays = "delays"


class ExperimentName(str, Enum):
    """What `fireprop reproduce` can run; a test compares it with experiments.EXPERIMENTS, which is slow to import."""

    xor = "xor"
    iris = "iris"
    yin_yang = "yin-yang"
    surrogates = "surrogates"
    insights = "insights"
    all = "all"


class DtypeName(str, Enum):
    """Precision of weights, potentials and currents. Times are float64 always."""

    float32 = "float32"
    float64 = "float64"


Threads = Annotated[int | None, typer.Option(min=1, help="Threads. Default: OMP_NUM_THREADS, else all cores.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, as `fireprop train` names it.")]


@app.command()
def train(
    task: Annotated[TaskName | None, typer.Argument(metavar="TASK", help=f"{', '.join(TaskName)}.")] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="Settings for a published result; see `fireprop recipes`.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the files of mnist, fashion-mnist or nmnist.")
    ] = None,
    hidden: Annotated[list[int] | None, typer.Option(help="Hidden units; repeat for more layers.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate at the start.")] = None,
    schedule: Annotated[ScheduleName | None, typer.Option(help="How the learning rate goes down.")] = None,
    held_out: Annotated[
        float | None, typer.Option(metavar="SHARE", help="SHARE of the files' training part that validates.")
    ] = None,
    max_shift: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Move training images by up to so many PIXELS, each way.")
    ] = None,
    input_dropout: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Leave out a SHARE of the input spikes in training.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and shuffling. Default: 0.")] = None,
    dtype: Annotated[DtypeName | None, typer.Option(help="Precision of weights and potentials.")] = None,
    gradient: Annotated[GradientName | None, typer.Option(help="How gradients are found; both are exact.")] = None,
    keep_alive: Annotated[
        float | None, typer.Option(metavar="ZETA", help="Lift units whose mean potential is below ZETA thresholds.")
    ] = None,
    follow: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Count the spikes created and deleted by a SHARE of the steps."),
    ] = None,
    guard: Annotated[
        bool | None, typer.Option("--guard", help="Shorten a followed step that silences the unit of a label.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run. Default: runs/TASK-DATE-TIME.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a task with exact spike-time gradients.

    Writes the configuration, the metrics of every epoch, the outcome, a checkpoint and pictures into a folder of its
    own. Settings that are not given are those of the task.
    """
    from fireprop import ranks, training

    changes = {
        "hidden": tuple(hidden) if hidden else None,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "schedule": schedule.value if schedule else None,
        "data": str(data.expanduser().resolve()) if data else None,
        "held_out": held_out,
        "max_shift": max_shift,
        "input_dropout": input_dropout,
        "seed": seed,
        "dtype": dtype.value if dtype else None,
        "gradient": gradient.value if gradient else None,
        "keep_alive": keep_alive,
        "follow": follow,
        "guard": guard,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    with _mistakes_in_one_line(), ranks.launched() as group:
        _use_threads(threads)
        if resume:
            given = [*changes, *(name for name, value in (("recipe", recipe), ("out", out)) if value)]
            if given:
                option = given[0].replace("_", "-")
                raise ValueError(f"--resume goes on with the settings of {resume}: leave out --{option}")
            run = group.from_first(partial(_reopen, resume, task))
        else:
            if task is None:
                raise ValueError(f"TASK is missing: choose one of {', '.join(TaskName)}, or give --resume RUN")
            run = training.start(task.value, out, ranks=group, recipe=recipe, **changes)
        result = _train_live(run, group, resume=bool(resume))
        if group.leads:
            _print_result(result, run.path, as_json)


def _reopen(path: Path, task: TaskName | None) -> Any:
    """The folder of an earlier run, which should be of this task."""
    from fireprop import runs, training

    run = runs.RunFolder.open(path)
    planned = training.read_config(run).task
    if task and task.value != planned:
        raise ValueError(f"{path} is a run of {planned}, not of {task.value}")
    return run


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the recipes of `fireprop train`: settings for published tasks, with the commands that run them."""
    from fireprop.recipes import RECIPES, configure
    from fireprop.tasks import TASKS

    configs = {task: {name: configure(task, name) for name in named} for task, named in RECIPES.items()}
    if as_json:
        _print_json({task: {name: c.to_dict() for name, c in named.items()} for task, named in configs.items()})
        return
    table = Table("command", "epochs", "for")
    for task, named in configs.items():
        for name, config in named.items():
            data = " --data DIR" if TASKS[task].how_to_get else ""
            command = f"fireprop train {task} --recipe {name}{data}"
            table.add_row(command, str(config.epochs), RECIPES[task][name].about)
    Console().print(table)


@app.command()
def evaluate(run: Run, threads: Threads = None, as_json: Json = False) -> None:
    """Measure the best weights of a run on every part of its data."""
    from fireprop import runs, training

    with _mistakes_in_one_line():
        _use_threads(threads)
        parts = training.evaluate(runs.RunFolder.open(run))
    if as_json:
        _print_json({name: asdict(part) for name, part in parts.items()})
        return
    columns = ("part", "accuracy", "loss", "spikes per sample", "up to the decision", "input spikes")
    table = Table(*columns, title=str(run))
    for name, part in parts.items():
        spikes = part.spikes_per_sample, part.spikes_to_decision, part.inputs_to_decision
        table.add_row(name, f"{part.accuracy:.4f}", f"{part.loss:.4f}", *(f"{number:.1f}" for number in spikes))
    Console().print(table)


@app.command()
def plot(run: Run, threads: Threads = None) -> None:
    """Draw the pictures of a run again, and print their paths."""
    from fireprop import runs, training

    with _mistakes_in_one_line():
        _use_threads(threads)
        for path in training.draw(runs.RunFolder.open(run)):
            typer.echo(path)


@app.command()
def reproduce(
    experiment: Annotated[ExperimentName, typer.Argument(metavar="EXPERIMENT", help=f"{', '.join(ExperimentName)}.")],
    seeds: Annotated[int | None, typer.Option(help="Independent runs. Default: those of each experiment.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller budgets: `all` in about ten minutes.")] = False,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="The authors' configuration too, beside the fair one.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the report. Default: runs/EXPERIMENT-DATE-TIME.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Run the paper's experiments and write a report: our numbers beside the published ones.

    The folder holds a page to read (report.md), pictures, and the raw numbers as CSV and JSON.
    """
    from fireprop import experiments

    with _mistakes_in_one_line():
        _use_threads(threads)
        plan = experiments.Plan(seeds=seeds, quick=quick, as_published=as_published)
        with _experiment_bar() as show:
            result = experiments.reproduce(experiment.value, out, plan=plan, watch=show)
    if as_json:
        _print_json(result)
        return
    for part in result.get("experiments", {experiment.value: result}).values():
        Console().print(_findings_table(part))
    typer.echo(f"report: {Path(result['report']) / 'report.md'}")


@app.command()
def gradcheck(
    networks: Annotated[int, typer.Option(min=1, help="Number of random networks; the kinds take turns.")] = 25,
    kind: Annotated[
        list[NetworkKind] | None, typer.Option(help="Kind of network; repeat for more. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the random networks.")] = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare exact gradients with central differences on random networks whose units fire several times.

    Reverse, forward, explicit and propagated gradients, for every kind of parameter. Exit code 1 unless all are
    confirmed.
    """
    from fireprop import gradcheck as check

    kinds: list[Any] = [each.value for each in kind or NetworkKind]
    with _mistakes_in_one_line():
        _use_threads(threads)
        with _bar("checking", networks) as advance:
            reports = check.check_random_networks(networks, seed=seed, kinds=kinds, on_report=lambda _: advance())
    report = check.summarize(reports, kinds)
    if as_json:
        rows = [asdict(row) | {"verdict": row.verdict, "passed": row.passed} for row in report.rows]
        _print_json([{key: _or_null(value) for key, value in row.items()} for row in rows])
    else:
        Console().print(report)
    raise typer.Exit(0 if report.passed else 1)


@app.command()
def verify(
    networks: Annotated[int, typer.Option(min=1, help="Random networks whose gradients are checked.")] = 50,
    crossings: Annotated[int, typer.Option(min=1, help="Threshold crossings that are proven.")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the random networks.")] = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Run the public evidence on this machine, and print a table: check, cases, worst error, tolerance, verdict.

    Frozen results of other programs, gradients against differences, crossings proven, identities to the bit. Exit code
    1 unless all hold.
    """
    from fireprop import verify as evidence

    with _mistakes_in_one_line():
        _use_threads(threads)
        with Console(stderr=True).status("starting") as status:
            report = evidence.verify(
                networks=networks, crossings=crossings, seed=seed, on_progress=lambda name: status.update(name)
            )
    if as_json:
        rows = [asdict(row) | {"passed": row.passed} for row in report.rows]
        _print_json([{key: _or_null(value) for key, value in row.items()} for row in rows])
    else:
        Console().print(report)
    raise typer.Exit(0 if report.passed else 1)


@app.command()
def info(as_json: Json = False) -> None:
    """Print versions, threads, CPU features and where compiled kernels are kept."""
    facts = _facts()
    if as_json:
        _print_json(facts)
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name, ", ".join(value) if isinstance(value, list) else str(value))
    Console(soft_wrap=True).print(table)


def _facts() -> dict[str, Any]:
    import llvmlite.binding as llvm
    import numba
    import numpy
    import torch

    import fireprop
    from fireprop.kernels.simulate import simulate

    wanted = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512dq", "avx512vl", "neon", "sve")
    features = llvm.get_host_cpu_features()
    return {
        "fireprop": fireprop.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "numba": numba.__version__,
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": llvm.get_host_cpu_name(),
        "cpu features": [name for name in wanted if features.get(name)],
        "cores": os.cpu_count(),
        "threads": fireprop.get_num_threads(),
        "kernel cache": str(simulate.stats.cache_path) if hasattr(simulate, "stats") else "none (NUMBA_DISABLE_JIT)",
    }


def _use_threads(threads: int | None) -> None:
    import torch

    import fireprop

    # What torch does in a step is small, and its idle threads cost more than they give.
    torch.set_num_threads(1)
    if threads is not None:
        fireprop.set_num_threads(threads)


@contextlib.contextmanager
def _mistakes_in_one_line() -> Iterator[None]:
    """Exit code 2 and one line for what a user can mend; any other error is ours and keeps its traceback."""
    from fireprop import GrazeError, SpikeLimitError, TimeResolutionError
    from fireprop.datasets import MissingDataError, MissingExtraError
    from fireprop.ranks import RankError
    from fireprop.runs import RunError

    ours = RunError, RankError, MissingExtraError, MissingDataError, GrazeError, SpikeLimitError, TimeResolutionError
    try:
        yield
    except (ValueError, *ours) as error:
        _print_mistake(str(error))
        raise typer.Exit(2) from error


def _print_mistake(text: str) -> None:
    line = Text.assemble(("fireprop: ", "red"), " ".join(text.split()))
    Console(stderr=True, soft_wrap=True, highlight=False).print(line)


def main() -> None:
    """What the `fireprop` command runs: as typer would, but what it cannot parse gets one line of answer."""
    command = typer.main.get_command(app)
    try:
        code = command.main(sys.argv[1:] or ["--help"], prog_name="fireprop", standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        # A parser's error, of click or of the copy of it that newer versions of typer bring along.
        if not hasattr(error, "format_message"):
            raise
        # Of the processes of a launcher, all of which read the same line, one answers, and the others give it the time.
        if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0":
            _print_mistake(error.format_message())
        else:
            from fireprop.ranks import PAUSE

            time.sleep(PAUSE)
        code = 2
    sys.exit(code or 0)


@contextlib.contextmanager
def _bar(what: str, total: int) -> Iterator[Any]:
    """A bar on stderr; yields a function that takes it one step further."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)


@contextlib.contextmanager
def _experiment_bar() -> Iterator[Any]:
    """A bar on stderr for each stage of the experiments, with what it measured last; yields what moves it."""
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


class _TrainingBar(ProgressBar):
    """A bar, and under it the numbers of the run, so that both fit a narrow terminal."""

    numbers = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.numbers:
            yield Text(self.numbers)

    def show(self, now: Any) -> None:
        """Move to where a `training.Progress` is."""
        self.numbers = _numbers(now)
        total = now.epochs * now.batches
        done = (now.epoch - 1) * now.batches + now.done
        rate = f"{now.metrics.samples_per_second:,.0f} samples/s" if now.metrics else ""
        name = f"epoch {now.epoch}/{now.epochs}"
        self.update(self.task_ids[0], description=name, total=total, completed=done, rate=rate)


def _train_live(run: Any, group: Any, *, resume: bool) -> dict[str, Any]:
    """Train with a live bar; Ctrl-C says how to go on. Of several processes only the one that leads shows anything."""
    from fireprop import training

    if not group.leads:
        return training.train(run, resume=resume, ranks=group)
    console = Console(stderr=True)
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=None), rate, TimeRemainingColumn())
    with _TrainingBar(*columns, console=console) as bar:
        task = bar.add_task("compiling, once per installed version …", total=None, rate="")
        try:
            try:
                return training.train(run, resume=resume, report=bar.show, ranks=group)
            except Exception:
                bar.numbers = ""  # nor the numbers: the mistake has a line of its own
                bar.update(task, visible=False)
                raise
        except KeyboardInterrupt:  # also one that comes when another process, interrupted too, has already left
            bar.stop()
            console.print(
                f"interrupted; every finished epoch is saved. Go on: fireprop train --resume {run.path}", soft_wrap=True
            )
            raise typer.Exit(130) from None


def _numbers(now: Any) -> str:
    parts = [f"loss {now.loss:.4f}"]
    if now.metrics:
        m = now.metrics
        validation = "" if m.validation_accuracy is None else f", validation {m.validation_accuracy:.1%}"
        parts += [
            f"train {m.train_accuracy:.1%}{validation}",
            f"{m.spikes_per_unit:.2f} spikes/unit, {m.silent_units} silent",
        ]
    return "  ".join(parts)


def _print_result(result: dict[str, Any], path: Path, as_json: bool) -> None:
    if as_json:
        _print_json(result | {"run": str(path)})
        return
    validation = result["validation_accuracy"]
    chosen = "the last" if validation is None else f"best on validation ({validation:.2%})"
    console = Console(soft_wrap=True, highlight=False)
    accuracy, epoch = f"{result['test_accuracy']:.2%}", result["best_epoch"]
    console.print(f"[bold]test accuracy {accuracy}[/] with the weights of epoch {epoch}, {chosen}")
    console.print(
        f"{result['epochs']} epochs in {result['train_seconds']:.1f} s, {result['samples_per_second']:,.0f} samples/s, "
        f"{result['spikes_per_sample']:.1f} spikes per sample"
    )
    console.print(f"configuration, metrics, checkpoint and pictures: {path}")


def _findings_table(result: dict[str, Any]) -> Table:
    columns = ("quantity", "setting", "fireprop", "published or recorded")
    table = Table(*columns, title=result["title"])
    for finding in result["findings"]:
        table.add_row(finding["quantity"], finding["setting"], finding["ours"], finding["recorded"])
    return table


def _or_null(value: Any) -> Any:
    """JSON has neither nan, of what could not be judged, nor inf."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_json(values: Any) -> None:
    sys.stdout.write(json.dumps(values, indent=2) + "\n")
