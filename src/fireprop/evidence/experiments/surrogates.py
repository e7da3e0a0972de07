"""Exact against surrogate gradients on Yin-Yang 5-120-3: as the authors did (docs/deviations.md), and fairly."""

from dataclasses import asdict
from typing import Any

from fireprop.evidence.experiments import surrogates_fair, surrogates_published
from fireprop.evidence.experiments.learners import Budget, Point, snntorch_surrogates
from fireprop.evidence.experiments.plan import Plan, Watch
from fireprop.evidence.experiments.report import Report

TITLE = "Exact against surrogate gradients"
FULL = Budget(20, 300, (5e-3, 1e-2, 2e-2, 4e-2, 8e-2, 1.6e-1), 5, 6, 12.0, 5000)
QUICK = Budget(2, 30, (2e-3, 1e-2), 2, 2, 1.5, 1500)


def needs() -> None:
    """Raise datasets.MissingExtraError if snnTorch is missing."""
    snntorch_surrogates()


def run(plan: Plan, report: Report, watch: Watch) -> None:
    """The authors' comparison, if the plan has it, and the fair one."""
    budget = QUICK if plan.quick else FULL
    seeds = plan.runs(FULL.seeds, QUICK.seeds)
    points: list[Point] = []
    if plan.as_published:
        points = surrogates_published.run_all(budget, watch)
        rows = surrogates_published.compare(points)
        report.find(*surrogates_published.findings(rows))
        report.say(surrogates_published.words(budget))
        report.show_rows(rows)
    fair = surrogates_fair.run_all(budget, seeds, watch)
    summaries = surrogates_fair.summarise(fair)
    report.find(*surrogates_fair.findings(summaries))
    report.say(surrogates_fair.words(budget, seeds))
    for measure in surrogates_fair.MEASURES:
        report.say(f"### After equal {measure}")
        report.show_rows([summary.as_row() for summary in summaries if summary.measure == measure])
    report.say(surrogates_fair.start_words(surrogates_fair.compare_start(budget)))
    report.show_figure(
        "curves",
        surrogates_fair.draw_curves(fair, budget),
        "Test accuracy against samples and against time, fair; lines are means over the seeds, bands their range.",
    )
    report.keep_rows("points", [{**asdict(point.run), **_flat(point)} for point in [*points, *fair]])


def _flat(point: Point) -> dict[str, Any]:
    return {name: value for name, value in asdict(point).items() if name != "run"}
