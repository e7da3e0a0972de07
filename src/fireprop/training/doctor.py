"""What a run's folder says about why it does not learn: its data, its weights, its epochs."""

from dataclasses import asdict
from typing import Any

from fireprop.diagnosis import Diagnosis, diagnose
from fireprop.diagnosis.examination import SAMPLES
from fireprop.diagnosis.measure import MAX_SPIKES
from fireprop.diagnosis.subject import subject_of
from fireprop.diagnosis.weights import learning_rate, relative_steps
from fireprop.plans import Plan
from fireprop.runs import RunError, RunFolder
from fireprop.training.memory import memory_in_words
from fireprop.training.run import BUILT, Folder, found_at, read_config
from fireprop.training.trainer import Trainer


def examine(run: Folder, *, samples: int = SAMPLES, data: str | None = None) -> Diagnosis:
    """Why a run does not learn: `fireprop.diagnose` on its training part, with its epochs and its learning rate.

    run      the folder of a run, or its path. A run that ended before its first epoch did is examined with the weights
             it started from, any other with those after its last epoch
    samples  how many training samples are run at most
    data     where the file or folder of the data lies now; None: where the run found it

    The learning rate is compared with the weights of the start. Raises as `evaluate` does.
    """
    run = RunFolder.of(run)
    if BUILT in run.read_config():
        raise RunError(
            f"{run.path}: its network was built by a program, and config.json does not describe it: call "
            "fireprop.diagnose(net, data, ...) in that program"
        )
    plan = found_at(data, read_config(run))
    with memory_in_words(plan):
        trainer = Trainer.of(plan, plan.load())
        at_start = subject_of(trainer.net)
        rates = _rates(trainer)
        steps = relative_steps(at_start, rates)
        ended = run.has_checkpoint()
        if ended:
            trainer.load_state_dict(run.load_checkpoint())
        report = diagnose(
            trainer.net, trainer.splits.train, t_end=plan.t_end, t_start=plan.t_start, objective=trainer.objective,
            history=[asdict(row) for row in trainer.metrics], samples=samples,
            max_spikes=min(plan.max_spikes, MAX_SPIKES),
        )  # fmt: skip
    facts = {"run": str(run.path), "weights": _which(plan, trainer.epoch), **report.facts}
    return Diagnosis.of([*report.findings, *learning_rate(at_start, steps)], facts)


def _rates(trainer: Trainer) -> dict[str, float]:
    """The learning rate at the start of each parameter, by its name."""
    names = {id(parameter): name for name, parameter in trainer.net.named_parameters()}
    groups: list[dict[str, Any]] = trainer.optimizer.param_groups
    return {names[id(parameter)]: float(group["lr"]) for group in groups for parameter in group["params"]}


def _which(plan: Plan, epoch: int) -> str:
    return f"after epoch {epoch} of {plan.epochs}" if epoch else "those of the start: no epoch has ended"
