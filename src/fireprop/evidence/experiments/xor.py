"""XOR (docs/deviations.md): how often, and after how many updates, 2-4-2 learns exclusive or from a random start."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from fireprop import losses, plotting, tasks
from fireprop.evidence.experiments import published
from fireprop.evidence.experiments.plan import AS_PUBLISHED, FAIR, Plan, Step, Watch
from fireprop.evidence.experiments.report import Finding, Report
from fireprop.nn import Record, Sequential
from fireprop.plotting import GREY, INK
from fireprop.spikes import Spikes

TITLE = "XOR from random initialisations"
INITIALISATIONS, QUICK_INITIALISATIONS = 1000, 200
EVERY = 10  # initialisations between two steps of the progress bar

PUBLISHED = {
    "hidden": (4,),
    "epochs": 100,
    "batch_size": 4,
    "lr": 0.1,
    "lr_decay": 1.0,  # deviation 8: the authors' schedule never ran
    "tau_mem": 1.0 / 0.99,
    "tau_syn": 1.0,
    "t_end": 2.0,
    "t_low": 0.0,
    "t_high": 1.0,
    "bias_time": None,
    "hidden_weight": (3.0, 1.0),
    "output_weight": (2.0, 0.1),
    "tau": 0.1,
    "late_penalty": 0.0,
}


@dataclass(frozen=True)
class Setting:
    """Changes to the task's configuration, the decision rule, and both in words."""

    changes: Mapping[str, Any]
    decide: Callable[[Spikes], Tensor]
    words: str


SETTINGS = {
    AS_PUBLISHED: Setting(
        PUBLISHED,
        published.first_spike_decision,
        "the authors' configuration: initial hidden weights N(3, 1), Adam at a constant 0.1 (deviation 8), no "
        "regulariser. A sample whose outputs are both silent counts as class 0 (deviation 5). One thing is not "
        "theirs: the gradient is exact also for a hidden unit's second and later spikes (deviation 1). "
        "docs/deviations.md lists the deviations.",
    ),
    # Chosen on seeds 0 to 999; seeds 1000 to 1999 do as well: 1000 of 1000 converge, after 11.9 epochs, 60 at most.
    FAIR: Setting(
        {**PUBLISHED, "lr": 0.2, "lr_decay": 0.995, "hidden_weight": (3.5, 0.7)},
        losses.first_spike_predictions,
        "the same network, data and loss. Initial hidden weights are N(3.5, 0.7), so that fewer units start silent; "
        "Adam starts at 0.2, twice the published rate, times 0.995 from update to update. A sample whose outputs are "
        "both silent is no correct prediction.",
    ),
}
WHAT = """
## What was run

2-4-2, the four patterns as one batch, a bit b as one spike at time b; tau_syn 1, tau_mem 1/0.99, threshold 1, t_end 2;
loss: cross entropy of the first output spikes with tau 0.1; initial output weights N(2, 0.1). An initialisation has
converged at the first epoch that finds all four patterns right, before the update of that epoch, within 100 epochs: as
in the recorded experiment.
"""


@dataclass(frozen=True)
class Outcome:
    """One initialisation.

    epoch           updates made before all four patterns were right for the first time; None if they never were
    correct         patterns that were right at the end
    silent_hidden   hidden units that fire for none of the patterns at the end: no gradient reaches them
    silent_outputs  (output unit, pattern) pairs without a spike at the end, of 8
    """

    setting: str
    seed: int
    epoch: int | None
    correct: int
    silent_hidden: int
    silent_outputs: int


def run(plan: Plan, report: Report, watch: Watch) -> None:
    """Train every initialisation until it is right; an update costs a millisecond, so one after another."""
    n = plan.runs(INITIALISATIONS, QUICK_INITIALISATIONS)
    outcomes: dict[str, list[Outcome]] = {}
    for setting in plan.settings(SETTINGS):
        outcomes[setting] = _train_all(setting, n, watch)
        report.find(*_findings(setting, outcomes[setting]))
    report.say(WHAT)
    report.say("\n".join(f"- **{setting}**: {SETTINGS[setting].words}" for setting in outcomes))
    report.show_figure(
        "epochs", draw_epochs(outcomes), "Share of initialisations with all four patterns right, against updates made."
    )
    report.say(_failures(outcomes))
    report.show_figure("sample", _draw_trained(), "A trained network: spikes and potentials for the input (0, 0).")
    report.keep_rows("initialisations", [asdict(row) for rows in outcomes.values() for row in rows])


def train_one(setting: str, seed: int) -> tuple[Outcome, Sequential]:
    """Full-batch updates until all patterns are right, at most config.epochs of them; the outcome and the network."""
    config = tasks.default_config("xor", **SETTINGS[setting].changes, seed=seed)
    data, decide = tasks.load_splits(config).train, SETTINGS[setting].decide
    net = tasks.build_network(config, torch.Generator().manual_seed(config.seed))
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, config.lr_decay)
    epoch = None
    for done in range(config.epochs):
        record = net.record(data.spikes, t_end=config.t_end, stop="first_spikes", on_graze="zero")
        if bool((decide(record[-1]) == data.labels).all()):
            epoch = done
            break
        loss = losses.first_spike_cross_entropy(record[-1], data.labels, tau=config.tau)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return _outcome(setting, seed, record, data.labels, epoch), net


def _outcome(setting: str, seed: int, record: Record, labels: Tensor, epoch: int | None) -> Outcome:
    fired = torch.bincount(record[0].units, minlength=record[0].n_units)
    return Outcome(
        setting=setting,
        seed=seed,
        epoch=epoch,
        correct=int((SETTINGS[setting].decide(record[-1]) == labels).sum()),
        silent_hidden=int((fired == 0).sum()),
        silent_outputs=int(torch.isinf(record[-1].first(1)).sum()),
    )


def _train_all(setting: str, n: int, watch: Watch) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for seed in range(n):
        outcomes.append(train_one(setting, seed)[0])
        if len(outcomes) % EVERY == 0 or len(outcomes) == n:
            watch(Step(setting, len(outcomes), n, _short(outcomes)))
    return outcomes


def _epochs(outcomes: Sequence[Outcome]) -> list[int]:
    return [outcome.epoch for outcome in outcomes if outcome.epoch is not None]


def _short(outcomes: Sequence[Outcome]) -> str:
    epochs = _epochs(outcomes)
    mean = f", after {statistics.mean(epochs):.1f} epochs" if epochs else ""
    return f"{len(epochs)} of {len(outcomes)} converged{mean}"


def _findings(setting: str, outcomes: Sequence[Outcome]) -> list[Finding]:
    epochs = _epochs(outcomes)
    recorded = published.XOR
    share = len(epochs) / len(outcomes)
    findings = [
        Finding(
            "initialisations that converge within 100 epochs",
            setting,
            f"{share:.1%} ({len(epochs)} of {len(outcomes)})",
            share,
            **recorded["share"],
        )
    ]
    if epochs:
        mean, most = statistics.mean(epochs), max(epochs)
        findings += [
            Finding("mean epochs of the converged", setting, f"{mean:.1f}", mean, **recorded["mean"]),
            Finding("most epochs of the converged", setting, str(most), float(most), **recorded["most"]),
        ]
    return findings


def draw_epochs(outcomes: dict[str, list[Outcome]]) -> Figure:
    """Cumulative share of converged initialisations over the updates, a step curve per setting."""
    figure = Figure(figsize=(7.0, 3.4), layout="constrained")
    ax = figure.subplots()
    styles = {AS_PUBLISHED: (GREY, "--"), FAIR: (INK, "-")}
    for setting, rows in outcomes.items():
        epochs = np.array([np.inf if row.epoch is None else row.epoch for row in rows])
        moments = np.arange(101)
        share = (epochs[None, :] <= moments[:, None]).mean(1)
        color, line = styles[setting]
        ax.step(moments, share, where="post", color=color, ls=line, label=f"{setting}, {len(rows)} initialisations")
    ax.set(xlabel="updates", ylabel="all four patterns right", xlim=(0, 100), ylim=(0.0, 1.02))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend(loc="lower right", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_trained() -> Figure:
    _, net = train_one(FAIR, seed=0)
    config = tasks.default_config("xor", **SETTINGS[FAIR].changes)
    zeros = tasks.load_splits(config).train.spikes[0]
    with torch.no_grad():
        record = net.record(zeros, t_end=config.t_end)
    return plotting.raster_and_traces(zeros, record, class_names=tasks.TASKS["xor"].class_names)


def _failures(outcomes: dict[str, list[Outcome]]) -> str:
    lines = ["## What limits the others"]
    for setting, rows in outcomes.items():
        failed = [row for row in rows if row.epoch is None]
        if not failed:
            lines.append(f"**{setting}**: every initialisation converged.")
            continue
        dead = sum(row.silent_hidden > 0 for row in failed)
        mute = sum(row.silent_outputs > 0 for row in failed)
        seeds = ", ".join(str(row.seed) for row in failed[:20])
        lines.append(
            f"**{setting}**: {len(failed)} did not converge (seeds {seeds}). At their end {dead} of them have a hidden "
            f"unit that fires for no pattern, and {mute} an output that is silent for some pattern. A unit that does "
            "not fire has no gradient and cannot come back by itself."
        )
    return "\n\n".join(lines)
