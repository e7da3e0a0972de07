"""Training from the command line: train, recipes, evaluate, plot, and the live bar."""

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
from rich.table import Table
from rich.text import Text

from fireprop.cli.common import Json, Run, Threads, mistakes_in_one_line, print_json, use_threads


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


class DtypeName(str, Enum):
    """Precision of weights, potentials and currents. Times are float64 always."""

    float32 = "float32"
    float64 = "float64"


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
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the training images, left to right.")
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
        "flip": flip,
        "input_dropout": input_dropout,
        "seed": seed,
        "dtype": dtype.value if dtype else None,
        "gradient": gradient.value if gradient else None,
        "keep_alive": keep_alive,
        "follow": follow,
        "guard": guard,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    with mistakes_in_one_line(), ranks.launched() as group:
        use_threads(threads)
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


def recipes(as_json: Json = False) -> None:
    """List the recipes of `fireprop train`: settings for published tasks, with the commands that run them."""
    from fireprop.recipes import RECIPES, configure
    from fireprop.tasks import TASKS

    configs = {task: {name: configure(task, name) for name in named} for task, named in RECIPES.items()}
    if as_json:
        print_json({task: {name: c.to_dict() for name, c in named.items()} for task, named in configs.items()})
        return
    table = Table("command", "epochs", "for")
    for task, named in configs.items():
        for name, config in named.items():
            data = " --data DIR" if TASKS[task].how_to_get else ""
            command = f"fireprop train {task} --recipe {name}{data}"
            table.add_row(command, str(config.epochs), RECIPES[task][name].about)
    Console().print(table)


def evaluate(run: Run, threads: Threads = None, as_json: Json = False) -> None:
    """Measure the best weights of a run on every part of its data."""
    from fireprop import runs, training

    with mistakes_in_one_line():
        use_threads(threads)
        parts = training.evaluate(runs.RunFolder.open(run))
    if as_json:
        print_json({name: asdict(part) for name, part in parts.items()})
        return
    columns = ("part", "accuracy", "loss", "spikes per sample", "up to the decision", "input spikes")
    table = Table(*columns, title=str(run))
    for name, part in parts.items():
        spikes = part.spikes_per_sample, part.spikes_to_decision, part.inputs_to_decision
        table.add_row(name, f"{part.accuracy:.4f}", f"{part.loss:.4f}", *(f"{number:.1f}" for number in spikes))
    Console().print(table)


def plot(run: Run, threads: Threads = None) -> None:
    """Draw the pictures of a run again, and print their paths."""
    from fireprop import runs, training

    with mistakes_in_one_line():
        use_threads(threads)
        for path in training.draw(runs.RunFolder.open(run)):
            typer.echo(path)


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
        print_json(result | {"run": str(path)})
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
