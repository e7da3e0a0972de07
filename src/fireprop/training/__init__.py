"""Training: epochs of exact gradients, checkpoints after each, and the same weights, bit for bit, after a resume."""

from fireprop.training.agreement import require_same
from fireprop.training.doctor import examine
from fireprop.training.events import EventsConfig, plan_for_events
from fireprop.training.metrics import EpochMetrics, Evaluation
from fireprop.training.run import (
    Ends,
    begin,
    draw,
    evaluate,
    explore,
    fit,
    load_network,
    load_trained,
    read_config,
    start,
    train,
)
from fireprop.training.sinks import each_epoch, to_all, to_tensorboard
from fireprop.training.trainer import EVALUATION_BATCH, Progress, Report, Trainer

__all__ = [
    "EVALUATION_BATCH",
    "Ends",
    "EpochMetrics",
    "Evaluation",
    "EventsConfig",
    "Progress",
    "Report",
    "Trainer",
    "begin",
    "draw",
    "each_epoch",
    "evaluate",
    "examine",
    "explore",
    "fit",
    "load_network",
    "load_trained",
    "plan_for_events",
    "read_config",
    "require_same",
    "start",
    "to_all",
    "to_tensorboard",
    "train",
]
