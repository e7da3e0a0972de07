"""The paper's insights on small random networks, with their numbers and pictures, and the table of its claims."""

import torch

from fireprop.experiments.plan import FAIR, Plan, Step, Watch
from fireprop.experiments.report import Finding, Report
from fireprop.insights import report as insights

TITLE = "The paper's insights, claim by claim"
HEADLINES = ("largest", "power", "grid against")  # names of the numbers that stand at the top of the page


def run(plan: Plan, report: Report, watch: Watch) -> None:
    """Every insight for one seed, `plan.seeds` or 0; it takes seconds, so that a quick plan is the full one."""
    watch(Step("insights", 0, 1))
    seed = 0 if plan.seeds is None else plan.seeds
    report.say(
        "The paper makes these claims without numbers that we know of; ours are those of small random networks "
        f"(seed {seed})."
    )
    for k, insight in enumerate(insights.run_all(torch.Generator().manual_seed(seed))):
        report.say(f"## {insight.title}\n\n{insight.text}")
        report.show_rows([{"quantity": name, "value": _shown(value)} for name, value in insight.numbers.items()])
        report.show_figure(f"insight_{k:02d}", insight.figure, insight.title)
        for name, value in insight.numbers.items():
            if name.startswith(HEADLINES) and not isinstance(value, str):
                report.find(Finding(f"{insight.title}: {name}", FAIR, _shown(value), float(value)))
    report.say(f"## The claims, and where each is shown\n\n{insights.claims_table()}")
    watch(Step("insights", 1, 1))


def _shown(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
