"""The paper's experiments: `reproduce` runs them and writes reports, ours beside what the authors recorded.

An experiment is a function that trains what its plan asks for and fills a report; EXPERIMENTS names them all, and the
command line offers what stands there.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fireprop.evidence.experiments import insights, iris, surrogates, xor, yin_yang
from fireprop.evidence.experiments.plan import Plan, Step, Watch, watch_nothing
from fireprop.evidence.experiments.report import Finding, Report, comparison
from fireprop.runs import RunFolder

__all__ = ["EXPERIMENTS", "Experiment", "Finding", "Plan", "Report", "Step", "reproduce", "sum_up"]

ALL = "all"


@dataclass(frozen=True)
class Experiment:
    """One entry of EXPERIMENTS.

    title  heading of its report
    run    trains, measures, and fills the report
    needs  imports the optional packages of the experiment, or raises datasets.MissingExtraError
    """

    title: str
    run: Callable[[Plan, Report, Watch], None]
    needs: Callable[[], object] | None = None


EXPERIMENTS: dict[str, Experiment] = {
    "xor": Experiment(xor.TITLE, xor.run),
    "iris": Experiment(iris.TITLE, iris.run, iris.needs),
    "yin-yang": Experiment(yin_yang.TITLE, yin_yang.run),
    "surrogates": Experiment(surrogates.TITLE, surrogates.run, surrogates.needs),
    "insights": Experiment(insights.TITLE, insights.run),
}


def reproduce(
    name: str, out: Path | None = None, *, plan: Plan | None = None, watch: Callable[[str, Step], None] | None = None
) -> dict[str, Any]:
    """Run an experiment, or "all", and write its report folder.

    name   a key of EXPERIMENTS, or "all": then each has a folder of its own below `out`, and `out` a page that sums up
    out    default: runs/<name>-<date>-<time>
    plan   seeds, budget and settings; default: the full fair ones
    watch  called with the name of the experiment and the Step that it is at

    Returns what result.json holds, and the folder as "report". Raises ValueError for an unknown name,
    datasets.MissingExtraError if an optional package is missing, RunError if `out` exists and is not empty: all before
    anything is run.
    """
    if name not in (*EXPERIMENTS, ALL):
        raise ValueError(f"experiment = {name!r}: choose one of {', '.join([*EXPERIMENTS, ALL])}")
    plan = plan or Plan()
    chosen = list(EXPERIMENTS) if name == ALL else [name]
    for needs in (EXPERIMENTS[one].needs for one in chosen):
        if needs is not None:
            needs()
    folder = RunFolder.create_new(name) if out is None else RunFolder.create(out)
    folder.write_config({"experiment": name, **asdict(plan)})
    if name != ALL:
        return _run(name, folder, plan, watch) | {"report": str(folder.path)}
    results: dict[str, dict[str, Any]] = {}
    total: dict[str, Any] = {}
    for one in chosen:
        below = RunFolder.create(folder.path / one)
        below.write_config({"experiment": one, **asdict(plan)})
        results[one] = _run(one, below, plan, watch)
        total = sum_up(folder, plan, results)  # so that an interruption leaves a page about what is done
    return total | {"report": str(folder.path)}


def _run(name: str, folder: RunFolder, plan: Plan, watch: Callable[[str, Step], None] | None) -> dict[str, Any]:
    experiment = EXPERIMENTS[name]
    report = Report(folder, experiment.title, f"fireprop reproduce {name}{plan.options()}")
    start = time.perf_counter()
    experiment.run(plan, report, watch_nothing if watch is None else lambda step: watch(name, step))
    return report.write(time.perf_counter() - start)


def sum_up(folder: RunFolder, plan: Plan, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Write the page above the reports: every comparison, and where to read on. Returns what its result.json holds."""
    command = f"fireprop reproduce {ALL}{plan.options()}"
    parts = ["# The experiments of the paper", f"```sh\n{command}\n```"]
    for name, result in results.items():
        parts.append(f"## [{result['title']}]({name}/report.md)")
        parts.append(comparison([Finding(**finding) for finding in result["findings"]]))
    seconds = sum(result["seconds"] for result in results.values())
    parts.append(f"{seconds / 60:.0f} minutes of computing.")
    folder.write_page("\n\n".join(parts) + "\n")
    total = {"command": command, "seconds": seconds, "experiments": results}
    folder.write_result(total)
    return total
