"""The command sweep."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fireprop.cli import lines
from fireprop.cli.common import Json, absolute, mistakes_in_one_line, or_null, print_json, printable, use_threads
from fireprop.cli.options import given, option_name, with_settings
from fireprop.cli.training import TaskName
from fireprop.tasks import Config
from fireprop.training.events import EventsConfig


@with_settings("Network and training, in all trials", {Config: "Tasks of the library", EventsConfig: "Your own data"})
def sweep(
    task: Annotated[
        str | None,
        typer.Argument(metavar="TASK", help="Task of the library or FILE of your own events, as for fireprop train."),
    ] = None,
    study: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the study. Alone: print the table of its trials.")
    ] = ...,  # type: ignore[assignment]
    space: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file with the choices or the range of each setting.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of trials in the study, earlier ones included.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes to start, of one thread each.")] = 1,
    prune: Annotated[
        bool, typer.Option("--prune/--no-prune", help="End trials early that are below the median.")
    ] = True,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="Settings of a published result.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the files of a task that reads any.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Labels of FILE, if they are not in FILE: columns sample, label.")
    ] = None,
    *,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Train a task or your own data with many settings, and say which are best on validation.

    Start the command as often as you like, on one host or on several that share the folder. Together the processes
    train --trials trials. If one is killed, another continues its trial. --seed is the seed of the choices too.
    """
    from fireprop import sweeping

    changes = given(settings)
    with mistakes_in_one_line():
        if task is None:
            others = {"space": space, "trials": trials, "recipe": recipe, "data": data, "labels": labels, **changes}
            unwanted = next((name for name, value in others.items() if value is not None), None)
            if unwanted is not None:
                raise ValueError(f"{option_name(unwanted)}: TASK is missing; give it, or --study alone for the table")
        else:
            if space is None or trials is None:
                raise ValueError(f"--{'space FILE' if space is None else 'trials NUMBER'} is missing: a sweep needs it")
            use_threads(1)
            wanted = _sweep(task, space, {"data": data, "labels": labels}, changes, recipe=recipe, prune=prune)
            _run(wanted, study, trials, jobs)
        rows = sweeping.read_trials(study)
        paths = sweeping.write_table(study)
    if as_json:
        print_json([{name: or_null(value) for name, value in asdict(row).items()} for row in rows])
        return
    _print_table(rows, study)
    for path in paths:
        Console(soft_wrap=True, highlight=False).print(printable(path), markup=False, emoji=False)


def _sweep(task: str, space: Path, places: dict[str, Path | None], changes: dict[str, Any], **options: Any) -> Any:
    from fireprop import sweeping
    from fireprop.datasets.recordings import SUFFIXES

    known = task in tuple(TaskName)
    if not known and Path(task).suffix.lower() not in SUFFIXES and not Path(task).is_file():
        names = ", ".join(repr(each.value) for each in TaskName)
        raise ValueError(f"TASK: {task!r} is not one of {names}, nor a file of events (.csv, .npz)")
    unwanted = "labels" if known else "data"
    if places[unwanted] is not None:
        kind = f"{task} has labels of its own" if known else "it does not apply to a file of events"
        raise ValueError(f"--{unwanted} {places[unwanted]}: {kind}; leave it out")
    found = {name: absolute(f"--{name}", path) for name, path in places.items() if path is not None}
    seed = changes.pop("seed", 0)
    return sweeping.Sweep(
        task=task if known else absolute("FILE", Path(task)),
        space=sweeping.read_space(space),
        settings=changes | ({"data": found["data"]} if "data" in found else {}),
        labels=found.get("labels"),
        seed=seed,
        **options,
    )


def _run(wanted: Any, study: Path, trials: int, jobs: int) -> None:
    from fireprop import sweeping

    try:
        sweeping.run(wanted, study, trials=trials, jobs=jobs, report=_say)
    except KeyboardInterrupt:
        lines.say("interrupted; every finished epoch is saved. Continue with the same command")
        raise typer.Exit(130) from None


def _say(row: Any) -> None:
    """A line on stderr for a trial that has ended."""
    settings = " ".join(f"{name}={_short(value)}" for name, value in row.settings.items())
    accuracy = "" if row.accuracy is None else f" with {row.accuracy:.2%}"
    lines.say(f"trial {row.number} {row.state}{accuracy}: {row.error or settings}")


def _short(value: Any) -> str:
    """A setting in a few digits; trials.csv has all."""
    from fireprop.sweeping import setting_text

    return f"{value:.4g}" if isinstance(value, float) else setting_text(value)


def _print_table(rows: Any, study: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    parts = " and ".join(sorted({row.part for row in rows if row.part}))
    table = Table("trial", "state", f"{parts} accuracy".strip(), "spikes", *names, title=Text(printable(study)))
    for row in rows:
        numbers = (row.accuracy, "{:.2%}"), (row.spikes_per_sample, "{:.1f}")
        texts = ["" if value is None else form.format(value) for value, form in numbers]
        table.add_row(str(row.number), row.state, *texts, *(_short(row.settings.get(name, "")) for name in names))
    Console().print(table)
