"""Where the metrics of a run go beside its folder: functions to give as `report`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from fireprop.datasets.extras import require
from fireprop.training.trainer import Progress, Report

# Called with the numbers of an epoch by name, and `step`: `log` of a run of Weights & Biases, `log_metrics` of MLflow.
Log: TypeAlias = Callable[..., object]


def each_epoch(log: Log) -> Report:
    """A `report` for `train`, `fit` or `Trainer.run_epoch` that passes on the metrics of every epoch.

    log  called as log({"train_loss": 0.3, ...}, step=epoch) with the numbers of `EpochMetrics`. What is None or a text
         is left out

    An epoch that was interrupted and is trained again after a resume is passed on once more only if it had ended.
    """

    def report(now: Progress) -> None:
        if now.metrics is None or now.done < now.batches or now.metrics.epoch != now.epoch:
            return
        numbers = {name: value for name, value in now.metrics.line().items() if isinstance(value, (int, float))}
        log({name: value for name, value in numbers.items() if name != "epoch"}, step=now.epoch)

    return report


def to_tensorboard(folder: str | Path) -> Report:
    """A `report` that writes the metrics of every epoch as scalars for TensorBoard.

    folder  for `tensorboard --logdir`: one for each run

    Raises MissingExtraError without the extra `tensorboard`.
    """
    require("tensorboard", extra="tensorboard", needed_for="a log for TensorBoard")
    from torch.utils.tensorboard import SummaryWriter

    writers: list[Any] = []

    def log(numbers: dict[str, float], step: int) -> None:
        if not writers:  # no folder before there is something to write
            writers.append(SummaryWriter(str(folder)))
        for name, value in numbers.items():
            writers[0].add_scalar(name, value, step)
        writers[0].flush()

    return each_epoch(log)


def to_all(*reports: Report | None) -> Report:
    """A `report` that calls each of these, but those that are None."""

    def report(now: Progress) -> None:
        for each in reports:
            if each is not None:
                each(now)

    return report
