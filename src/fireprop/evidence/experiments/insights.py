"""The paper's insights on small random networks, with their numbers and pictures, and the table of its claims."""

import torch

from fireprop.evidence.experiments.plan import FAIR, Plan, Step, Watch
from fireprop.evidence.experiments.report import Finding, Report
from fireprop.evidence.insights import report as insights

TITLE = "The paper's insights, claim by claim"
HEADLINES = ("largest", "power", "grid against")  # names of the numbers that stand at the top of the page


def run(plan: Plan, report: Report, watch: Watch) -> None:
    """Every insight of seed 0, drawn, and the headline numbers, the largest of all seeds. Quick is full."""
    seeds = plan.runs(full=1, quick=1)
    worst: dict[str, float] = {}
    report.say(
        "The paper makes these claims without numbers that we know of; ours are those of small random networks. Tables "
        f"and pictures are of seed 0, the comparison above is the largest of {seeds} seed{'s' * (seeds > 1)}."
    )
    for seed in range(seeds):
        watch(Step("insights", seed, seeds))
        for k, insight in enumerate(insights.run_all(torch.Generator().manual_seed(seed))):
            if seed == 0:
                report.say(f"## {insight.title}\n\n{insight.text}")
                report.show_rows(
                    [{"quantity": name, "value": _shown(value)} for name, value in insight.numbers.items()]
                )
                report.show_figure(f"insight_{k:02d}", insight.figure, insight.title)
            for name, value in insight.numbers.items():
                if name.startswith(HEADLINES) and not isinstance(value, str):
                    quantity = f"{insight.title}: {name}"
                    worst[quantity] = max(float(value), worst.get(quantity, float(value)))
    report.find(*(Finding(quantity, FAIR, _shown(value), value) for quantity, value in worst.items()))
    report.say(f"## The claims, and where each is shown\n\n{insights.claims_table()}")
    watch(Step("insights", seeds, seeds))


def _shown(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
