"""The processes of a sweep. Each takes trials until all have ended, those that a killed process left behind included.

A process owns a trial as long as it holds the lock of the trial's folder. All that it does to a trial it can do again:
settings that are drawn stay, training goes on from the checkpoint, and a trial ends once.
"""

import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

import fireprop
from fireprop import arguments, training
from fireprop.datasets.extras import require
from fireprop.runs import LockedError, RunError, RunFolder, in_words
from fireprop.sweeping.space import draw
from fireprop.sweeping.study import BEGUN, ERROR, PART, SPIKES, TrialRow, open_study, row_of, trial_folder
from fireprop.sweeping.sweep import Sweep

if TYPE_CHECKING:
    from optuna import Study, Trial

GIVE_UP = 3  # processes that were killed in the same epoch of a trial: the next ones would be, too
PAUSE = 1.0  # seconds between two looks at the trials of other processes

TellTrial: TypeAlias = Callable[[TrialRow], None]


def run(sweep: Sweep, folder: str | Path, *, trials: int, jobs: int = 1, report: TellTrial | None = None) -> None:
    """Train the trials of a sweep, until the study has as many as wanted.

    sweep   what is tried
    folder  of the study: a new one, or one that other processes, on this host or others, or earlier calls work on
    trials  how many there are to be in all
    jobs    processes to start, of one thread each; 1: this process, which keeps its threads
    report  called with each trial that ends; for several jobs a function that can be pickled

    A trial is a run of `training.train` in a folder of its own, trial-0000 and on. It is judged by its best validation
    accuracy. The test part is not read. What makes a single trial impossible, such as a SpikeLimitError or a damaged
    folder, ends this trial and no other. If a process of this host is killed, its trial goes on from the last epoch.
    The trial fails if three processes were killed in the same epoch.

    Returns when all trials have ended but those that processes of other hosts train. Raises MissingExtraError without
    optuna, RunError if the folder cannot be written, or has the study of another sweep, or if processes were killed
    before all trials ended.
    """
    arguments.integer("trials", trials, least=1)
    if arguments.integer("jobs", jobs, least=1) == 1:
        return work(sweep, Path(folder), trials, report)
    _prepare(sweep, Path(folder))  # mistakes are said once
    context = multiprocessing.get_context("spawn")
    errors: Any = context.SimpleQueue()
    options = (sweep, Path(folder), trials, report, errors)
    processes = [context.Process(target=_work_alone, args=options) for _ in range(jobs)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            if process.is_alive():  # it may have had the signal already, from the terminal
                os.kill(cast(int, process.pid), signal.SIGINT)
        raise
    if not errors.empty():
        raise RunError(errors.get())
    killed = next((process for process in processes if process.exitcode), None)
    if killed is not None and _open_trials(open_study(Path(folder)), trials):
        raise RunError(f"process {killed.pid} ended with code {killed.exitcode}: run the same command again to go on")


def work(sweep: Sweep, folder: Path, trials: int, report: TellTrial | None = None) -> None:
    """Take trials in this process, one after the other. As `run`."""
    study = _prepare(sweep, folder)
    with in_words(f"cannot go on with the study in {folder}"):
        optuna = require("optuna", extra="sweep", needed_for="a sweep")
        # Two processes may add the same trials. Those beyond the wanted number wait until more are wanted.
        while len(study.get_trials(deepcopy=False)) < trials:
            study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING))
        while numbers := _open_trials(study, trials):
            hosts = []
            for number in numbers:
                try:
                    with RunFolder.kept(trial_folder(folder, number)) as folder_of_trial:
                        _end_trial(sweep, study, number, folder_of_trial, report)
                    break
                except LockedError as error:
                    hosts.append(error.host)
            else:
                if platform.node() not in hosts:
                    return
                time.sleep(PAUSE)


def _prepare(sweep: Sweep, folder: Path) -> "Study":
    sweep.base.require_data()
    require("optuna", extra="sweep", needed_for="a sweep")
    with in_words(f"cannot make the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    sweep.record(folder)
    return open_study(folder, new=True)


def _work_alone(sweep: Sweep, folder: Path, trials: int, report: TellTrial | None, errors: Any) -> None:
    """A process of one thread."""
    torch.set_num_threads(1)
    fireprop.set_num_threads(1)
    try:
        work(sweep, folder, trials, report)
    except (RunError, ValueError) as error:
        errors.put(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _open_trials(study: "Study", trials: int) -> list[int]:
    return [trial.number for trial in study.get_trials(deepcopy=False)[:trials] if not trial.state.is_finished()]


def _end_trial(sweep: Sweep, study: "Study", number: int, run: RunFolder, report: TellTrial | None) -> None:
    """Begin a trial, or go on with it, and end it; nothing if it has ended since it was seen."""
    import optuna

    states = optuna.trial.TrialState
    found = study.get_trials(deepcopy=False)[number]
    if found.state.is_finished():
        return
    if found.state is states.WAITING:
        study._storage.set_trial_state_values(found._trial_id, states.RUNNING)
    trial = optuna.trial.Trial(study, found._trial_id)
    begun, now = found.user_attrs.get(BEGUN, []), len(found.intermediate_values)
    trial.set_user_attr(BEGUN, [*begun, now])
    try:
        if begun[-GIVE_UP:] == [now] * GIVE_UP:
            raise MemoryError(f"{GIVE_UP} processes were killed in epoch {now + 1}: perhaps memory ran out")
        _require_sound(run)
        accuracy, pruned = _train(sweep, trial, run, set(found.intermediate_values))
    except (KeyboardInterrupt, RunError):  # no process was killed
        trial.set_user_attr(BEGUN, begun)
        raise
    except (ValueError, RuntimeError, MemoryError, ArithmeticError) as error:
        trial.set_user_attr(ERROR, " ".join(str(error).split()) or type(error).__name__)
        study.tell(number, state=states.FAIL)
    else:
        study.tell(number, None if pruned else accuracy, states.PRUNED if pruned else states.COMPLETE)
    if report:
        report(row_of(study.get_trials(deepcopy=False)[number]))


def _require_sound(run: RunFolder) -> None:
    """Raise ValueError for damaged files, which end this trial alone, RunError for files that cannot be read now."""
    try:
        if run.has_config():
            training.read_config(run)
        if run.has_epochs():
            run.load_checkpoint()
    except RunError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise ValueError(str(error)) from error


def _train(sweep: Sweep, trial: "Trial", run: RunFolder, known: set[int]) -> tuple[float, bool]:
    """Train a trial to its end, or until it is pruned: the accuracy of its best epoch, and whether it was pruned.

    known  epochs of which the study knows the accuracy: a process that was killed has trained them
    """
    values = draw(sweep.parsed, trial, sweep.seed)
    if not run.has_config():
        run.write_config(sweep.plan(values).to_dict())
    accuracies: list[float] = []

    def ends(metrics: Sequence[training.EpochMetrics]) -> bool:
        for row in metrics[len(accuracies) :]:
            accuracies.append(_accuracy(row))
            if row.epoch not in known:
                trial.report(accuracies[-1], row.epoch)
        return sweep.prune and bool(metrics) and trial.should_prune()

    result = training.train(run, resume=True, data=sweep.base.data, ends=ends, test=False)
    trial.set_user_attr(SPIKES, result["spikes_per_sample"])
    trial.set_user_attr(PART, "training" if result["validation_accuracy"] is None else "validation")
    pruned = result["epochs"] < training.read_config(run).epochs
    return accuracies[result["best_epoch"] - 1], pruned


def _accuracy(row: training.EpochMetrics) -> float:
    found = row.train_accuracy if row.validation_accuracy is None else row.validation_accuracy
    return found or 0.0  # what the command line trains has classes
