"""Evidence in the answers: labels whose unit is silent, outputs that say the same, a loss without a slope."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fireprop.diagnosis.measure import Activity, Case, LossRun
from fireprop.diagnosis.report import Finding, Level
from fireprop.objectives import fires

FEW_SILENT, MOST_SILENT = 0.05, 0.5  # share of the samples whose label does not fire
MOSTLY = 0.5  # share of the samples in which all outputs fire
TOGETHER = 1e-3  # of tau_mem, between the first and the last output to fire
FLAT = 1e-6  # of the loss
SMALL_LOSS = 1e-6  # nothing is left to learn
ONE_ANSWER = 0.98  # share of the samples that get the most frequent answer
FEW = 20  # samples, from which on one answer to all of them is no accident
VARIED = 0.9  # share of the most frequent label


def silent_labels(case: Case, output: Activity, labels: Tensor, run: LossRun | None) -> Iterator[Finding]:
    """Samples in which the output unit of the label does not fire, or less often than the objective asks."""
    fired = fires(output.spikes, labels)
    silent = ~(fired if run is None or run.answered is None else run.answered)
    share = float(silent.double().mean())
    if share == 0.0 or output.spikes.n_spikes == 0:
        return
    concerned = torch.unique(labels[silent]).tolist()
    lost = any(bool(silent[labels == label].all()) for label in concerned)
    level: Level = "problem" if lost or share > MOST_SILENT else "warning" if share > FEW_SILENT else "note"
    yield Finding(
        "silent-labels",
        f"In {share:.1%} of the samples the output unit of the label does not fire"
        f"{' often enough' if bool((fired & silent).any()) else ''}. The loss finds no spike to move.",
        level, "certain", share, 0.0 if level == "note" else FEW_SILENT, output.layer.name, tuple(concerned),
        tuple(case.numbers[silent].tolist()),
    )  # fmt: skip


def together(output: Activity) -> Iterator[Finding]:
    """Output units whose first spikes all come at one time, in the median sample."""
    first = output.spikes.first(1)[:, :, 0]
    fired = torch.isfinite(first).all(1)
    if first.shape[1] < 2 or float(fired.double().mean()) <= MOSTLY:
        return
    spread = float((first.amax(1) - first.amin(1))[fired].median() / output.layer.tau_mem.nanmedian())
    if spread < TOGETHER:
        yield Finding(
            "outputs-together",
            f"The first spikes of all output units come within {spread:.2g} tau_mem. Their order says nothing.",
            "problem", "likely", spread, TOGETHER, output.layer.name,
        )  # fmt: skip


def failure(error: Exception) -> Finding:
    """An objective that refuses the outputs, or the network."""
    return Finding("loss-fails", f"The loss cannot be computed: {error}.", "problem", "certain", 1.0, 0.0)


def loss(run: LossRun) -> Iterator[Finding]:
    """A loss that is no number, or that hardly depends on any weight."""
    if not math.isfinite(run.loss):
        yield Finding("loss-not-finite", f"The loss is {run.loss}.", "problem", "certain", run.loss, 0.0)
        return
    felt = max(run.scale.values(), default=0.0)
    if run.scale and run.loss > SMALL_LOSS and felt < FLAT * run.loss:
        yield Finding(
            "flat-loss",
            f"The loss is {run.loss:.3g}. A change of a layer's weights by 1 % moves it by {0.01 * felt:.2g} at "
            "most, to first order.",
            "problem", "certain", felt / run.loss, FLAT,
        )  # fmt: skip


def one_answer(run: LossRun, labels: Tensor) -> Iterator[Finding]:
    """A network that gives nearly all samples the same class, though labels vary."""
    answers = labels[:0] if run.predictions is None else run.predictions[run.predictions >= 0]
    if not answers.numel() or labels.numel() < FEW:
        return
    share, largest = (float(torch.bincount(each).max()) / labels.numel() for each in (answers, labels))
    favourite = int(torch.bincount(answers).argmax())
    if share > ONE_ANSWER and largest < VARIED:
        yield Finding(
            "one-answer",
            f"{share:.0%} of the samples get class {favourite}. The most frequent label has "
            f"{largest:.0%} of them.",
            "problem", "certain", share, ONE_ANSWER,
        )  # fmt: skip
