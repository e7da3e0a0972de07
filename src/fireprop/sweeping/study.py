"""The study of a sweep on disk: Optuna's journal in the folder, and what its trials have come to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fireprop.datasets.extras import require
from fireprop.runs import RunError, cut_torn_line, in_words, read
from fireprop.sweeping.sweep import SWEEP

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

JOURNAL = "journal.log"
NAME = "sweep"
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "begun", "FAIL": "failed"}
# Attributes of a trial. BEGUN has the number of finished epochs each time a process took it up.
SPIKES, PART, ERROR, BEGUN = "spikes_per_sample", "part", "error", "begun"


@dataclass(frozen=True)
class TrialRow:
    """What a trial has come to.

    number             its folder is trial-0007 for 7
    state              "complete"; "pruned": ended early; "begun": not ended; "failed": ended with an error
    accuracy           the best validation accuracy of all epochs, or the accuracy on the training part after the last
                       one where there is no validation part. Pruned: of the last epoch. Begun: the best so far.
                       None if there is none
    spikes_per_sample  mean number of spikes of all layers in a run, which goes as far as the objective needs: for first
                       spikes beyond the decision. None before the end
    settings           that differ between trials
    part               of the data that accuracy and spikes are of, "validation" or "training"; None before the end
    error              of a trial that failed
    """

    number: int
    state: str
    accuracy: float | None
    spikes_per_sample: float | None
    settings: dict[str, Any]
    part: str | None = None
    error: str | None = None


def trial_folder(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04}"


def open_study(folder: Path, *, new: bool = False) -> "Study":
    """The study in a folder.

    new  begin one if there is none

    Raises MissingExtraError without optuna, RunError.
    """
    optuna = require("optuna", extra="sweep", needed_for="a sweep")
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it says each trial on stderr, as others do here
    path = str((folder / JOURNAL).resolve())
    with in_words(f"cannot use {folder / JOURNAL}"):
        try:
            lock = optuna.storages.journal.JournalFileOpenLock(path)
            if new:
                _cut_torn_line(Path(path), lock)
            backend = optuna.storages.journal.JournalFileBackend(path, lock_obj=lock)
            storage = optuna.storages.JournalStorage(backend)
            if new and not storage.get_all_studies():
                optuna.create_study(study_name=NAME, storage=storage, direction="maximize", load_if_exists=True)
            study: Study = optuna.load_study(study_name=NAME, storage=storage, pruner=optuna.pruners.MedianPruner())
        except (ValueError, KeyError) as error:
            raise RunError(f"{folder / JOURNAL} is not a journal of Optuna: {error}") from error
    return study


def _cut_torn_line(path: Path, lock: Any) -> None:
    """Remove a last line without its end, in which Optuna would write on."""
    lock.acquire()
    try:
        if path.is_file() and read(path).startswith(b'{"op_code"'):  # else it is no journal
            cut_torn_line(path)
    finally:
        lock.release()


def read_trials(folder: str | Path) -> list[TrialRow]:
    """The trials of a study that have begun, best first: complete ones, then pruned, unfinished and failed ones.

    Of equal accuracies the one with fewer spikes comes first.

    Raises RunError if the folder has no study, MissingExtraError without optuna.
    """
    path = Path(folder)
    if not (path / SWEEP).is_file() or not (path / JOURNAL).is_file():
        raise RunError(f"{path} is not the folder of a study: it has no {SWEEP}, or no {JOURNAL}")
    trials = open_study(path).get_trials(deepcopy=False)
    rows = [row_of(trial) for trial in trials if trial.state.name in STATES]
    return sorted(rows, key=_rank)


def _rank(row: TrialRow) -> tuple[float, ...]:
    state = list(STATES.values()).index(row.state)
    return state, -(row.accuracy or 0.0), row.spikes_per_sample or 0.0, row.number


def row_of(trial: "FrozenTrial") -> TrialRow:
    attributes, finished = trial.user_attrs, trial.state.is_finished()
    best = trial.value if finished else max(trial.intermediate_values.values(), default=None)
    settings = {name: json.loads(value) if isinstance(value, str) else value for name, value in trial.params.items()}
    return TrialRow(
        trial.number,
        STATES[trial.state.name],
        best,
        attributes.get(SPIKES),
        settings,
        attributes.get(PART),
        attributes.get(ERROR),
    )
