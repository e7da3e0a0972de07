"""A run and its folder: begun, trained or resumed, evaluated, drawn."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

import fireprop
from fireprop import arguments
from fireprop.datasets import MissingExtraError
from fireprop.plans import Plan, Settings
from fireprop.ranks import ALONE, Ranks, is_loss
from fireprop.recipes import configure
from fireprop.runs import CONFIG, RunError, RunFolder
from fireprop.tasks import PLANS, Config
from fireprop.training import pictures
from fireprop.training.agreement import require_data_of, require_same_config
from fireprop.training.events import TASK, EventsConfig
from fireprop.training.interrupts import Interrupts, watched
from fireprop.training.memory import memory_in_words, require_memory
from fireprop.training.metrics import EpochMetrics, Evaluation
from fireprop.training.trainer import Report, Trainer, differing, require_shareable

Folder: TypeAlias = RunFolder | str | os.PathLike[str]  # of a run: itself, or its path
# Whether training ends, given the metrics of all epochs so far.
Ends: TypeAlias = Callable[[Sequence[EpochMetrics]], bool]
BUILT = "built_by_a_program"  # in a configuration that does not describe the network


def train(
    run: RunFolder,
    *,
    resume: bool = False,
    report: Report | None = None,
    ranks: Ranks = ALONE,
    data: str | None = None,
    ends: Ends | None = None,
    test: bool = True,
) -> dict[str, Any]:
    """Train what the folder's configuration says, write everything into the folder, and return the result.

    run     a folder with its configuration written
    resume  go on from the folder's checkpoint, or from the start if no epoch had ended; the weights end as they would
            have without the interruption
    report  called before the kernels are compiled, after every batch and at the end of every epoch
    ranks   the processes that train together; each batch is split among them, and the one that leads reads and writes
            the folder. The weights are those of one process, to rounding
    data    where the file or folder of the data lies on this host; None: where the configuration says
    ends    asked before every epoch and after the last, with the metrics of all epochs so far; True ends training there
    test    False: leave the test part unread. The result has no test accuracy, its spikes are those of the validation
            part, or of the training part where there is none, and no pictures are drawn

    After every epoch the folder has a checkpoint, so that a KeyboardInterrupt loses at most the epoch in progress. A
    run that is refused before its first epoch has ended (ValueError, MemoryError) leaves no new folder. In the main
    thread, and unless the program has a handler of its own, Ctrl-C ends training after the batch in progress, a second
    one at once. Raises RunError if the folder cannot be read or written, if another process trains there, or
    if another version of fireprop began the run. Raises ranks.RankError if the processes have different settings or
    data, and MemoryError if the network does not fit into memory.
    """
    with _taken_back_if_refused(run, ranks), _supervised(run, ranks) as interrupts:
        plan = found_at(data, ranks.from_first(lambda: _read_own_config(run)))
        with memory_in_words(plan):
            state = ranks.from_first(lambda: _read_own_checkpoint(run, resume))
            return _fit(Trainer.of(plan, plan.load(), ranks), run, state, report, interrupts, ends, test)


def fit(trainer: Trainer, out: str | Path, *, resume: bool = False, report: Report | None = None) -> dict[str, Any]:
    """Train a network of the caller's own to the end, write everything into a folder, and return the result.

    trainer  with network, data and objective
    out      a folder that does not exist, or is empty
    resume   go on from the checkpoint in `out`, if there is one. The trainer is then made as for a new run, its weights
             drawn by the same seed or not: those of the checkpoint replace them. The weights end as they would have
             without the interruption. Data with other numbers of samples or spikes, other labels or another mean time
             than those of the checkpoint are refused
    report   as of `train`

    As `train`, which does this for the tasks and files of the command line, and raises as it does. The folder has
    settings, metrics, checkpoint, result and pictures. `fireprop evaluate` and `plot` cannot build the network, and say
    so.
    """
    path, ranks = Path(out), trainer.ranks

    def find() -> RunFolder:
        if resume and (path / CONFIG).is_file():
            run = RunFolder.open(path)
            _require_own_version(run, run.read_version())
            _require_own_settings(run, trainer.config)
            return run
        run = RunFolder.create(path)
        run.write_config({BUILT: True, **trainer.config.to_dict()})
        return run

    run = ranks.from_first(find)
    with _taken_back_if_refused(run, ranks), _supervised(run, ranks) as interrupts:
        state = ranks.from_first(lambda: _read_own_checkpoint(run, resume))
        try:
            return _fit(trainer, run, state, report, interrupts)
        finally:
            trainer.interrupts = Interrupts()  # Ctrl-C that has ended this run ends nothing later


@contextlib.contextmanager
def _taken_back_if_refused(run: RunFolder, ranks: Ranks) -> Iterator[None]:
    """A run that is refused before its first epoch ends leaves no folder: it would block the next attempt."""
    try:
        yield
    except (ValueError, MemoryError, MissingExtraError):
        if ranks.leads:
            run.take_back()
        raise


@contextlib.contextmanager
def _supervised(run: RunFolder, ranks: Ranks) -> Iterator[Interrupts]:
    """Watch for Ctrl-C, and keep the folder to these processes."""
    with watched(ranks) as interrupts, run.locked() if ranks.leads else contextlib.nullcontext():
        try:
            yield interrupts
        except RuntimeError as error:
            if is_loss(error) and interrupts.came:  # another process was interrupted too, and has already left
                raise KeyboardInterrupt from error
            raise


def _fit(
    trainer: Trainer,
    run: RunFolder,
    state: dict[str, Any] | None,
    report: Report | None,
    interrupts: Interrupts,
    ends: Ends | None = None,
    test: bool = True,
) -> dict[str, Any]:
    """Train to the last epoch, or until `ends` says so, from a checkpoint's state if there is one."""
    leads = trainer.ranks.leads
    trainer.interrupts = interrupts
    if state is not None:
        require_data_of(state, trainer.splits)
        trainer.load_state_dict(state)
    if leads and trainer.epoch:
        if state is None:  # of a trainer whose first epochs came before `fit`
            run.save_checkpoint(trainer.state_dict())
        run.write_metrics([row.line() for row in trainer.metrics])
    if report:
        report(trainer.start())
    trainer.warm_up()
    if state is not None:
        trainer.draw_on(state)
    with interrupts.deferred():
        while not _is_over(trainer, ends):
            interrupts.check()
            trainer.run_epoch(report)
            if leads:
                run.save_checkpoint(trainer.state_dict())
                run.write_metrics([row.line() for row in trainer.metrics])
    interrupts.check()
    result = trainer.result(test=test)
    if leads:
        run.write_result(result)
        if test:
            pictures.draw_where_possible(run, trainer)
    return result


def _is_over(trainer: Trainer, ends: Ends | None) -> bool:
    wanted = ends is not None and ends(trainer.metrics)  # asked after the last epoch too, which it may want to know
    return wanted or trainer.epoch >= trainer.config.epochs


def start(
    task: str, out: Path | None = None, *, recipe: str | None = None, ranks: Ranks = ALONE, **changes: Any
) -> RunFolder:
    """A new run folder with the settings of a task, changed by `changes`; `out` defaults to runs/<task>-<date>-<time>.

    recipe  one of the task's `recipes.RECIPES`, instead of its own settings
    ranks   the processes that train together; the one that leads makes the folder

    Raises as `begin` does, and ValueError for a setting that is out of range.
    """
    return begin(configure(task, recipe, **changes), out, ranks=ranks)


def begin(plan: Plan, out: Path | None = None, *, ranks: Ranks = ALONE) -> RunFolder:
    """A new run folder with the settings of a plan; `out` defaults to runs/<name>-<date>-<time>.

    ranks  the processes that train together; the one that leads makes the folder

    Raises ranks.RankError if processes are given different settings, and ValueError for a setting that is not for
    several processes. Raises datasets.MissingExtraError if the data need a package that is not installed, and
    datasets.MissingDataError if their files are missing. Raises RunError if `out` exists and is not empty, and
    MemoryError if the network does not fit into memory. No folder is made if an error is raised.
    """
    require_shareable(plan, ranks)
    require_same_config(ranks, plan)

    def make() -> RunFolder:
        require_memory(plan)
        plan.require_data()
        run = RunFolder.create_new(plan.name or "run") if out is None else RunFolder.create(out)
        run.write_config(plan.to_dict())
        return run

    return ranks.from_first(make)


def evaluate(run: Folder, *, data: str | None = None) -> dict[str, Evaluation]:
    """The best weights of a run on every part of its data: train, validation (where there is one), test.

    Arguments and errors are those of `load_trained`.
    """
    trainer = load_trained(run, data=data)
    trainer.use_best()
    splits = trainer.splits
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: trainer.evaluate(part) for name, part in parts.items() if part is not None}


def draw(run: Folder, *, data: str | None = None) -> list[Path]:
    """Draw the pictures of a run into its folder, from its checkpoint; their paths. Arguments as `load_trained`."""
    return pictures.draw_pictures(RunFolder.of(run), load_trained(run, data=data))


def explore(run: Folder, *, sample: int = 0, data: str | None = None) -> str:
    """A page to explore one sample of the test part with the best weights of a run (`plotting.explore`).

    The network runs to t_end in evaluation mode. The loss is that of the objective, without what `patience` adds.

    Raises what `plotting.explore` raises, and ValueError for a sample that is not there.
    """
    return pictures.explore_sample(RunFolder.of(run), load_trained(run, data=data), arguments.integer("sample", sample))


def read_config(run: Folder) -> Plan:
    """The settings of a run, from which its network, its data and its objective follow.

    run  its folder, or the path of it

    Raises RunError if it is no run, or of a network that a program has built.
    """
    run = RunFolder.of(run)
    values = run.read_config()
    if BUILT in values:
        raise RunError(
            f"{run.path}: its network was built by a program, with training.fit, and config.json does not describe "
            "it: run that program again with resume=True"
        )
    try:
        return _kind(values.get("task")).from_dict(values)
    except (ValueError, TypeError) as error:
        raise RunError(f"{run.path}: config.json is not valid: {error}{_writer(run)}") from error


def _kind(task: object) -> type[Plan]:
    if task == TASK:
        return EventsConfig
    return PLANS.get(task, Config) if isinstance(task, str) else Config  # which says that it is unknown


def found_at(data: str | None, plan: Plan) -> Plan:
    """The settings of a run whose data may have moved."""
    return plan if data is None else replace(plan, data=data)


def _writer(run: RunFolder) -> str:
    """The end of an error about a configuration that another version wrote."""
    version = run.read_version()
    return f"; fireprop {version} wrote it" if version not in (None, fireprop.__version__) else ""


def _read_own_config(run: RunFolder) -> Plan:
    """The configuration of a run of this version."""
    config = read_config(run)
    _require_own_version(run, run.read_version())
    return config


def _read_own_checkpoint(run: RunFolder, resume: bool) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from, if this version wrote it; None if it starts."""
    if not (resume and run.has_epochs()):
        return None
    state = run.load_checkpoint()
    _require_own_version(run, state.get("version"))
    return state


def _require_own_settings(run: RunFolder, config: Settings) -> None:
    """Refuse to begin a run with other settings than its folder has. Where an epoch has ended, the checkpoint tells."""
    if run.has_epochs():
        return
    found = {name: value for name, value in run.read_config().items() if name != BUILT}
    name = differing(found, config)
    if name:
        raise RunError(
            f"{run.path}: config.json has {name} = {found.get(name)!r}, the trainer {name} = "
            f"{config.to_dict().get(name)!r}: give the trainer the settings of this run, or train into a new folder"
        )


def _require_own_version(run: RunFolder, version: str | None) -> None:
    """Refuse to mix two versions in one run: their numbers may differ."""
    if version == fireprop.__version__:
        return
    writer = "fireprop 0.1.0 (it records no version)" if version is None else f"fireprop {version}"
    raise RunError(
        f"{run.path}: {writer} trained this run, but this is fireprop {fireprop.__version__}: train again into a new "
        f"folder, or install fireprop {version or '0.1.0'} to continue. evaluate and plot work with this version too"
    )


def load_network(run: Folder, net: torch.nn.Module | None = None) -> torch.nn.Module:
    """The network of a run with the weights of its best epoch, in evaluation mode. It reads none of the data.

    run  its folder, or the path of it
    net  of a run of `fit`: a network like the one that was trained, which gets the weights

    Raises RunError if the folder is of no run, has no finished epoch, or holds weights that do not fit the network.
    Without `net` also if a program has built the network.
    """
    run, plan = RunFolder.of(run), None
    if net is None:
        plan = read_config(run)
        net = plan.network(torch.Generator())
    state = run.load_checkpoint()
    try:
        # Settings that are newer than the checkpoint take their defaults; where the data lie is no part of a network.
        if plan is not None and not plan.continues(type(plan).from_dict(state["config"])):
            raise ValueError("it belongs to another config.json")
        net.load_state_dict(state["best_weights"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise RunError(
            f"{run.path}: the checkpoint does not fit ({' '.join(str(error).split())}): restore the files of this run, "
            "or train again into a new folder"
        ) from error
    return net.eval()


def load_trained(run: Folder, *, data: str | None = None) -> Trainer:
    """The trainer of a run after its last finished epoch: network, data and settings.

    run   its folder, or the path of it
    data  where the file or folder of the data lies now; None: where the run found it

    The weights are those of the last epoch: `Trainer.use_best` takes those of the best, as `load_network` does. Raises
    RunError if the folder is of no run, has no finished epoch, or holds a network that a program has built.
    """
    run = RunFolder.of(run)
    config = found_at(data, read_config(run))
    with memory_in_words(config):
        trainer = Trainer.of(config, config.load())
        trainer.load_state_dict(run.load_checkpoint())
    return trainer
