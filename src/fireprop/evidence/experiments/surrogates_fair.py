"""The fair comparison: exact and surrogate gradients on one network, from one start, each at its own best settings."""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from fireprop import datasets, losses, tasks
from fireprop.datasets import SpikeDataset
from fireprop.evidence.experiments import yin_yang
from fireprop.evidence.experiments.clocked import Clock, Surrogate, first_spike_times, on_grid
from fireprop.evidence.experiments.learners import (
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
from fireprop.evidence.experiments.plan import FAIR, Step, Watch
from fireprop.evidence.experiments.report import Finding, mean_and_spread
from fireprop.kernels import membrane
from fireprop.plotting import CLASS_COLORS, INK
from fireprop.spikes import Spikes

Pair: TypeAlias = tuple[str, str]  # a method and its loss

TUNING = "fair, learning rates"
TUNING_SEED = 1000  # of the runs that choose learning rates, apart from those that are reported

# The fair comparison. The as-published initial weights make an output fire more than once per step: no grid can follow.
# These are Yin-Yang's defaults, moved to start at 0.
FAIR_CHANGES = {
    "hidden": (yin_yang.HIDDEN,),
    "t_low": 0.0,
    "t_high": 1.5,
    "bias_time": 0.5,
    "t_end": 2.5,
    "patience": 1.0,  # a tau_mem
}
TAUS = 0.0125, 0.05  # of the softmax over first spikes, to choose from: one step of the grid, and four
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


def make_config(seed: int, tau: float = TAUS[0]) -> tasks.Config:
    """The configuration of both kinds of net: same initial weights from the same seed, same loss."""
    return tasks.default_config("yin-yang", **FAIR_CHANGES, seed=seed, tau=tau)


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


def make_models(budget: Budget) -> dict[Pair, Callable[[Run], Model]]:
    """A maker of untrained models for each method and loss, from a run; equal seeds have equal initial weights."""
    parts = make_parts(make_config(0), budget.samples)
    inputs = {name: (on_grid(part.spikes.to_latencies(), FAIR_CLOCK), part.labels) for name, part in parts.items()}

    def clock_driven(surrogate: Surrogate, run: Run) -> Model:
        generator = torch.Generator().manual_seed(run.seed)
        weights = list(tasks.build_network(make_config(run.seed), generator).parameters())
        objective = OBJECTIVES["count"] if run.tau is None else _first_spike_objective(run.tau)
        return ClockDriven(weights, None, inputs, FAIR_CLOCK, surrogate, objective)

    def event_driven(run: Run) -> Model:
        return EventDriven(make_config(run.seed, run.tau or TAUS[0]), parts, losses.first_spike_cross_entropy)

    models: dict[Pair, Callable[[Run], Model]] = {(EXACT, "first spike"): event_driven}
    for (method, surrogate), loss in itertools.product(surrogate_functions().items(), ("first spike", "count")):
        models[method, loss] = partial(clock_driven, surrogate)
    return models


def candidates(loss: str, budget: Budget) -> list[tuple[float, float | None]]:
    """Learning rates and softnesses to choose from, equally many for each loss: the count has more rates instead."""
    if loss == "count":
        return [(lr, None) for lr in budget.lrs]
    return list(itertools.product(budget.lrs[1::2], TAUS))


def _first_spike_objective(tau: float) -> Objective:
    config = make_config(0, tau)

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
    """Try every candidate for as long as a run lasts, then train several seeds with the best; for each measure."""
    models = make_models(budget)
    points: list[Point] = []
    for measure in MEASURES:
        trials = [
            Run(_stage(TUNING, measure), *pair, TUNING_SEED, *choice)
            for pair in models
            for choice in candidates(pair[1], budget)
        ]
        points += _train(trials, measure, models, budget, watch)
        runs = [
            Run(_stage(FAIR, measure), *pair, seed, best.lr, best.tau)
            for pair in models
            for best in [best_trial(points, pair, measure)]
            for seed in range(seeds)
        ]
        points += _train(runs, measure, models, budget, watch)
    return points


def _stage(stage: str, measure: str) -> str:
    return f"{stage}, equal {measure}"


def _train(
    runs: Sequence[Run], measure: str, models: Mapping[Pair, Callable[[Run], Model]], budget: Budget, watch: Watch
) -> list[Point]:
    points: list[Point] = []
    until, decay = MEASURES[measure](budget)
    for done, run in enumerate(runs, start=1):
        points += learn(models[run.method, run.loss](run), run, _order(budget, run.seed), until, decay)
        watch(Step(run.stage, done, len(runs), short(points[-1])))
    return points


def _half_wave(progress: float) -> float:
    """The factor of the learning rate, from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


Until: TypeAlias = Callable[[int, float], bool]
Decay: TypeAlias = Callable[[float, float], float]

# When a run ends, and how its learning rate falls until then.
MEASURES: dict[str, Callable[[Budget], tuple[Until, Decay]]] = {
    "samples": lambda budget: (after(budget.epochs), lambda epochs, seconds: _half_wave(epochs / budget.epochs)),
    "time": lambda budget: (after(0, budget.seconds), lambda epochs, seconds: _half_wave(seconds / budget.seconds)),
}


def best_trial(points: Sequence[Point], pair: Pair, measure: str) -> Run:
    """The tuning run with the best validation accuracy at its end."""
    runs = _runs(points, _stage(TUNING, measure), pair)
    return max(runs, key=lambda run: runs[run][-1].validation_accuracy)


def _runs(points: Sequence[Point], stage: str, pair: Pair) -> dict[Run, list[Point]]:
    """The points of each run of a stage and method, in order."""
    runs: dict[Run, list[Point]] = {}
    for point in points:
        if point.run.stage == stage and (point.run.method, point.run.loss) == pair:
            runs.setdefault(point.run, []).append(point)
    return runs


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
    """One method of the fair comparison after equal samples or equal time: its settings, and test accuracies by seed.

    trials  validation accuracy at the end of each tuning run
    """

    measure: str
    method: str
    loss: str
    lr: float
    tau: float | None
    accuracies: tuple[float, ...]
    samples: float
    seconds: float
    trials: dict[tuple[float, float | None], float]

    def as_row(self) -> dict[str, str]:
        tried = ", ".join(f"{_words(*choice)}: {accuracy:.1%}" for choice, accuracy in self.trials.items())
        return {
            "gradient": self.method,
            "loss": self.loss,
            "settings": _words(self.lr, self.tau),
            "test accuracy": mean_and_spread(self.accuracies),
            "worst seed": f"{min(self.accuracies):.1%}",
            "thousand samples": f"{self.samples / 1000:.0f}",
            "seconds": f"{self.seconds:.1f}",
            "validation of the trials": tried,
        }


def _words(lr: float, tau: float | None) -> str:
    return f"{lr:g}" if tau is None else f"{lr:g} ({tau:g})"


def summarise(points: Sequence[Point]) -> list[Summary]:
    """The fair comparison: after equal samples, then after equal time."""
    pairs = dict.fromkeys((point.run.method, point.run.loss) for point in points if point.run.stage.startswith(FAIR))
    return [_summary(points, pair, measure) for measure in MEASURES for pair in pairs]


def _summary(points: Sequence[Point], pair: Pair, measure: str) -> Summary:
    runs = _runs(points, _stage(FAIR, measure), pair)
    ends = [rows[-1] for rows in runs.values()]
    trials = _runs(points, _stage(TUNING, measure), pair)
    return Summary(
        measure,
        *pair,
        lr=ends[0].run.lr,
        tau=ends[0].run.tau,
        accuracies=tuple(point.test_accuracy for point in ends),
        samples=statistics.mean(point.samples for point in ends),
        seconds=statistics.mean(point.seconds for point in ends),
        trials={(run.lr, run.tau): rows[-1].validation_accuracy for run, rows in trials.items()},
    )


def findings(summaries: Sequence[Summary]) -> list[Finding]:
    """A line for each method and measure."""
    return [
        Finding(
            f"after equal {s.measure}: {s.method}, {s.loss}",
            FAIR,
            mean_and_spread(s.accuracies),
            statistics.mean(s.accuracies),
        )
        for s in summaries
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

Each tries {len(budget.lrs)} settings for a whole run with a seed that is not reported. The count has the learning
rates {", ".join(f"{lr:g}" for lr in budget.lrs)}. First-spike cross entropy has every second one of them, from the
second on, with a softness tau of {TAUS[0]:g} and of {TAUS[1]:g}, which stands in brackets. The one with the best
validation accuracy at the end is run with {seeds} seeds. The learning rate falls along a half cosine to 0 at the end.
"Equal samples" ends after {samples:,} ({budget.epochs} epochs), "equal time" with the first epoch that ends after
{budget.seconds:g} s of training on one core (CPU time).

With exact gradients, the spike of a label's unit that does not fire counts as later than the end of the run, the later
the lower its potential stays (`silent.missing_times`, patience {FAIR_CHANGES["patience"]:g}). Surrogate gradients reach
silent units by themselves.
"""


def start_words(start: Mapping[str, float]) -> str:
    lines = "\n".join(f"- {name}: {value:.2f}" for name, value in start.items())
    return f"""
### The same start

Spikes per sample of the test part before the first update, seed 0:

{lines}
"""


def draw_curves(points: Sequence[Point], budget: Budget) -> Figure:
    """Test accuracy of the fair runs against samples and against seconds."""
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    by_samples, by_seconds = figure.subplots(1, 2, sharey=True)
    fair = [point for point in points if point.run.stage.startswith(FAIR)]
    pairs = list(dict.fromkeys((point.run.method, point.run.loss) for point in fair))
    methods = list(dict.fromkeys(method for method, _ in pairs))
    most = budget.epochs * budget.samples / 1000
    for method, loss in pairs:
        color = INK if method == EXACT else CLASS_COLORS[methods.index(method) - 1]
        style = {"color": color, "ls": "--" if loss == "count" else "-", "label": f"{method}, {loss}"}
        runs = [_runs(points, _stage(FAIR, measure), (method, loss)) for measure in MEASURES]
        _draw_band(by_samples, runs[0], lambda point: point.samples / 1000, most, style)
        _draw_band(by_seconds, runs[1], lambda point: point.seconds, budget.seconds, style)
    by_samples.set(xlabel="thousand samples", ylabel="test accuracy", xlim=(0, most))
    by_seconds.set(xlabel="seconds of training on one core", xlim=(0, budget.seconds))
    by_samples.yaxis.set_major_formatter(PercentFormatter(1.0))
    for ax in (by_samples, by_seconds):
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *by_samples.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return figure


def _draw_band(
    ax: Axes,
    runs: Mapping[Run, Sequence[Point]],
    place: Callable[[Point], float],
    most: float,
    style: Mapping[str, Any],
) -> None:
    """Mean over the seeds as a line, their range as a band, epoch by epoch, to where all seeds are within `most`."""
    epochs = list(zip(*runs.values(), strict=False))
    kept = [group for group in epochs if max(map(place, group)) <= 1.05 * most]
    x = [statistics.mean(map(place, group)) for group in kept]
    accuracies = [[point.test_accuracy for point in group] for group in kept]
    ax.plot(x, [statistics.mean(values) for values in accuracies], lw=2.0 if style["color"] == INK else 1.2, **style)
    ax.fill_between(
        x, [min(v) for v in accuracies], [max(v) for v in accuracies], color=style["color"], alpha=0.12, lw=0
    )
