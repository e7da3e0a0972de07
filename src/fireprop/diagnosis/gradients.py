"""Evidence in gradients: layers or early inputs that they do not reach, and amplification that grows without bound."""

import math
from collections.abc import Iterator, Sequence

import torch

from fireprop.diagnosis.measure import Case, Growth, LossRun
from fireprop.diagnosis.report import Finding
from fireprop.diagnosis.subject import Subject
from fireprop.nn.network import INPUT

VANISHED = 1e-6  # of the layer that moves the loss most; recipes stay above 0.1
FORGOTTEN = 1e-6  # share of the gradient that falls on the first half of the inputs; recipes stay above 0.4
EXPLODED, OVERFLOWING = 1e3, 1e6  # by how much a median sample amplifies its inputs; recipes stay below 2
GREW = 100.0  # from the first quarter of the run to the last
WORST = 3  # samples that are named


def vanishing(subject: Subject, run: LossRun, silent: set[str]) -> Iterator[Finding]:
    """Layers that fire and are trained, and whose weights hardly move the loss."""
    felt: dict[str, float] = {}
    for each in subject.synapses:
        if each.parameter in run.scale:
            felt[each.layer] = max(felt.get(each.layer, 0.0), run.scale[each.parameter])
    if not felt:
        return
    most = max(felt, key=lambda layer: felt[layer])
    for layer, size in felt.items():
        if size < VANISHED * felt[most] and layer not in silent and subject.leads_on(layer):
            share = size / felt[most]
            yield Finding(
                "gradient-vanishes",
                f"Scaling the weights of this layer moves the loss {share:.1g} times as far as scaling those of layer "
                f"{most}.",
                "warning", "certain", share, VANISHED, layer,
            )  # fmt: skip


def dead_ends(subject: Subject) -> Iterator[Finding]:
    """Layers from which no connection leads to the output, directly or by way of others."""
    for each in subject.layers:
        if not subject.leads_on(each.name):
            yield Finding(
                "dead-end", f"No connection leads from this layer to the output, layer {subject.output}.",
                "note", "certain", 0.0, 1.0, each.name,
            )  # fmt: skip


def early_inputs(run: LossRun) -> Iterator[Finding]:
    """Inputs that come too early to have an influence on the loss."""
    if run.early_share is not None and run.early_share < FORGOTTEN:
        yield Finding(
            "early-inputs",
            f"{run.early_share:.1g} of the gradient by input times falls on the first half of the inputs. The network "
            "has forgotten them when the loss reads its output.",
            "warning", "certain", run.early_share, FORGOTTEN, INPUT,
        )  # fmt: skip


def exploding(case: Case, growths: Sequence[Growth]) -> Iterator[Finding]:
    """The first layer whose spikes move far more than the inputs do."""
    for each in growths:
        known = ~torch.isnan(each.amplification)
        median = float(each.amplification[known].median()) if bool(known.any()) else 0.0
        if not median > EXPLODED:
            continue
        order = torch.argsort(torch.where(known, each.amplification, -1.0), descending=True)
        yield Finding(
            "gradient-explodes",
            f"In the median sample, a spike moves {median:.2g} times as far as the inputs.{_in_time(growths[-1])}",
            "problem" if median > OVERFLOWING else "warning", "certain", median, EXPLODED, each.layer.name,
            samples=tuple(sorted(case.numbers[order[:WORST]].tolist())),
        )  # fmt: skip
        return


def _in_time(each: Growth) -> str:
    """How fast it grows along the run, in words; empty where it does not."""
    parts = [(time, size) for time, size in each.parts if size > 0.0]
    if len(parts) < 2 or not parts[-1][1] > GREW * parts[0][1]:
        return ""
    (first, before), (last, after) = parts[0], parts[-1]
    if bool(each.layer.tau_mem.isnan().all()):
        return f" This grows by a factor of 10 every {(last - first) / math.log10(after / before):.2g} units of time."
    per_decade = (last - first) / math.log10(after / before) / float(each.layer.tau_mem.nanmedian())
    return f" This grows by a factor of 10 every {per_decade:.2g} tau_mem."
