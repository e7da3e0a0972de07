"""The commands train, recipes, evaluate and plot, and the progress bar."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Column, Table
from rich.text import Text

from fireprop.cli import lines
from fireprop.cli.common import (
    Json,
    Moved,
    Run,
    Threads,
    absolute,
    mistakes_in_one_line,
    moved_to,
    print_json,
    printable,
    use_threads,
)
from fireprop.cli.options import given, option_name, with_settings
from fireprop.tasks import Config, OxfordConfig
from fireprop.training.events import EventsConfig


class TaskName(str, Enum):
    """What `fireprop train` can train; a test compares it with tasks.PLANS."""

    yin_yang = "yin-yang"
    xor = "xor"
    iris = "iris"
    mnist = "mnist"
    fashion_mnist = "fashion-mnist"
    nmnist = "nmnist"
    emg_fingers = "emg-fingers"
    oxford = "oxford"


@with_settings(
    "Network and training", {Config: "Tasks of the library", OxfordConfig: "Oxford", EventsConfig: "Your own data"}
)
def train(
    task: Annotated[
        str | None,
        typer.Argument(metavar="TASK", help=f"{', '.join(TaskName)}, or a FILE of your own events (.csv, .npz)."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="Settings of a published result. `fireprop recipes` lists them.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the files of a task that reads any.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Labels of FILE, if they are not in FILE: columns sample, label.")
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Target events, or target traces, of the samples of FILE, instead of labels."),
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option(help="Folder for the run. Default: runs/TASK-DATE-TIME.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the metrics of each epoch for TensorBoard too.")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Train a task of the library, or your own data, with exact spike-time gradients.

    Writes configuration, metrics of every epoch, result, checkpoint and plots to a new folder. Options that are left
    out take the defaults of the task. For a FILE they are chosen from the data, and printed.
    """
    from fireprop import ranks, training

    changes = given(settings)
    with mistakes_in_one_line(), ranks.launched() as group:
        use_threads(threads)
        sink = training.to_tensorboard(tensorboard) if tensorboard and group.leads else None
        training.require_same(group, {"option --resume": bool(resume)}, "start all ranks with the same command")
        if resume:
            others = {"recipe": recipe, "out": out, "labels": labels, "targets": targets}
            unwanted = [*changes, *(name for name, value in others.items() if value)]
            if unwanted:
                raise ValueError(
                    f"--resume continues with the settings of {resume}: leave out {option_name(unwanted[0])}"
                )
            run = group.from_first(partial(_reopen, resume, task))
        elif task is None:
            raise ValueError(
                f"TASK is missing: choose one of {', '.join(TaskName)}, give a file of events, or --resume RUN"
            )
        elif task in tuple(TaskName):
            for name, file in (("labels", labels), ("targets", targets)):
                if file:
                    raise ValueError(f"--{name} {file}: {task} has labels of its own; leave it out")
            place = {"data": absolute("--data", data)} if data else {}
            run = training.start(task, out, ranks=group, recipe=recipe, **place, **changes)
        else:
            run = _start_events(task, labels, targets, {"recipe": recipe, "data": data}, out, group, changes)
        result = _train_live(run, group, sink, resume=bool(resume), data=moved_to(data) if resume else None)
        if group.leads:
            _print_result(result, run.path, as_json)


def _start_events(
    file: str,
    labels: Path | None,
    targets: Path | None,
    unwanted: dict[str, Any],
    out: Path | None,
    group: Any,
    changes: dict[str, Any],
) -> Any:
    """A run folder for a file of events; says what was chosen, and what is odd about the data."""
    from fireprop import training
    from fireprop.datasets.recordings import SUFFIXES

    if Path(file).suffix.lower() not in SUFFIXES and not Path(file).is_file():
        names = ", ".join(repr(each.value) for each in TaskName)
        raise ValueError(f"TASK: {file!r} is not one of {names}, nor a file of events (.csv, .npz)")
    for name, value in unwanted.items():
        if value:
            raise ValueError(f"--{name} {value}: it does not apply to a file of events; leave it out")
    second = absolute("--labels", labels) if labels else None
    third = absolute("--targets", targets) if targets else None
    plan, chosen, found = training.plan_for_events(absolute("FILE", Path(file)), second, targets=third, **changes)
    run = training.begin(plan, out, ranks=group)
    if group.leads:
        lines.say(
            f"{found.samples:,} samples of {found.units:,} units, {found.events:,} events, "
            + (f"{len(plan.names)} classes" if third is None else f"targets of {plan.n_targets:,} outputs")
        )
        for line in chosen:
            lines.say(f"chosen: {line}")
        for fault in found.faults:
            lines.say(f"{WARNING}{fault.what}: {fault.remedy}")
    return run


def _reopen(path: Path, task: str | None) -> Any:
    """The folder of an earlier run, which should be of this task or file."""
    from fireprop import runs, training

    run = runs.RunFolder.open(path)
    planned = training.read_config(run).name
    if task and planned not in (task, Path(task).stem):
        raise ValueError(f"{path} is a run of {planned}, not of {task}")
    return run


def recipes(as_json: Json = False) -> None:
    """List the recipes of published results and the commands that run them."""
    from fireprop.recipes import RECIPES, configure
    from fireprop.tasks import reads_files

    configs = {task: {name: configure(task, name) for name in named} for task, named in RECIPES.items()}
    if as_json:
        print_json({task: {name: c.to_dict() for name, c in named.items()} for task, named in configs.items()})
        return
    table = Table("command", "epochs", "for")
    for task, named in configs.items():
        for name, config in named.items():
            data = " --data DIR" if reads_files(task) else ""
            command = f"fireprop train {task} --recipe {name}{data}"
            table.add_row(command, str(config.epochs), RECIPES[task][name].about)
    Console().print(table)


def evaluate(run: Run, data: Moved = None, threads: Threads = None, as_json: Json = False) -> None:
    """Print accuracy and loss of the best weights of a run on every part of its data."""
    from fireprop import training

    with mistakes_in_one_line():
        use_threads(threads)
        parts = training.evaluate(run, data=moved_to(data))
    if as_json:
        print_json({name: asdict(part) for name, part in parts.items()})
        return
    first = next(iter(parts.values()))
    scores = ["loss"] if first.accuracy is None else ["accuracy", "loss"]
    columns = ("part", *scores, "spikes per sample", "until decision", "input spikes", *first.measures)
    # rich cuts a word that is wider than its column, unless it is told to fold it.
    headers = (Column(name, overflow="fold") for name in columns)
    table = Table(*headers, title=Text(printable(run), overflow="fold"))
    for name, part in parts.items():
        spikes = part.spikes_per_sample, part.spikes_to_decision, part.inputs_to_decision
        accuracy = [] if part.accuracy is None else [f"{part.accuracy:.4f}"]
        measures = (f"{value:.4f}" for value in part.measures.values())
        table.add_row(name, *accuracy, f"{part.loss:.4f}", *(f"{number:.1f}" for number in spikes), *measures)
    Console().print(table)


def plot(run: Run, data: Moved = None, threads: Threads = None) -> None:
    """Draw the plots of a run again and print their paths."""
    from fireprop import training

    with mistakes_in_one_line():
        use_threads(threads)
        for path in training.draw(run, data=moved_to(data)):
            typer.echo(printable(path))


class _TrainingBar(ProgressBar):
    """A bar, and under it the numbers of the run, so that both fit a narrow terminal."""

    numbers = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.numbers:
            yield Text(self.numbers)

    def show(self, now: Any) -> None:
        """Move to where a `training.Progress` is."""
        if now.warning:
            self.console.print(Text(WARNING + now.warning, "yellow"), soft_wrap=True)
        if now.done == 0:
            if now.metrics:
                self.console.print(_continued(now), soft_wrap=True, highlight=False)
            return
        self.numbers = _numbers(now)
        total = now.epochs * now.batches
        done = (now.epoch - 1) * now.batches + now.done
        rate = f"{now.metrics.samples_per_second:,.0f} samples/s" if now.metrics else ""
        name = f"epoch {now.epoch}/{now.epochs}"
        self.update(self.task_ids[0], description=name, total=total, completed=done, rate=rate)


def _train_live(run: Any, group: Any, sink: Any, **options: Any) -> dict[str, Any]:
    """Train with a live bar, or lines; Ctrl-C says how to go on. Of several processes only the one that leads speaks.

    sink     a `report` beside what is shown, or None
    options  those of `training.train`
    """
    from fireprop import training

    if not group.leads:
        return training.train(run, ranks=group, **options)
    if options["resume"] and not run.has_epochs():
        lines.say(f"no epoch of {printable(run.path)} has ended yet: it begins with the first")
    try:
        with _training_bar() if lines.on_terminal() else contextlib.nullcontext(_say) as show:
            return training.train(run, report=training.to_all(show, sink), ranks=group, **options)
    except KeyboardInterrupt:
        line = (
            f"interrupted; every finished epoch is saved. Continue with: fireprop train --resume {printable(run.path)}"
        )
        Console(stderr=True).print(line, soft_wrap=True, markup=False, emoji=False)
        raise typer.Exit(130) from None


COMPILING = "loading kernels, or compiling them (once per installed version) …"


@contextlib.contextmanager
def _training_bar() -> Iterator[Any]:
    """A live bar on stderr; yields what moves it."""
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=None), rate, TimeRemainingColumn())
    with _TrainingBar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(COMPILING, total=None, rate="")
        try:
            yield bar.show
        except Exception:
            bar.numbers = ""  # nor the numbers: the mistake has a line of its own
            bar.update(task, visible=False)
            raise


def _say(now: Any) -> None:
    """A line where compiling begins, and one for every epoch."""
    if now.done == 0:
        if now.metrics:
            lines.say(_continued(now))
        lines.say(COMPILING)
    elif now.metrics and now.metrics.epoch == now.epoch:
        lines.say(f"epoch {now.epoch}/{now.epochs}  {_numbers(now)}  {now.metrics.samples_per_second:,.0f} samples/s")
    if now.warning:
        lines.say(WARNING + now.warning)


def _continued(now: Any) -> str:
    """Where a run goes on from its checkpoint."""
    if now.epoch > now.epochs:
        return f"all {now.epochs} epochs are trained already: the result and the plots are made again"
    return f"continuing after epoch {now.epoch - 1} of {now.epochs}"


WARNING = "fireprop: warning: "


def _numbers(now: Any) -> str:
    parts = [f"loss {now.loss:.4f}"]
    if now.metrics:
        m = now.metrics
        validation = [] if m.validation_accuracy is None else [f"validation {m.validation_accuracy:.1%}"]
        parts += [
            *([] if m.train_accuracy is None else [f"train {m.train_accuracy:.1%}"]),
            *validation,
            *(f"{name} {value:.4g}" for name, value in m.train_measures.items()),
            f"{m.spikes_per_unit:.2f} spikes/unit, {m.silent_units} silent",
        ]
    return "  ".join(parts)


def _print_result(result: dict[str, Any], path: Path, as_json: bool) -> None:
    from fireprop import training
    from fireprop.objectives import KthSpike
    from fireprop.training.silence import remarks

    if as_json:
        print_json(result | {"run": str(path)})
        return
    chosen = _kept(result, path)
    console = Console(soft_wrap=True, highlight=False)
    if result["test_accuracy"] is None:
        measures = "".join(f", {name} {value:.4g}" for name, value in result["test_measures"].items())
        console.print(f"[bold]test loss {result['test_loss']:.4g}{measures}[/] ({chosen})")
    else:
        console.print(f"[bold]test accuracy {result['test_accuracy']:.2%}[/] ({chosen})")
    console.print(
        f"{result['epochs']} epochs in {result['train_seconds']:.1f} s, {result['samples_per_second']:,.0f} samples/s, "
        f"{result['spikes_per_sample']:.1f} spikes per sample"
    )
    config: Any = training.read_config(path)
    k = config.k if getattr(config, "readout", None) == KthSpike.name else 1
    for line in remarks(result, patient=bool(getattr(config, "patience", None)), k=k):
        console.print(line)
    console.print(f"configuration, metrics, checkpoint and plots: {printable(path)}", markup=False, emoji=False)


def _kept(result: dict[str, Any], path: Path) -> str:
    """Which epoch's weights are kept, and why. A run without classes has no accuracy that tells of its validation."""
    from fireprop.runs import RunFolder

    epoch, accuracy = result["best_epoch"], result["validation_accuracy"]
    if accuracy is not None:
        return f"epoch {epoch}, best on validation with {accuracy:.2%}"
    if RunFolder.open(path).read_metrics()[epoch - 1]["validation_loss"]:
        return f"epoch {epoch}, lowest validation loss"
    return f"last epoch, {epoch}"
