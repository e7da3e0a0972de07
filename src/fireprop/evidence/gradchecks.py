"""Gradients of many random networks of every kind against central differences, as `fireprop gradcheck` checks them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fireprop import arguments
from fireprop.evidence.random_networks import KINDS, NetworkKind, random_network
from fireprop.evidence.random_networks.small import check_kind
from fireprop.gradcheck.check import check_gradients
from fireprop.gradcheck.report import GradcheckReport, merge_rows


def check_random_networks(
    n: int = 25,
    *,
    seed: int | torch.Generator = 0,
    kinds: Sequence[NetworkKind] = KINDS,
    tolerance: float = 1e-6,
    on_report: Callable[[GradcheckReport], object] | None = None,
) -> list[GradcheckReport]:
    """`check_gradients` on n random networks, with its default loss: report k is of kind kinds[k % len(kinds)].

    seed       of a generator of its own, or a generator to draw from
    kinds      of `random_network`, which take turns
    on_report  called with each report as soon as it is there, for a display that lives

    Raises ValueError for n < 1 and for a kind that is not there.

    >>> all(report.passed for report in check_random_networks(2, seed=7, kinds=["chain", "recurrent"]))
    True
    """
    arguments.integer("n", n, least=1)
    if not arguments.instance("kinds", kinds, (list, tuple), "a list of kinds of networks"):
        raise ValueError(f"kinds is empty: choose from {', '.join(KINDS)}")
    for k, kind in enumerate(kinds):
        check_kind(f"kinds[{k}]", kind)
    generator = arguments.generator("seed", seed)
    reports = []
    for k in range(n):
        net, inputs, t_end = random_network(generator, kinds[k % len(kinds)])
        reports.append(check_gradients(net, inputs, t_end=t_end, tolerance=tolerance))
        if on_report is not None:
            on_report(reports[-1])
    return reports


def check_random_chains(
    n: int = 20,
    *,
    seed: int | torch.Generator = 0,
    tolerance: float = 1e-6,
    on_report: Callable[[GradcheckReport], object] | None = None,
) -> list[GradcheckReport]:
    """`check_random_networks` of kind "chain"."""
    return check_random_networks(n, seed=seed, kinds=["chain"], tolerance=tolerance, on_report=on_report)


def summarize(reports: Sequence[GradcheckReport], kinds: Sequence[NetworkKind] = KINDS) -> GradcheckReport:
    """One report of many: a row per kind of network and kind of parameter, with the worst of each.

    kinds  of the networks, as `check_random_networks` was given them

    >>> report = summarize(check_random_networks(1, kinds=["recurrent"]), ["recurrent"])
    >>> [row.name for row in report.rows]
    ['recurrent: weight', 'recurrent: recurrent_weight', 'recurrent: v_threshold', 'recurrent: input times']
    """
    rows = [
        row
        for k, kind in enumerate(kinds)
        for row in merge_rows(
            [
                replace(row, name=f"{kind}: {row.parameter}")
                for report in reports[k :: len(kinds)]
                for row in report.rows
            ],
            lambda row: row.name,
        )
    ]
    return GradcheckReport(tuple(rows), sum(report.n_spikes for report in reports))
