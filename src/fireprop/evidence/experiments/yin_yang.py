"""Yin-Yang (docs/deviations.md): 5-120-3, the only network of the method whose accuracy the authors recorded."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor
from torch.utils.data import DataLoader

from fireprop import datasets, losses, plotting, tasks
from fireprop.datasets import SpikeDataset
from fireprop.evidence.experiments import published
from fireprop.evidence.experiments.plan import AS_PUBLISHED, FAIR, Plan, Step, Watch
from fireprop.evidence.experiments.report import Finding, Report, mean_and_spread
from fireprop.nn import Record
from fireprop.objectives import FirstSpike
from fireprop.plans import Splits
from fireprop.plotting import GREY, INK
from fireprop.training import EpochMetrics, Trainer

TITLE = "Yin-Yang with 120 hidden units"
HIDDEN = 120

PUBLISHED: dict[str, Any] = {
    "patience": None,
    "hidden": (HIDDEN,),
    "epochs": 300,
    "batch_size": 150,
    "lr": 5e-4,
    "lr_decay": 1.0,  # deviation 8: the authors' schedule never ran
    "tau_mem": 1.0,
    "tau_syn": 1.0 / 0.99,
    "t_end": 2.0,
    "t_low": 0.15,
    "t_high": 2.0,
    "bias_time": 0.9,
    "hidden_weight": (1.5, 0.8),
    "output_weight": (2.0, 0.1),
    "tau": 0.2,
    "late_penalty": 0.005,
    "late_tau": 1.0,
}


class RewardedLateness(FirstSpike):
    """First spikes with the authors' loss (docs/deviations.md, 7)."""

    def loss(self, record: Record, labels: Tensor) -> Tensor:
        return published.rewarded_lateness(
            record[-1], labels, tau=self.tau, late_penalty=self.late_penalty, late_tau=self.late_tau
        )


class PublishedTrainer(Trainer):
    """A Trainer with the authors' batches, which come in the same order in every epoch."""

    def loader(self) -> DataLoader[Any]:
        return DataLoader(self.splits.train, batch_size=self.config.batch_size, collate_fn=SpikeDataset.collate)


def published_parts(config: tasks.Config) -> dict[str, SpikeDataset]:
    """The three parts of Yin-Yang as the authors encoded them (docs/deviations.md, 9)."""
    if config.bias_time is None:
        raise ValueError("bias_time = None: the authors' encoding has a bias spike, give its time")
    parts = {}
    for name, (features, labels) in datasets.yin_yang_splits().items():
        spikes = published.misplaced_bias_spikes(
            features, bias_time=config.bias_time, t_range=(config.t_low, config.t_high)
        )
        parts[str(name)] = SpikeDataset(spikes, labels)
    return parts


def _published_trainer(config: tasks.Config) -> Trainer:
    parts = published_parts(config)
    # Without a validation part: the last epoch counts, as it was recorded.
    splits = Splits(train=parts["train"], validation=None, test=parts["test"])
    generator = torch.Generator().manual_seed(config.seed)
    objective = RewardedLateness(config.tau, config.late_penalty, config.late_tau)
    return PublishedTrainer(config.build(splits, generator), splits, objective, config, generator=generator)


def _fair_trainer(config: tasks.Config) -> Trainer:
    return Trainer.of(config, config.load())


@dataclass(frozen=True)
class Setting:
    """Changes to the task's configuration, who trains it, numbers of seeds and epochs, and all in words."""

    changes: Mapping[str, Any]
    trainer: Callable[[tasks.Config], Trainer]
    seeds: int
    quick_seeds: int
    quick_epochs: int
    words: str


SETTINGS = {
    AS_PUBLISHED: Setting(
        PUBLISHED,
        _published_trainer,
        seeds=3,
        quick_seeds=1,
        quick_epochs=100,
        words="the authors' configuration: tau_syn 1/0.99, tau_mem 1, t_end 2, initial weights N(1.5, 0.8) and "
        "N(2, 0.1), tau 0.2. Adam runs at a constant 5e-4 (deviation 8), with batches of 150 in the same order in "
        "every epoch, for 300 epochs. The penalty 0.005 (exp(t) - 1) has the wrong sign (deviation 7). The bias spike "
        "is inserted at a place that depends on the sample (deviation 9). Accuracy after the last epoch. The gradient "
        "is not theirs: it is exact also for second spikes (deviation 1). docs/deviations.md lists the deviations.",
    ),
    FAIR: Setting(
        {"hidden": (HIDDEN,)},
        _fair_trainer,
        seeds=5,
        quick_seeds=1,
        quick_epochs=30,
        words="120 hidden units too; the bias on a channel of its own, the penalty with its right sign; constants and "
        "schedule of `fireprop train yin-yang`: those of EventProp's Yin-Yang experiment with a sharper softmax, "
        "Adam from 5e-3, times 0.95 from epoch to epoch, batches of 32, 60 epochs. The epoch is chosen on the "
        "validation part, the accuracy is that on the test part.",
    ),
}
# Mean training loss of the recorded run by epoch, from the authors' result file.
RECORDED_LOSS = {1: 1.090, 10: 1.076, 50: 0.897, 100: 0.571, 200: 0.259, 300: 0.190}


@dataclass(frozen=True)
class Outcome:
    """One seed of a setting; epoch: the one whose weights were tested."""

    setting: str
    seed: int
    test_accuracy: float
    validation_accuracy: float | None
    epoch: int
    epochs: int
    train_seconds: float
    spikes_per_sample: float


def run(plan: Plan, report: Report, watch: Watch) -> None:
    """Train every seed of every setting."""
    outcomes: dict[str, list[Outcome]] = {}
    epochs: list[tuple[str, int, EpochMetrics]] = []
    for setting in plan.settings(SETTINGS):
        outcomes[setting], trainers = _train_all(setting, plan, watch)
        epochs += [(setting, trainer.config.seed, row) for trainer in trainers for row in trainer.metrics]
        report.find(_finding(setting, outcomes[setting]))
    report.say(f"## What was run\n\n{_words(outcomes, plan)}")
    report.show_figure("loss", draw_losses(epochs), "Training loss and accuracy by epoch, a line per seed.")
    report.show_figure("decision_map", _draw_map(trainers[0]), "Decision map of the first seed, fair setting.")
    report.keep_rows("seeds", [asdict(row) for rows in outcomes.values() for row in rows])
    report.keep_rows("epochs", [{"setting": setting, "seed": seed, **row.line()} for setting, seed, row in epochs])


def _train_all(setting: str, plan: Plan, watch: Watch) -> tuple[list[Outcome], list[Trainer]]:
    chosen = SETTINGS[setting]
    seeds = plan.runs(chosen.seeds, chosen.quick_seeds)
    changes = {**chosen.changes, "epochs": chosen.quick_epochs} if plan.quick else chosen.changes
    trainers = []
    for seed in range(seeds):
        trainer = chosen.trainer(tasks.default_config("yin-yang", **changes, seed=seed))
        trainers.append(trainer)
        trainer.warm_up()
        epochs = trainer.config.epochs
        while trainer.epoch < epochs:
            loss = trainer.run_epoch().train_loss
            watch(Step(setting, seed * epochs + trainer.epoch, seeds * epochs, f"seed {seed}, loss {loss:.3f}"))
    return [_outcome(setting, trainer) for trainer in trainers], trainers


def _outcome(setting: str, trainer: Trainer) -> Outcome:
    result = trainer.result()
    return Outcome(
        setting,
        trainer.config.seed,
        result["test_accuracy"],
        result["validation_accuracy"],
        result["best_epoch"],
        result["epochs"],
        result["train_seconds"],
        result["spikes_per_sample"],
    )


def _finding(setting: str, rows: Sequence[Outcome]) -> Finding:
    values = [row.test_accuracy for row in rows]
    epoch = "last epoch" if setting == AS_PUBLISHED else "epoch chosen on validation"
    ours = f"{mean_and_spread(values)} ({len(rows)} seeds, {rows[0].epochs} epochs)"
    return Finding(f"test accuracy, {epoch}", setting, ours, statistics.mean(values), **published.YIN_YANG["test"])


def _words(outcomes: Mapping[str, Sequence[Outcome]], plan: Plan) -> str:
    lines = [f"- **{setting}**: {SETTINGS[setting].words}" for setting in outcomes]
    if plan.quick:
        lines.append("\n**Reduced budget** (`--quick`): fewer epochs and seeds than these, as the table above says.")
    lines.append(
        "\nFor context: EventProp, the adjoint method, reaches 98.10 ± 0.18 % with 5-200-3 (its repository's "
        "results, 10 seeds, last epoch), an ordinary network 4-120-3 98.7 ± 0.3 %, a linear one 64.3 ± 0.2 % (README "
        "of the data set). The recorded loss of the as-published run after 1, 10, 50, 100, 200 and 300 epochs stands "
        "as crosses in the figure."
    )
    return "\n".join(lines)


def draw_losses(epochs: Sequence[tuple[str, int, EpochMetrics]]) -> Figure:
    """Training loss and accuracy by epoch, a line per seed, and what was recorded of the loss."""
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    styles = {AS_PUBLISHED: (GREY, "--"), FAIR: (INK, "-")}
    for setting, seed in dict.fromkeys((setting, seed) for setting, seed, _ in epochs):
        rows = [row for s, k, row in epochs if (s, k) == (setting, seed)]
        color, line = styles[setting]
        style: dict[str, Any] = {"color": color, "ls": line, "lw": 1.0, "label": setting if seed == 0 else None}
        loss.plot([row.epoch for row in rows], [row.train_loss for row in rows], **style)
        accuracy.plot([row.epoch for row in rows], [row.train_accuracy for row in rows], **style)
    loss.plot(list(RECORDED_LOSS), list(RECORDED_LOSS.values()), "x", color=INK, ms=6, label="recorded, as published")
    loss.set(xlabel="epoch", ylabel="training loss", ylim=(0.0, None))
    accuracy.set(xlabel="epoch", ylabel="training accuracy", ylim=(0.3, 1.01))
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    for ax in (loss, accuracy):
        ax.spines[["top", "right"]].set_visible(False)
    loss.legend(frameon=False, fontsize=8)
    return figure


def _draw_map(trainer: Trainer) -> Figure:
    """Decision map with the test points; the trainer has its best weights."""
    config = cast(tasks.Config, trainer.config)

    def classify(features: Tensor) -> Tensor:
        spikes = tasks.encode(config, features, (0.0, 1.0))
        with torch.no_grad():
            out = trainer.net(spikes, t_end=config.t_end, stop="first_spikes")
        return losses.first_spike_predictions(out)

    features, labels = datasets.yin_yang_splits()["test"]
    names = tasks.TASKS["yin-yang"].class_names
    return plotting.decision_map(classify, features, labels, class_of=datasets.yin_yang_class, class_names=names)
