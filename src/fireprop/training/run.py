"""A run and its folder: begun, trained or resumed, evaluated, drawn."""

import contextlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fireprop
from fireprop.ranks import ALONE, Ranks, is_loss
from fireprop.recipes import configure
from fireprop.runs import RunError, RunFolder
from fireprop.tasks import Config, load_splits, require_data
from fireprop.training import pictures
from fireprop.training.agreement import require_same_config
from fireprop.training.interrupts import Interrupts, watched
from fireprop.training.memory import memory_in_words, require_memory
from fireprop.training.metrics import Evaluation
from fireprop.training.trainer import Report, Trainer, require_shareable


def train(
    run: RunFolder,
    *,
    resume: bool = False,
    report: Report | None = None,
    ranks: Ranks = ALONE,
    data: str | None = None,
) -> dict[str, Any]:
    """Train what the folder's configuration says, write everything into the folder, and return the result.

    run     a folder with its configuration written
    resume  go on from the folder's checkpoint, or from the start if no epoch had ended; the weights end as they would
            have without the interruption
    report  called before the kernels are compiled, after every batch and at the end of every epoch
    ranks   the processes that train together; each batch is split among them, and the one that leads reads and writes
            the folder. The weights are those of one process, to rounding
    data    folder of the task's files on this host; None: that of the configuration

    After every epoch the folder has a checkpoint, so that a KeyboardInterrupt loses at most the epoch in progress. In
    the main thread, and unless the program has a handler of its own, Ctrl-C ends training after the batch in progress,
    a second one at once. Raises RunError if the folder cannot be read or written, if another process trains there, or
    if another version of fireprop began the run, ranks.RankError if the processes have different settings or data, and
    MemoryError if the network does not fit into memory.
    """
    with watched(ranks) as interrupts, run.locked() if ranks.leads else contextlib.nullcontext():
        try:
            config = ranks.from_first(lambda: _read_own_config(run))
            config = config if data is None else replace(config, data=data)
            with memory_in_words(config):
                return _train(run, config, resume, report, ranks, interrupts)
        except RuntimeError as error:
            if is_loss(error) and interrupts.came:  # another process was interrupted too, and has already left
                raise KeyboardInterrupt from error
            raise


def _train(
    run: RunFolder, config: Config, resume: bool, report: Report | None, ranks: Ranks, interrupts: Interrupts
) -> dict[str, Any]:
    state = ranks.from_first(lambda: _read_own_checkpoint(run) if resume and run.has_checkpoint() else None)
    trainer = Trainer(config, load_splits(config), ranks)
    trainer.interrupts = interrupts
    if state is not None:
        trainer.load_state_dict(state)
        if ranks.leads:
            run.write_metrics([asdict(row) for row in trainer.metrics])
    if report:
        report(trainer.start())
    trainer.warm_up()
    with interrupts.deferred():
        while trainer.epoch < config.epochs:
            interrupts.check()
            trainer.run_epoch(report)
            if ranks.leads:
                run.save_checkpoint(trainer.state_dict())
                run.write_metrics([asdict(row) for row in trainer.metrics])
    interrupts.check()
    result = trainer.result()
    if ranks.leads:
        run.write_result(result)
        pictures.draw_pictures(run, trainer)
    return result


def start(
    task: str, out: Path | None = None, *, recipe: str | None = None, ranks: Ranks = ALONE, **changes: Any
) -> RunFolder:
    """A new run folder with the settings of a task, changed by `changes`; `out` defaults to runs/<task>-<date>-<time>.

    recipe  one of the task's `recipes.RECIPES`, instead of its own settings
    ranks   the processes that train together; the one that leads makes the folder

    Raises ranks.RankError if processes are given different settings, ValueError for a setting that is out of range or
    not for several processes, datasets.MissingExtraError if the
    data need a package that is not installed, datasets.MissingDataError if their files are not there, RunError if `out`
    exists and is not empty, MemoryError if the network does not fit into memory. Until all is well it makes no folder.
    """

    config = configure(task, recipe, **changes)
    require_shareable(config, ranks)
    require_same_config(ranks, config)

    def make() -> RunFolder:
        require_memory(config)
        require_data(config)
        run = RunFolder.create_new(task) if out is None else RunFolder.create(out)
        run.write_config(config.to_dict())
        return run

    return ranks.from_first(make)


def evaluate(run: RunFolder) -> dict[str, Evaluation]:
    """The best weights of a run on every part of its data: train, validation (where there is one), test."""
    trainer = load_trained(run)
    trainer.use_best()
    splits = trainer.splits
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: trainer.evaluate(part) for name, part in parts.items() if part is not None}


def draw(run: RunFolder) -> list[Path]:
    """Draw the pictures of a run into its folder, from its checkpoint; their paths."""
    return pictures.draw_pictures(run, load_trained(run))


def read_config(run: RunFolder) -> Config:
    """The configuration of a run. Raises RunError if it is not ours."""
    try:
        return Config.from_dict(run.read_config())
    except (ValueError, TypeError) as error:
        raise RunError(f"{run.path}: its configuration cannot be used: {error}{_writer(run)}") from error


def _writer(run: RunFolder) -> str:
    """The end of an error about a configuration that another version wrote."""
    version = run.read_version()
    return f"; fireprop {version} wrote it" if version not in (None, fireprop.__version__) else ""


def _read_own_config(run: RunFolder) -> Config:
    """The configuration of a run of this version."""
    config = read_config(run)
    _require_own_version(run, run.read_version())
    return config


def _read_own_checkpoint(run: RunFolder) -> dict[str, Any]:
    """The checkpoint of a run, if this version wrote it."""
    state = run.load_checkpoint()
    _require_own_version(run, state.get("version"))
    return state


def _require_own_version(run: RunFolder, version: str | None) -> None:
    """Refuse to mix two versions in one run: their numbers may differ."""
    if version == fireprop.__version__:
        return
    began = "fireprop 0.1.0, which recorded no version," if version is None else f"fireprop {version}"
    raise RunError(
        f"{run.path}: {began} trained this run, this is fireprop {fireprop.__version__}: train anew, or install "
        f"fireprop {version or '0.1.0'} to go on. evaluate and plot work with this version too"
    )


def load_trained(run: RunFolder) -> Trainer:
    """The state of a run after its last finished epoch."""
    config = read_config(run)
    with memory_in_words(config):
        trainer = Trainer(config, load_splits(config))
        trainer.load_state_dict(run.load_checkpoint())
    return trainer
