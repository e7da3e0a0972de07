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
from rich.table import Table
from rich.text import Text

from fireprop.cli import lines
from fireprop.cli.common import Json, Run, Threads, mistakes_in_one_line, print_json, printable, use_threads


class TaskName(str, Enum):
    """What `fireprop train` can train; a test compares it with tasks.TASKS."""

    yin_yang = "yin-yang"
    xor = "xor"
    iris = "iris"
    mnist = "mnist"
    fashion_mnist = "fashion-mnist"
    nmnist = "nmnist"


class ScheduleName(str, Enum):
    """Decay of the learning rate."""

    exponential = "exponential"
    cosine = "cosine"


class GradientName(str, Enum):
    """Method that computes the gradient; both are exact."""

    adjoint = "adjoint"
    forward = "forward"


class DtypeName(str, Enum):
    """Precision of weights, potentials and currents. Times are always float64."""

    float32 = "float32"
    float64 = "float64"


def train(
    task: Annotated[TaskName | None, typer.Argument(metavar="TASK", help=f"{', '.join(TaskName)}.")] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="Settings of a published result. `fireprop recipes` lists them.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the files of mnist, fashion-mnist or nmnist.")
    ] = None,
    hidden: Annotated[
        list[int] | None, typer.Option(help="Units of a hidden layer. Repeat the option for more layers.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Initial learning rate.")] = None,
    schedule: Annotated[ScheduleName | None, typer.Option(help="Decay of the learning rate.")] = None,
    held_out: Annotated[
        float | None, typer.Option(metavar="SHARE", help="SHARE of the training files that is held out for validation.")
    ] = None,
    max_shift: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Shift each training image by up to PIXELS in both directions.")
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the training images, left to right.")
    ] = None,
    input_dropout: Annotated[
        float | None, typer.Option(metavar="SHARE", help="SHARE of the input spikes that training drops.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and shuffling. Default: 0.")] = None,
    dtype: Annotated[DtypeName | None, typer.Option(help="Precision of weights and potentials.")] = None,
    gradient: Annotated[
        GradientName | None,
        typer.Option(help="Reverse mode (adjoint) or forward propagation (forward). Both are exact."),
    ] = None,
    keep_alive: Annotated[
        float | None,
        typer.Option(
            metavar="ZETA",
            help="Homeostasis: raise the weights of units whose mean potential is below ZETA times the threshold.",
        ),
    ] = None,
    follow: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Audit a SHARE of the steps: count the spikes that each step creates and deletes."
        ),
    ] = None,
    guard: Annotated[
        bool | None,
        typer.Option("--guard", help="Step guard: shorten an audited step that silences the output unit of a label."),
    ] = None,
    max_spikes: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Largest NUMBER of spikes per layer and sample. Training ends at more."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run. Default: runs/TASK-DATE-TIME.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a task with exact spike-time gradients.

    Writes configuration, metrics of every epoch, result, checkpoint and plots to a new folder. Options that are left
    out take the defaults of the task.
    """
    from fireprop import ranks, training

    changes = {
        "hidden": tuple(hidden) if hidden else None,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "schedule": schedule.value if schedule else None,
        "data": _absolute(data) if data else None,
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
        "max_spikes": max_spikes,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    with mistakes_in_one_line(), ranks.launched() as group:
        use_threads(threads)
        training.require_same(group, {"option --resume": bool(resume)}, "start all ranks with the same command")
        if resume:
            given = [*changes, *(name for name, value in (("recipe", recipe), ("out", out)) if value)]
            if given:
                option = given[0].replace("_", "-")
                raise ValueError(f"--resume continues with the settings of {resume}: leave out --{option}")
            run = group.from_first(partial(_reopen, resume, task))
        else:
            if task is None:
                raise ValueError(f"TASK is missing: choose one of {', '.join(TaskName)}, or give --resume RUN")
            run = training.start(task.value, out, ranks=group, recipe=recipe, **changes)
        result = _train_live(run, group, resume=bool(resume), data=changes.get("data"))
        if group.leads:
            _print_result(result, run.path, as_json)


def _absolute(folder: Path) -> str:
    """A folder as a run records it: the run goes on from anywhere."""
    try:
        return str(folder.expanduser().resolve())
    except (OSError, RuntimeError) as error:  # a home that nobody has, a circle of links
        raise typer.BadParameter(f"--data {folder}: {' '.join(str(error).split())}") from error


def _reopen(path: Path, task: TaskName | None) -> Any:
    """The folder of an earlier run, which should be of this task."""
    from fireprop import runs, training

    run = runs.RunFolder.open(path)
    planned = training.read_config(run).name
    if task and task.value != planned:
        raise ValueError(f"{path} is a run of {planned}, not of {task.value}")
    return run


def recipes(as_json: Json = False) -> None:
    """List the recipes of published results and the commands that run them."""
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
    """Print accuracy and loss of the best weights of a run on every part of its data."""
    from fireprop import runs, training

    with mistakes_in_one_line():
        use_threads(threads)
        parts = training.evaluate(runs.RunFolder.open(run))
    if as_json:
        print_json({name: asdict(part) for name, part in parts.items()})
        return
    columns = ("part", "accuracy", "loss", "spikes per sample", "until decision", "input spikes")
    table = Table(*columns, title=Text(printable(run)))
    for name, part in parts.items():
        spikes = part.spikes_per_sample, part.spikes_to_decision, part.inputs_to_decision
        table.add_row(name, f"{part.accuracy:.4f}", f"{part.loss:.4f}", *(f"{number:.1f}" for number in spikes))
    Console().print(table)


def plot(run: Run, threads: Threads = None) -> None:
    """Draw the plots of a run again and print their paths."""
    from fireprop import runs, training

    with mistakes_in_one_line():
        use_threads(threads)
        for path in training.draw(runs.RunFolder.open(run)):
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
            return
        self.numbers = _numbers(now)
        total = now.epochs * now.batches
        done = (now.epoch - 1) * now.batches + now.done
        rate = f"{now.metrics.samples_per_second:,.0f} samples/s" if now.metrics else ""
        name = f"epoch {now.epoch}/{now.epochs}"
        self.update(self.task_ids[0], description=name, total=total, completed=done, rate=rate)


def _train_live(run: Any, group: Any, **options: Any) -> dict[str, Any]:
    """Train with a live bar, or lines; Ctrl-C says how to go on. Of several processes only the one that leads speaks.

    options  those of `training.train`
    """
    from fireprop import training

    if not group.leads:
        return training.train(run, ranks=group, **options)
    try:
        with _training_bar() if lines.on_terminal() else contextlib.nullcontext(_say) as show:
            return training.train(run, report=show, ranks=group, **options)
    except KeyboardInterrupt:
        line = (
            f"interrupted; every finished epoch is saved. Continue with: fireprop train --resume {printable(run.path)}"
        )
        Console(stderr=True).print(line, soft_wrap=True, markup=False, emoji=False)
        raise typer.Exit(130) from None


COMPILING = "compiling kernels (once per installed version) …"


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
        lines.say(COMPILING)
    elif now.metrics and now.metrics.epoch == now.epoch:
        lines.say(f"epoch {now.epoch}/{now.epochs}  {_numbers(now)}  {now.metrics.samples_per_second:,.0f} samples/s")
    if now.warning:
        lines.say(WARNING + now.warning)


WARNING = "fireprop: warning: "


def _numbers(now: Any) -> str:
    parts = [f"loss {now.loss:.4f}"]
    if now.metrics:
        m = now.metrics
        validation = [] if m.validation_accuracy is None else [f"validation {m.validation_accuracy:.1%}"]
        parts += [
            f"train {m.train_accuracy:.1%}",
            *validation,
            f"{m.spikes_per_unit:.2f} spikes/unit, {m.silent_units} silent",
        ]
    return "  ".join(parts)


def _print_result(result: dict[str, Any], path: Path, as_json: bool) -> None:
    from fireprop.training.silence import remarks

    if as_json:
        print_json(result | {"run": str(path)})
        return
    epoch, validation = result["best_epoch"], result["validation_accuracy"]
    best = "" if validation is None else f"epoch {epoch}, best on validation with {validation:.2%}"
    chosen = best or f"last epoch, {epoch}"
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]test accuracy {result['test_accuracy']:.2%}[/] ({chosen})")
    console.print(
        f"{result['epochs']} epochs in {result['train_seconds']:.1f} s, {result['samples_per_second']:,.0f} samples/s, "
        f"{result['spikes_per_sample']:.1f} spikes per sample"
    )
    for line in remarks(result):
        console.print(line)
    console.print(f"configuration, metrics, checkpoint and plots: {printable(path)}", markup=False, emoji=False)
