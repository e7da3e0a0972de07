"""Iris: accuracy by repeated 5-fold cross-validation, where the authors recorded one split (docs/deviations.md)."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from fireprop import datasets, losses, plotting, tasks
from fireprop.datasets import SpikeDataset
from fireprop.datasets.extras import require
from fireprop.evidence.experiments import published
from fireprop.evidence.experiments.plan import AS_PUBLISHED, FAIR, Plan, Step, Watch
from fireprop.evidence.experiments.report import Finding, Report, mean_and_spread
from fireprop.plans import Splits
from fireprop.plotting import GREY, INK
from fireprop.spikes import Spikes
from fireprop.training import Trainer

TITLE = "Iris, cross-validated"
FOLDS = 5
REPEATS, QUICK_REPEATS = 10, 2
SPLIT_SEED = 0

Range: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Setting:
    """Changes to the task's configuration, where the ranges of the features come from, the decision, all in words."""

    changes: Mapping[str, Any]
    feature_range: Callable[[Tensor, Tensor], Range]  # of all features and the indices of the training part
    decide: Callable[[Spikes], Tensor]
    words: str


@dataclass(frozen=True)
class Fold:
    """The outcome of one fold: accuracy on the training part and on its 30 test flowers, after the last epoch."""

    setting: str
    repeat: int
    fold: int
    train_accuracy: float
    test_accuracy: float


def _range_of_all(features: Tensor, _: Tensor) -> Range:
    return features.amin(0), features.amax(0)


def _range_of_training(features: Tensor, train: Tensor) -> Range:
    return features[train].amin(0), features[train].amax(0)


PUBLISHED = {
    "hidden": (10,),
    "epochs": 50,
    "batch_size": 30,
    "lr": 0.05,
    "lr_decay": 1.0,  # deviation 8: the authors' schedule never ran
    "tau_mem": 1.0 / 0.9,
    "tau_syn": 1.0,
    "t_end": 16.0,
    "t_low": 16.0,
    "t_high": 0.0,
    "bias_time": None,
    "hidden_weight": (3.0, 1.0),
    "output_weight": (2.0, 0.1),
    "tau": 1.0,
    "late_penalty": 0.0,
}
WIDE = "fair, 100 hidden"
SETTINGS = {
    AS_PUBLISHED: Setting(
        PUBLISHED,
        _range_of_all,
        published.first_spike_decision,
        "the authors' configuration: 4-10-3, no bias spike, features scaled by the ranges of all 150 flowers, those "
        "to be tested included. tau_syn 1, tau_mem 1/0.9, t_end 16, tau 1, batches of 30, 50 epochs. Adam runs at a "
        "constant 0.05 (deviation 8). A silent output counts as at t_end (deviation 5). docs/deviations.md lists the "
        "deviations.",
    ),
    FAIR: Setting(
        {"hidden": (10,), "epochs": 100, "lr": 0.02, "lr_decay": 0.97, "output_weight": (2.0, 0.5)},
        _range_of_training,
        losses.first_spike_predictions,
        "ten hidden units too, and a bias spike on a channel of its own; ranges from the training part, test values "
        "clipped to them; the time constants, encoding and penalty of `fireprop train iris`; Adam from 0.02, times "
        "0.97 from epoch to epoch, batches of 10, 100 epochs. A flower for which no output fires is no correct "
        "prediction.",
    ),
    WIDE: Setting(
        {},
        _range_of_training,
        losses.first_spike_predictions,
        "as fair, but with the 100 hidden units and the settings of `fireprop train iris`.",
    ),
}
WHAT = """
## What was run

Five folds, stratified, repeated with new splits (scikit-learn's RepeatedStratifiedKFold): in each repetition every
flower is tested once, by a network that has not seen it. The accuracy is that after the last epoch; nothing is selected
on test flowers. The authors recorded one split of 120 and 30.
"""


def needs() -> None:
    """Raise datasets.MissingExtraError if scikit-learn is missing."""
    datasets.iris()


def run(plan: Plan, report: Report, watch: Watch) -> None:
    """Cross-validate every setting; one of the plan's "seeds" is a repetition of the five folds."""
    repeats = plan.runs(REPEATS, QUICK_REPEATS)
    outcomes = {setting: _cross_validate(setting, repeats, watch) for setting in plan.settings(SETTINGS)}
    for setting, rows in outcomes.items():
        report.find(*_findings(setting, rows))
    report.say(WHAT)
    report.say("\n".join(f"- **{setting}**: {SETTINGS[setting].words}" for setting in outcomes))
    if AS_PUBLISHED in outcomes:
        report.say(_recorded_words(outcomes[AS_PUBLISHED]))
    report.show_figure("folds", draw_folds(outcomes), "Test accuracy of every fold, a dot each; the mean as a line.")
    report.show_figure(
        "first_spikes", _draw_first_spikes(), "First output spikes of the test flowers of one fold, fair setting."
    )
    report.keep_rows("folds", [asdict(row) for rows in outcomes.values() for row in rows])


def folds(repeats: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(number, training indices, test indices) of every fold, the same at every call."""
    sklearn = require("sklearn.model_selection", extra="data", needed_for="iris")
    features, labels = datasets.iris()
    splitter = sklearn.RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=repeats, random_state=SPLIT_SEED)
    for number, (train, test) in enumerate(splitter.split(features.numpy(), labels.numpy())):
        yield number, torch.from_numpy(train), torch.from_numpy(test)


def train_fold(setting: str, number: int, train: Tensor, test: Tensor) -> tuple[Fold, Trainer]:
    """Train on one part, measure both; the number of the fold is the seed of weights and order."""
    chosen = SETTINGS[setting]
    config = tasks.default_config("iris", **chosen.changes, seed=number)
    features, labels = datasets.iris()
    feature_range = chosen.feature_range(features, train)
    parts = [SpikeDataset(tasks.encode(config, features[part], feature_range), labels[part]) for part in (train, test)]
    trainer = Trainer.of(config, Splits(train=parts[0], validation=None, test=parts[1]))
    while trainer.epoch < config.epochs:
        trainer.run_epoch()
    accuracies = [_accuracy(trainer, part, chosen.decide) for part in parts]
    return Fold(setting, *divmod(number, FOLDS), *accuracies), trainer


def _accuracy(trainer: Trainer, part: SpikeDataset, decide: Callable[[Spikes], Tensor]) -> float:
    with torch.no_grad():
        out = trainer.net(part.spikes, t_end=trainer.config.t_end, stop="first_spikes")
    return float((decide(out) == part.labels).double().mean())


def _cross_validate(setting: str, repeats: int, watch: Watch) -> list[Fold]:
    rows: list[Fold] = []
    for number, train, test in folds(repeats):
        rows.append(train_fold(setting, number, train, test)[0])
        mean = statistics.mean(row.test_accuracy for row in rows)
        watch(Step(setting, len(rows), repeats * FOLDS, f"mean test accuracy {mean:.1%}"))
    return rows


def _findings(setting: str, rows: Sequence[Fold]) -> list[Finding]:
    parts = {
        "test": ("test accuracy, mean over the folds", [row.test_accuracy for row in rows]),
        "train": ("training accuracy at the end", [row.train_accuracy for row in rows]),
    }
    return [
        Finding(
            quantity,
            setting,
            f"{mean_and_spread(values)} ({len(rows)} folds)",
            statistics.mean(values),
            **published.IRIS[part],
        )
        for part, (quantity, values) in parts.items()
    ]


def _recorded_words(rows: Sequence[Fold]) -> str:
    """How likely the recorded test accuracy is, given ours."""
    reached = sum(row.test_accuracy > 27.5 / 30 for row in rows)
    train = statistics.mean(row.train_accuracy for row in rows)
    return (
        f"The recorded 28 of 30 is one split; {reached} of our {len(rows)} folds in the as-published setting reach it. "
        "The accuracy on the training part is less a matter of luck, being one of 120 flowers: 82.5% was recorded, "
        f"{train:.1%} is ours."
    )


def draw_folds(outcomes: Mapping[str, Sequence[Fold]]) -> Figure:
    """A dot per fold and setting, equal ones one above the other, and the mean as a line."""
    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    ax = figure.subplots()
    for row, outcome in enumerate(outcomes.values()):
        values = np.array([fold.test_accuracy for fold in outcome])
        for value in np.unique(values):
            n = int((values == value).sum())
            heights = row + min(0.045, 0.7 / n) * (np.arange(n) - (n - 1) / 2)
            ax.plot(np.full(n, value), heights, "o", ms=3.5, color=GREY, mew=0)
        ax.vlines(values.mean(), row - 0.4, row + 0.4, color=INK, lw=2.0)
        ax.annotate(f"{values.mean():.1%}", (values.mean(), row + 0.4), ha="center", va="bottom", fontsize=8, color=INK)
    ax.set_yticks(range(len(outcomes)), list(outcomes))
    ax.set(xlabel="test accuracy of a fold", ylim=(-0.6, len(outcomes) - 0.2))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_first_spikes() -> Figure:
    number, train, test = next(folds(1))
    _, trainer = train_fold(FAIR, number, train, test)
    part = trainer.splits.test
    with torch.no_grad():
        out = trainer.net(part.spikes, t_end=trainer.config.t_end)
    return plotting.first_spike_histograms(out, part.labels, class_names=tasks.TASKS["iris"].class_names)
