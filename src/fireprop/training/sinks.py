"""Where the metrics of a run go beside its folder: functions to give as `report`."""

from collections.abc import Callable
from dataclasses import asdict
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
        numbers = {name: value for name, value in asdict(now.metrics).items() if isinstance(value, (int, float))}
        log({name: value for name, value in numbers.items() if name != "epoch"}, step=now.epoch)

    return report


def to_tensorboard(folder: str | Path) -> Report:
    """A `report` that writes the metrics of every epoch as scalars for TensorBoard.

    folder  for `tensorboard --logdir`: one for each run

    Raises MissingExtraError without the extra `tensorboard`.
    """
    require("tensorboard", extra="tensorboard", needed_for="a log for TensorBoard")
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder))

    def log(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return each_epoch(log)
