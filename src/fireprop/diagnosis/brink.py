"""Evidence in how near spikes are to grazes, to other spikes, and to arrivals."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fireprop.diagnosis.report import Finding
from fireprop.validity import LayerValidity

GRAZING = 0.01  # share of the near-grazes; recipes stay below 0.001
STEEP = 1e4  # 1/slope, in units of tau_mem / v_threshold; recipes stay near 100
NEAR = 0.01  # of the threshold
MOSTLY_NEAR = 0.25  # share of the spikes and peaks; recipes stay below 0.03
TIED = 1e-9  # of tau_mem
MOSTLY_TIED = 0.1  # share of the spikes; recipes have none


def steep(layers: Sequence[LayerValidity], numbers: Tensor) -> Iterator[Finding]:
    """Spikes that hardly cross the threshold: 1/slope multiplies every gradient that passes through them.

    numbers  of the samples in the data
    """
    for each in layers:
        units, samples = each.spikes.units, each.spikes.samples
        relative = each.sensitivity * (each.v_threshold / each.tau_mem)[units]
        worst = float(relative.max()) if relative.numel() else 0.0
        share = float(each.near_grazes.double().mean()) if relative.numel() else 0.0
        if worst <= STEEP and share <= GRAZING:
            continue
        these = relative > STEEP if worst > STEEP else each.near_grazes
        yield Finding(
            "steep-spikes",
            f"1/slope is up to {worst:.3g} tau_mem / v_threshold. {share:.1%} of the spikes barely reach the threshold."
            " Any step moves them far.",
            "warning", "certain", *((worst, STEEP) if worst > STEEP else (share, GRAZING)), each.name,
            tuple(torch.unique(units[these]).tolist()), tuple(torch.unique(numbers[samples[these]]).tolist()),
        )  # fmt: skip


def near_change(layers: Sequence[LayerValidity]) -> Iterator[Finding]:
    """Layers in which many spikes are about to disappear, and many peaks about to become spikes."""
    for each in layers:
        peaks = each.margin[torch.isfinite(each.margin)]
        near = int((each.clearance < NEAR).sum()) + int((peaks < NEAR).sum())
        share = near / max(each.spikes.n_spikes + peaks.numel(), 1)
        if share > MOSTLY_NEAR:
            yield Finding(
                "near-change",
                f"{share:.0%} of the spikes and silent peaks are within {NEAR:.0%} of the threshold. A small step "
                "creates or deletes them, which no gradient foresees.",
                "warning", "likely", share, MOSTLY_NEAR, each.name,
            )  # fmt: skip


def ties(layers: Sequence[LayerValidity]) -> Iterator[Finding]:
    """Spikes, or ends of refractory periods, that coincide with an arrival: their order may change at any step."""
    for each in layers:
        tau_mem = torch.where(torch.isfinite(each.tau_mem), each.tau_mem, 0.0)  # without leak exact ties alone
        tied = each.order_gap <= TIED * tau_mem[each.spikes.units]
        share = float(tied.double().mean()) if tied.numel() else 0.0
        if share > MOSTLY_TIED:
            yield Finding(
                "order-ties",
                f"{share:.0%} of the spikes, or the ends of their refractory periods, coincide with an arrival. The "
                "derivative is one-sided there.",
                "warning", "certain", share, MOSTLY_TIED, each.name,
                tuple(torch.unique(each.spikes.units[tied]).tolist()),
            )  # fmt: skip
