"""The fair comparison: exact and surrogate gradients on one network, from one start, each at its own best rate."""

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from fireprop import datasets, losses, tasks
from fireprop.datasets import SpikeDataset
from fireprop.experiments import yin_yang
from fireprop.experiments.clocked import Clock, Surrogate, first_spike_times, on_grid
from fireprop.experiments.learners import (
    BATCH,
    EXACT,
    OBJECTIVES,
    Budget,
    ClockDriven,
    EventDriven,
    Model,
    Objective,
    Point,
    Run,
    after,
    learn,
    short,
    shuffled,
    snntorch_surrogates,
)
from fireprop.experiments.plan import FAIR, Step, Watch
from fireprop.experiments.report import Finding, mean_and_spread
from fireprop.kernels import membrane
from fireprop.plotting import CLASS_COLORS, INK
from fireprop.spikes import Spikes

TUNING = "tuning"
TUNING_SEED = 1000  # of the runs that choose learning rates, apart from those that are reported

# The fair comparison. The as-published initial weights make an output fire more than once per step: no grid can follow.
# These are Yin-Yang's defaults, moved to start at 0, with a softmax of four steps' width, so that a grid resolves it.
FAIR_CHANGES = {
    "hidden": (yin_yang.HIDDEN,),
    "t_low": 0.0,
    "t_high": 1.5,
    "bias_time": 0.5,
    "t_end": 2.5,
    "tau": 0.05,
}
FAIR_DT, FAIR_STEPS = 0.0125, 200
FAIR_ALPHA, FAIR_BETA = 4.0, 1.0
# The neurons of the fair configuration on the grid: V in the unit of the threshold, propagated exactly over a step.
FAIR_CLOCK = Clock(
    FAIR_DT,
    FAIR_STEPS,
    FAIR_ALPHA,
    FAIR_BETA,
    gain=float(membrane.response(FAIR_DT, FAIR_ALPHA, FAIR_BETA)),
    threshold=1.0,
)
# snnTorch's sigmoid returns NaN where exp(-25 x) overflows float32; at |x| = 3 its derivative is 1e-31 already.
SIGMOID_RANGE = 3.0


def make_parts(config: tasks.Config, samples: int) -> dict[str, SpikeDataset]:
    """Yin-Yang with the bias on its own channel and every input time rounded to the grid, for both kinds of net."""
    parts: dict[str, SpikeDataset] = {}
    for name, (features, labels) in datasets.yin_yang_splits().items():
        times = tasks.encode(config, features, (0.0, 1.0)).to_latencies()
        rounded = torch.round(times / FAIR_DT) * FAIR_DT
        kept = slice(samples if name == "train" else None)
        parts[name] = SpikeDataset(Spikes.from_latencies(rounded[kept]), labels[kept])
    return parts


def make_config(seed: int) -> tasks.Config:
    """The configuration of both kinds of net: same initial weights from the same seed, same loss."""
    return tasks.default_config("yin-yang", **FAIR_CHANGES, seed=seed)


def surrogate_functions() -> dict[str, Surrogate]:
    """snnTorch's surrogates at their default slopes, which are meant for a threshold of 1: that of FAIR_CLOCK."""
    library = snntorch_surrogates()
    sigmoid = library.sigmoid(slope=25)
    return {
        "fast sigmoid": library.fast_sigmoid(slope=25),
        "sigmoid": lambda distance: sigmoid(distance.clamp(-SIGMOID_RANGE, SIGMOID_RANGE)),
        "atan": library.atan(alpha=2.0),
        "SRE": library.spike_rate_escape(beta=1, slope=25),
        "STE": library.straight_through_estimator(),
    }


def make_models(budget: Budget) -> dict[tuple[str, str], Callable[[int], Model]]:
    """A maker of untrained models for each method and loss, from a seed; equal seeds have equal initial weights."""
    parts = make_parts(make_config(0), budget.samples)
    inputs = {name: (on_grid(part.spikes.to_latencies(), FAIR_CLOCK), part.labels) for name, part in parts.items()}
    objectives = {"first spike": _first_spike_objective(), "count": OBJECTIVES["count"]}

    def clock_driven(surrogate: Surrogate, objective: Objective, seed: int) -> Model:
        weights = list(tasks.build_network(make_config(seed), torch.Generator().manual_seed(seed)).parameters())
        return ClockDriven(weights, None, inputs, FAIR_CLOCK, surrogate, objective)

    models: dict[tuple[str, str], Callable[[int], Model]] = {
        (EXACT, "first spike"): lambda seed: EventDriven(make_config(seed), parts, losses.first_spike_cross_entropy)
    }
    for (method, surrogate), (loss, objective) in itertools.product(surrogate_functions().items(), objectives.items()):
        models[method, loss] = partial(clock_driven, surrogate, objective)
    return models


def _first_spike_objective() -> Objective:
    config = make_config(0)

    def loss(spikes: Tensor, labels: Tensor) -> Tensor:
        out = Spikes.from_latencies(first_spike_times(spikes, FAIR_CLOCK).double())
        return losses.first_spike_cross_entropy(
            out, labels, tau=config.tau, late_penalty=config.late_penalty, late_tau=config.late_tau
        )

    def predict(spikes: Tensor) -> Tensor:
        first = np.argmin(first_spike_times(spikes, FAIR_CLOCK).numpy(), axis=1)
        return torch.where(spikes.sum((1, 2)) > 0, torch.from_numpy(first), -1)

    return Objective(loss, predict)


def run_all(budget: Budget, seeds: int, watch: Watch) -> list[Point]:
    """Choose a learning rate for each method by the same budget, then train with it from several seeds."""
    models = make_models(budget)
    total = len(models) * (len(budget.lrs) + seeds)
    done = itertools.count(1)
    points: list[Point] = []

    def train(make: Callable[[int], Model], run: Run, until: Callable[[int, float], bool]) -> Point:
        points.extend(learn(make(run.seed), run, _order(budget, run.seed), until))
        watch(Step(FAIR, next(done), total, short(points[-1])))
        return points[-1]

    for (method, loss), make in models.items():
        trials = [Run(TUNING, method, loss, TUNING_SEED, lr) for lr in budget.lrs]
        judged = [train(make, run, after(budget.tuning_epochs)) for run in trials]
        lr = max(judged, key=lambda point: point.validation_accuracy).run.lr
        for seed in range(seeds):
            train(make, Run(FAIR, method, loss, seed, lr), after(budget.epochs, budget.seconds))
    return points


def _order(budget: Budget, seed: int) -> Iterator[list[Tensor]]:
    return shuffled(budget.samples, torch.Generator().manual_seed(seed))


def compare_start(budget: Budget) -> dict[str, float]:
    """Whether the two kinds of net begin alike: spikes of the test part with equal initial weights, seed 0.

    Mean spikes per sample of the hidden and of the output layer, event-driven and clock-driven, and the median distance
    of their first output spikes in steps.
    """
    config = make_config(0)
    data = make_parts(config, budget.samples)["test"]
    net = tasks.build_network(config, torch.Generator().manual_seed(0))
    clocked = ClockDriven(list(net.parameters()), None, {}, FAIR_CLOCK, lambda distance: distance, OBJECTIVES["count"])
    with torch.no_grad():
        record = net.record(data.spikes, t_end=config.t_end)
        layers = clocked.spikes(on_grid(data.spikes.to_latencies(), FAIR_CLOCK))
    distance = (losses.first_spike_times(record[-1]) - first_spike_times(layers[-1], FAIR_CLOCK)).abs() / FAIR_DT
    n = len(data)
    return {
        "hidden spikes, event-driven": record[0].n_spikes / n,
        "hidden spikes, clock-driven": float(layers[0].sum()) / n,
        "output spikes, event-driven": record[1].n_spikes / n,
        "output spikes, clock-driven": float(layers[1].sum()) / n,
        "median distance of first output spikes, steps": float(distance.median()),
    }


@dataclass(frozen=True)
class Summary:
    """One method of the fair comparison over its seeds: accuracies after equal samples and after equal time."""

    method: str
    loss: str
    lr: float
    by_samples: tuple[float, ...]
    by_seconds: tuple[float, ...]
    seconds_per_epoch: float

    def as_row(self) -> dict[str, str]:
        return {
            "gradient": self.method,
            "loss": self.loss,
            "learning rate": f"{self.lr:g}",
            "after equal samples": mean_and_spread(self.by_samples),
            "after equal time": mean_and_spread(self.by_seconds),
            "seconds per epoch": f"{self.seconds_per_epoch:.2f}",
        }


def summarise(points: Sequence[Point], budget: Budget) -> list[Summary]:
    """Test accuracies at the epoch that ends the samples, and at the last epoch that ends within the seconds."""
    summaries = []
    reported = [point for point in points if point.run.stage == FAIR]
    for method, loss in dict.fromkeys((point.run.method, point.run.loss) for point in reported):
        mine = [point for point in reported if (point.run.method, point.run.loss) == (method, loss)]
        at_samples = [point for point in mine if point.epoch == budget.epochs]
        at_seconds = {point.run.seed: point for point in mine if point.seconds <= budget.seconds}
        summaries.append(
            Summary(
                method,
                loss,
                mine[0].run.lr,
                tuple(point.test_accuracy for point in at_samples),
                tuple(point.test_accuracy for point in at_seconds.values()),
                statistics.mean(point.seconds / point.epoch for point in at_samples),
            )
        )
    return summaries


def findings(summaries: Sequence[Summary]) -> list[Finding]:
    measured = [(f"samples: {s.method}, {s.loss}", s.by_samples) for s in summaries]
    measured += [(f"time: {s.method}, {s.loss}", s.by_seconds) for s in summaries]
    return [
        Finding(f"after equal {what}", FAIR, mean_and_spread(values), statistics.mean(values))
        for what, values in measured
    ]


def words(budget: Budget, seeds: int) -> str:
    samples = budget.epochs * budget.samples
    return f"""
## Fair

Both kinds of net are 5-120-3 with the same initial weights, the same constants (tau_mem 1, tau_syn 0.25, threshold 1),
the same input spikes, rounded to a grid of {FAIR_DT} in {FAIR_STEPS} steps, the bias on its own channel, and the same
batches of {BATCH} from {budget.samples} samples. The clock-driven net takes snnTorch's `Synaptic` step, in which it
propagates the same equations exactly from grid point to grid point. Its surrogates are snnTorch's at their default
slopes, applied to V - threshold in the scale that the defaults are meant for, threshold 1; the sigmoid's argument is
cut at ±{SIGMOID_RANGE:g}, beyond which snnTorch's returns NaN.

Each surrogate learns with the loss that exact gradients use here, first-spike cross entropy (the time of a first spike
is a sum of products of 1 - S), and with the loss that did best in the authors' comparison, cross entropy of spike
counts.

For each, the learning rate is the one of {", ".join(f"{lr:g}" for lr in budget.lrs)} with the best validation accuracy
after {budget.tuning_epochs} epochs of a seed that is not reported; then {seeds} seeds at that constant rate. "Equal
samples" are {samples:,} ({budget.epochs} epochs), "equal time" is {budget.seconds:g} s of training on one core (CPU
time; the last epoch that ended within it).
"""


def start_words(start: Mapping[str, float]) -> str:
    lines = "\n".join(f"- {name}: {value:.2f}" for name, value in start.items())
    return f"""
### The same start

Spikes per sample of the test part before the first update, seed 0:

{lines}
"""


def draw_curves(points: Sequence[Point], budget: Budget) -> Figure:
    """Test accuracy of the fair runs against samples and against seconds; a line per method, solid for first spikes."""
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    by_samples, by_seconds = figure.subplots(1, 2, sharey=True)
    reported = [point for point in points if point.run.stage == FAIR]
    methods = list(dict.fromkeys(point.run.method for point in reported))
    for method, loss in dict.fromkeys((point.run.method, point.run.loss) for point in reported):
        mine = [point for point in reported if (point.run.method, point.run.loss) == (method, loss)]
        color = INK if method == EXACT else CLASS_COLORS[methods.index(method) - 1]
        style = {"color": color, "ls": "--" if loss == "count" else "-", "label": f"{method}, {loss}"}
        _draw_band(by_samples, mine, lambda point: point.samples / 1000, budget.epochs * budget.samples / 1000, style)
        _draw_band(by_seconds, mine, lambda point: point.seconds, budget.seconds, style)
    by_samples.set(xlabel="thousand samples", ylabel="test accuracy", xlim=(0, budget.epochs * budget.samples / 1000))
    by_seconds.set(xlabel="seconds of training on one core", xlim=(0, budget.seconds))
    by_samples.yaxis.set_major_formatter(PercentFormatter(1.0))
    for ax in (by_samples, by_seconds):
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *by_samples.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return figure


def _draw_band(
    ax: Axes, points: Sequence[Point], place: Callable[[Point], float], most: float, style: Mapping[str, Any]
) -> None:
    """Mean over the seeds as a line and their range as a band, epoch by epoch, to where all seeds are within `most`."""
    epochs: dict[int, list[Point]] = {}
    for point in points:
        epochs.setdefault(point.epoch, []).append(point)
    seeds = len(epochs[0])
    kept = [group for group in epochs.values() if len(group) == seeds and max(map(place, group)) <= 1.05 * most]
    x = [statistics.mean(map(place, group)) for group in kept]
    accuracies = [[point.test_accuracy for point in group] for group in kept]
    ax.plot(x, [statistics.mean(values) for values in accuracies], lw=2.0 if style["color"] == INK else 1.2, **style)
    ax.fill_between(
        x, [min(v) for v in accuracies], [max(v) for v in accuracies], color=style["color"], alpha=0.12, lw=0
    )
