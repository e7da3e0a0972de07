"""A network on its way: the loop over the batches of an epoch, what it minimises, and its state for a checkpoint."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler

import fireprop
from fireprop import arguments, following
from fireprop.datasets import Augmented, SpikeDataset
from fireprop.engine import DEFAULT_MAX_SPIKES
from fireprop.nn import LIF, Record, Sequential, Trace
from fireprop.nn.constants import is_of_constant, trained_by_logarithm
from fireprop.nn.stop import Stop
from fireprop.objectives import Objective
from fireprop.optim import Adam
from fireprop.plans import Plan, Settings, Splits
from fireprop.ranks import ALONE, Ranks
from fireprop.runs import RunError
from fireprop.silent import project_
from fireprop.spikes import Spikes
from fireprop.training import runaway
from fireprop.training.agreement import (
    outline_of_data,
    require_same_config,
    require_same_data,
    require_same_objective,
    require_same_state,
    require_same_weights,
)
from fireprop.training.draws import drawing_again, draws_of, evaluating, go_on_from
from fireprop.training.interrupts import Interrupts
from fireprop.training.metrics import EpochMetrics, Evaluation, Tally, add_measures, n_correct, n_spikes
from fireprop.training.truncation import InChunks, Truncation

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `done` of the `batches` of `epoch`, the mean loss so far, and the last finished epoch.

    In several processes the loss is that of the process's own share until the epoch has ended.
    Before the kernels are compiled, `done` is 0 and the loss nan.

    warning  at the end of an epoch in which samples fired far more often than usual: what happened, and what to do
    """

    epoch: int
    epochs: int
    done: int
    batches: int
    loss: float
    metrics: EpochMetrics | None
    warning: str | None = None


Report: TypeAlias = Callable[[Progress], None]
Own = TypeVar("Own", bound="Trainer")


class Trainer:
    """A network on its way: weights, optimiser, random state and what has been measured.

    net        any module from `Spikes` to `Spikes`, to the `Trace` of an `nn.LI`, or to a `Record`. Those of
               `fireprop.nn` are asked for the record of a run, with the settings of the run. A module of the caller's
               own is called as net(inputs, t_end=t_end)
    splits     the samples to train, validate and test on
    objective  what the network is trained for: one of `fireprop.objectives`, or a subclass of `Objective`
    config     how it is trained: `plans.Settings`, or those of a `Plan`, which `Trainer.of` follows
    generator  of the order of samples, and of what augmentation draws. Default: a new one with the seed of config
    ranks      the processes that train together

    In several processes each has a trainer, and calls its methods at the same point as the others. Raises
    ranks.RankError if the processes have different settings, objectives or data, or start an epoch in different states.
    Raises ValueError for a setting that does not fit the network, the objective or several processes.

    interrupts  asked between batches, evaluation included; `training.train` and `fit` set those that watch for Ctrl-C
    """

    def __init__(
        self,
        net: torch.nn.Module,
        splits: Splits,
        objective: Objective,
        config: Settings,
        *,
        generator: torch.Generator | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.net = arguments.instance("net", net, torch.nn.Module, "a torch module from Spikes to Spikes or a Trace")
        self.splits = arguments.instance("splits", splits, Splits, "fireprop.plans.Splits")
        self.objective = arguments.instance("objective", objective, Objective, "an objective of fireprop.objectives")
        self.config = arguments.instance("config", config, Settings, "fireprop.plans.Settings")
        self.ranks = ranks
        self.interrupts = Interrupts()
        require_shareable(config, ranks)
        _require_fitting(config, net, objective)
        require_same_config(ranks, config)
        require_same_objective(ranks, objective)
        require_same_data(ranks, splits)
        require_same_weights(ranks, net)
        self._agreed = False
        self._truncation = None if config.truncate is None else Truncation(net, objective, config)
        self.generator = torch.Generator().manual_seed(config.seed) if generator is None else generator
        self.step = ranks.parallel(_Step(self.net.parameters(), self.run, self._training_loss))
        self.optimizer = Adam(_rates(config, self.net), lr=config.lr, fused=True)
        self.schedule = _schedule(config, self.optimizer)
        self.metrics: list[EpochMetrics] = []
        self.best_epoch = 0
        self.best_weights = _copy(self.net)
        self.train_seconds = 0.0
        self.compile_seconds = 0.0

    @classmethod
    def of(cls: type[Own], plan: Plan, splits: Splits, ranks: Ranks = ALONE) -> Own:
        """A trainer of the network and the objective of a plan. The seed draws weights, then orders of samples."""
        generator = torch.Generator().manual_seed(plan.seed)
        return cls(plan.build(splits, generator), splits, plan.objective(), plan, generator=generator, ranks=ranks)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.metrics)

    def warm_up(self) -> None:
        """Compile the kernels, or load them from Numba's cache, on one sample; changes no state."""
        start = time.perf_counter()
        spikes, labels = self.splits.train[0]
        with evaluating(self.net):
            loss = self.loss(spikes, self.run(spikes), labels.reshape(1))
            self._require_gradient(loss)
            loss.backward()  # type: ignore[no-untyped-call]
        self.net.zero_grad()
        self.compile_seconds = time.perf_counter() - start

    def run_epoch(self, report: Report | None = None) -> EpochMetrics:
        """One pass over the training part, then the validation; Adam follows the exact gradient of each batch."""
        self._require_agreement()
        start = time.perf_counter()
        loader = self.loader()
        tally = Tally(self.net, self.objective)
        learning_rate = self._learning_rate()
        for done, (spikes, labels) in enumerate(loader, start=1):
            self.interrupts.check()
            step = self.epoch * len(loader) + done
            is_followed = math.floor(step * self.config.follow) > math.floor((step - 1) * self.config.follow)
            draws = draws_of(self.net) if is_followed else []
            record, loss = self.step(spikes, labels)
            self._require_gradient(loss)
            guarded = self.config.guard and is_followed
            start_weights = [p.detach().clone() for p in self.net.parameters()] if guarded else None
            self.optimizer.zero_grad()
            weight = self.ranks.weight(len(labels), self._batch_size(done))
            # Given a gradient to start from, torch would import sympy, which takes a third of a second.
            (loss if weight == 1.0 else loss * weight).backward()
            self._require_gradients()
            self._update(step)
            if self.config.keep_alive is not None:
                self._keep_alive(spikes, self.config.keep_alive)
            tally.add(record, labels, float(loss.detach()), record.activity if isinstance(record, InChunks) else None)
            if is_followed:
                batch = spikes, labels, record, start_weights
                again = partial(self._run_again, draws)
                tally.follow(following.follow(self.net, again, *batch, self.ranks, self.objective.answers))
            if report:
                report(Progress(self.epoch + 1, self.config.epochs, done, len(loader), tally.mean_loss, self._last()))
        self.schedule.step()
        tally.join(self.ranks)
        seconds = time.perf_counter() - start
        validation = self.evaluate(self.splits.validation) if self.splits.validation else None
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            **tally.measured(),
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            learning_rate=learning_rate,
            samples_per_second=tally.samples / seconds,
            steps_shortened=tally.shortened if self.config.guard else None,
        )
        warning = runaway.warning(self.metrics, metrics, tally.spikes_of_samples)
        self._keep_if_best(metrics)
        self.metrics.append(metrics)
        self.train_seconds += time.perf_counter() - start
        if report:
            done = len(loader)
            report(Progress(self.epoch, self.config.epochs, done, done, tally.mean_loss, metrics, warning))
        return metrics

    def _require_gradient(self, loss: Any) -> None:
        """Refuse what an objective returned if no step can follow from it."""
        what = f"the loss of objective {self.objective.name}"
        arguments.instance(what, loss, torch.Tensor, "a tensor with one number")
        if loss.numel() != 1:
            raise ValueError(f"{what} has shape {tuple(loss.shape)}: give one number, the mean over the batch")
        if loss.requires_grad:
            return
        if not any(parameter.requires_grad for parameter in self.net.parameters()):
            raise ValueError("net has no parameter that requires a gradient: call net.requires_grad_(True)")
        raise ValueError(f"{what} does not depend on the weights: compute it from the spikes of the record")

    def _require_gradients(self) -> None:
        """Refuse a parameter of which DistributedDataParallel waits in vain for a gradient."""
        if self.ranks.number == 1:
            return
        for name, parameter in self.net.named_parameters():
            if parameter.requires_grad and parameter.grad is None:
                raise ValueError(
                    f"net.{name} gets no gradient from the loss: with several processes, call "
                    f"net.{name}.requires_grad_(False), or use it"
                )

    def _update(self, step: int) -> None:
        """Follow the gradient, in step `step` of the run."""
        config = self.config
        if config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), config.clip, error_if_nonfinite=True)
        if step >= config.warmup:
            self.optimizer.step()
            return
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] *= step / config.warmup
        self.optimizer.step()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _run_again(self, draws: list[torch.Tensor], spikes: Spikes, labels: torch.Tensor) -> Record:
        """A run whose modules draw what they drew in an earlier one."""
        with drawing_again(self.net, draws):
            return self.run(spikes, labels)

    def evaluate(self, data: SpikeDataset) -> Evaluation:
        """Loss, accuracy and activity of the present weights, in evaluation mode."""
        loss = correct = 0.0
        spikes = [0, 0, 0]
        measures: dict[str, float] = {}
        with torch.no_grad(), evaluating(self.net):
            # A DataLoader draws a seed even where it does not shuffle: not from torch's own generator.
            for inputs, labels in self._shares(data, SequentialSampler(data), EVALUATION_BATCH, torch.Generator()):
                self.interrupts.check()
                record = self.run(inputs, labels)
                loss += float(self.loss(inputs, record, labels)) * len(labels)
                correct += n_correct(self.objective, record, labels) or 0
                for k, number in enumerate(self._n_spikes(inputs, record)):
                    spikes[k] += number
                add_measures(measures, self.objective, record, labels)
        sums = self.ranks.sum([loss, correct, *spikes, *measures.values()])
        loss, correct, *means = (total / len(data) for total in sums)
        accuracy = correct if self.objective.has_classes else None
        return Evaluation(loss, accuracy, means[0], means[1], means[2], dict(zip(measures, means[3:], strict=True)))

    def use_best(self) -> None:
        """Give the network the weights of the best epoch."""
        self.net.load_state_dict(self.best_weights)

    def result(self, *, test: bool = True) -> dict[str, Any]:
        """The outcome of the run; leaves the network with its best weights.

        test  False: leave the test part unread. The test accuracy then is None, and the spikes are those of the
              validation part, or of the training part where there is none
        """
        self.use_best()
        measured = self.evaluate(self.splits.test if test else self.splits.validation or self.splits.train)
        best = self.metrics[self.best_epoch - 1]
        rates = sorted(row.samples_per_second for row in self.metrics)
        *hidden, outputs = self._widths()
        return {
            "task": self.config.name,
            "test_accuracy": measured.accuracy if test else None,
            "test_loss": measured.loss if test else None,
            "test_measures": measured.measures if test else {},
            "validation_accuracy": best.validation_accuracy,
            "best_epoch": self.best_epoch,
            "epochs": self.epoch,
            "train_seconds": self.train_seconds,
            "compile_seconds": self.compile_seconds,
            "samples_per_second": rates[len(rates) // 2],
            "spikes_per_sample": measured.spikes_per_sample,
            "spikes_to_decision": measured.spikes_to_decision,
            "inputs_to_decision": measured.inputs_to_decision,
            "parameters": sum(parameter.numel() for parameter in self.net.parameters()),
            "units": {"hidden": hidden, "outputs": outputs},
            "silent": {"best_epoch": best.silence(), "last_epoch": self.metrics[-1].silence()},
            "seed": self.config.seed,
            "version": fireprop.__version__,
        }

    def _widths(self) -> list[int]:
        """Units of each layer that fires, and of the output."""
        with torch.no_grad(), evaluating(self.net):
            record = self.run(self.splits.train.spikes[:1])
        if isinstance(record, InChunks):
            firing = [fired.size for fired in record.activity.fired]
        else:
            firing = [layer.n_units for layer in record.spikes]
        hidden = firing[:-1] if isinstance(record[-1], Spikes) else firing
        return [*hidden, record[-1].n_units]

    def _n_spikes(self, inputs: Spikes, record: Record) -> tuple[int, int, int]:
        found = n_spikes(self.objective, inputs, record)
        if not isinstance(record, InChunks) or record.complete:
            return found
        total = sum(record.activity.spikes_of_layers)  # the decision is at the end of the run
        return total, total, found[2]

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {
            "config": self.config.to_dict(),
            "objective": self.objective.describe(),
            "weights": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "draws": draws_of(self.net),
            "metrics": [asdict(row) for row in self.metrics],
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "train_seconds": self.train_seconds,
            "data": outline_of_data(self.splits),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises RunError if the state belongs to another configuration."""
        try:
            if not self._is_of(state["config"]):
                here, there, name = self.config.to_dict(), state["config"], differing(state["config"], self.config)
                raise RunError(
                    f"the checkpoint and config.json have different configurations ({name} = {there.get(name)!r} "
                    f"there, {here.get(name)!r} here): restore the config.json of this run, or give the trainer the "
                    "settings of the checkpoint"
                )
            own = self.objective.describe()
            if state.get("objective", own) != own:  # older versions had one objective
                raise RunError(
                    f"the checkpoint has the objective {state['objective']}, this trainer {own}: give that one"
                )
            self._require_own_network(state["weights"], "weights")
            self._require_own_network(state["best_weights"], "best_weights")
            self.net.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            _require_like({"generator": self.generator.get_state()}, {"generator": state["generator"]}, "state")
            self.generator.set_state(state["generator"])
            self.metrics = [EpochMetrics.checked(**row) for row in state["metrics"]]
            self.best_epoch, self.best_weights = state["best_epoch"], state["best_weights"]
            self.train_seconds = state["train_seconds"]
            self._require_consistent()
            self._agreed = False
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"the checkpoint is damaged ({' '.join(str(error).split())}): train again into a new folder"
            ) from error

    def draw_on(self, state: Mapping[str, Any]) -> None:
        """Let the modules of the network draw as they would have after a checkpoint, if it says so."""
        wanted = draws_of(self.net)
        found = state.get("draws", wanted)
        if self.ranks.number > 1 or [*map(_form, found)] != [*map(_form, wanted)]:
            return  # each process draws for itself; an older version, or another torch, has other generators
        go_on_from(self.net, found)

    def _is_of(self, config: Any) -> bool:
        """Whether a checkpoint has this configuration; settings that are newer than it make no other one."""
        kind = type(self.config)
        if isinstance(config, Mapping) and config.get("task") != self.config.to_dict().get("task"):
            return False  # of another task, whose settings `from_dict` would not know
        return self.config.continues(kind.from_dict(config))

    def _require_own_network(self, weights: Mapping[str, Any], name: str) -> None:
        try:
            _require_like(self.net.state_dict(), weights, name)
        except ValueError as error:
            raise RunError(
                f"the checkpoint is damaged, or of another network ({error}): build the network of this run, or train "
                "again into a new folder"
            ) from error

    def _require_consistent(self) -> None:
        """Refuse a state that no run of ours leaves behind."""
        epochs = [row.epoch for row in self.metrics]
        if epochs != list(range(1, len(epochs) + 1)) or self.epoch > self.config.epochs:
            raise ValueError(f"metrics has the epochs {epochs[:5]} …, expected 1 to {self.config.epochs}")
        if self.schedule.last_epoch != self.epoch:
            raise ValueError(f"the schedule is at epoch {self.schedule.last_epoch}, the run at epoch {self.epoch}")
        if not 1 <= arguments.integer("best_epoch", self.best_epoch) <= self.epoch:
            raise ValueError(f"best_epoch = {self.best_epoch} is not in 1 to {self.epoch}")
        arguments.number("train_seconds", self.train_seconds, least=0.0)
        for k, (parameter, moments) in enumerate(self.optimizer.state.items()):
            wanted = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
            _require_like(wanted, moments, f"optimizer.state[{k}]")

    def _require_agreement(self) -> None:
        """Once, before the first epoch of a run, and of one that goes on."""
        if not self._agreed:
            require_same_state(self.ranks, self.epoch, self.net, self.state_dict())
            self._agreed = True

    def start(self) -> Progress:
        """Where the run stands before its next epoch."""
        batches = math.ceil(len(self.splits.train) / self.config.batch_size)
        return Progress(self.epoch + 1, self.config.epochs, 0, batches, math.nan, self._last())

    def loader(self) -> DataLoader[Any]:
        """The training part in batches, in the order of one epoch."""
        changes = self.config.augmentation()
        data = self._augmented(changes) if changes else self.splits.train
        order = RandomSampler(self.splits.train, generator=self.generator)
        return self._shares(data, order, self.config.batch_size, self.generator)

    def run(self, spikes: Spikes, labels: torch.Tensor | None = None) -> Record:
        """A run as far as the objective needs it, which is what training sees; the output is the last layer.

        labels  (batch,), where they are known: the run may then end earlier
        """
        if self._truncation is not None and (cuts := self._truncation.cuts(spikes)):
            return self._truncation.run(spikes, cuts)
        objective = self.objective
        return self._record(spikes, objective.stop if labels is None else objective.stop_for(labels))

    def run_whole(self, spikes: Spikes) -> Record:
        """A run to t_end, without stop and without gradients, in evaluation mode."""
        with torch.no_grad(), evaluating(self.net):
            return self.run_to_end(spikes)

    def run_to_end(self, spikes: Spikes) -> Record:
        """A run to t_end, without stop."""
        return self._record(spikes, None)

    def _record(self, spikes: Spikes, stop: Stop) -> Record:
        config, net = self.config, cast(Any, self.net)
        if hasattr(net, "record"):
            record: Record = net.record(
                spikes, t_end=config.t_end, t_start=config.t_start, stop=stop, on_graze="zero",
                gradient=config.gradient, max_sensitivity=config.max_sensitivity, max_spikes=config.max_spikes,
            )  # fmt: skip
            return record.with_output_last()
        out = net(spikes, t_end=config.t_end)
        wanted = "a network that returns fireprop.Spikes, a Trace of nn.LI or a Record"
        arguments.instance("what net returns", out, (Record, Spikes, Trace), wanted)
        return out if isinstance(out, Record) else Record((out,), (), places=(None,))

    def loss(self, spikes: Spikes, record: Record, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a run of these inputs, as the objective has it."""
        return self.objective.loss_of_run(self.net, spikes, record, labels, t_start=self.config.t_start)

    def _training_loss(self, spikes: Spikes, record: Record, labels: torch.Tensor) -> torch.Tensor:
        objective = self.objective.at(self.epoch + 1)
        return objective.loss_of_run(self.net, spikes, record, labels, t_start=self.config.t_start)

    def _augmented(self, changes: Mapping[str, Any]) -> Augmented:
        """The training part as this epoch sees it."""
        seed = int(torch.randint(1 << 62, (), generator=self.generator))
        return Augmented(self.splits.train, seed=seed, **changes)

    def _shares(
        self, data: SpikeDataset | Augmented, order: Sampler[int], batch_size: int, generator: torch.Generator
    ) -> DataLoader[Any]:
        """This process's share of every batch."""
        batches = self.ranks.batches(BatchSampler(order, batch_size, drop_last=False))
        return DataLoader(data, batch_sampler=batches, generator=generator, collate_fn=SpikeDataset.collate)

    def _batch_size(self, number: int) -> int:
        """Samples of a batch, counted from 1, in all processes together: the last batch may be smaller."""
        size = self.config.batch_size
        return min(size, len(self.splits.train) - (number - 1) * size)

    def _keep_alive(self, spikes: Spikes, zeta_min: float) -> None:
        project_(cast(Any, self.net), spikes, self.run_whole(spikes), zeta_min=zeta_min)

    def _learning_rate(self) -> float:
        """That of the weights now, in the units of config.lr."""
        rate = float(self.schedule.get_last_lr()[0])
        return self.config.lr * rate / float(self.schedule.base_lrs[0]) if self.config.relative_lr else rate

    def _last(self) -> EpochMetrics | None:
        return self.metrics[-1] if self.metrics else None

    def _keep_if_best(self, metrics: EpochMetrics) -> None:
        """The best epoch has the highest validation accuracy, then the lowest loss; without validation, the last."""
        best = self.metrics[self.best_epoch - 1] if self.best_epoch else None
        if best is None or _merit(metrics) >= _merit(best):
            self.best_epoch, self.best_weights = metrics.epoch, _copy(self.net)


class _Step(torch.nn.Module):
    """The run of a batch and its loss: what has to be one module to be wrapped for several processes.

    It has the parameters of the network without its buffers, which are constants: they would be sent in every step.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        run: Callable[[Spikes, torch.Tensor], Record],
        loss: Callable[[Spikes, Record, torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList(parameters)
        self.run = run
        self.loss = loss

    def forward(self, spikes: Spikes, labels: torch.Tensor) -> tuple[Record, torch.Tensor]:
        record = self.run(spikes, labels)
        return record, self.loss(spikes, record, labels)


def _rates(config: Settings, net: torch.nn.Module) -> list[dict[str, Any]]:
    """The parameters of a network in groups for an optimiser: weights, then constants, if any is trained."""
    named = dict(net.named_parameters())
    constants = {name: parameter for name, parameter in named.items() if is_of_constant(name)}
    weights = {name: parameter for name, parameter in named.items() if name not in constants}
    rate = config.lr if config.constants_lr is None else config.constants_lr
    groups = [(weights, config.lr), *([(constants, rate)] if constants else [])]
    if not config.relative_lr:
        return [{"params": list(group.values()), "lr": lr} for group, lr in groups]
    logarithms = trained_by_logarithm(net)
    return [
        {"params": [parameter], "lr": lr * (1.0 if name in logarithms else config.unit_of_rate(name, parameter))}
        for group, lr in groups
        for name, parameter in group.items()
    ]


def _schedule(config: Settings, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, config.lr_decay)


def differing(found: Mapping[str, Any], config: Settings) -> str:
    """The first setting of which a file has another value than `config`, the task before others; empty for none."""
    own = config.to_dict()
    names = sorted({**own, **found}, key=lambda name: name != "task")
    return next((name for name in names if name != "data" and found.get(name) != own.get(name)), "")


def require_shareable(config: Settings, ranks: Ranks) -> None:
    """Refuse what several processes cannot share."""
    if config.keep_alive is not None and ranks.number > 1:
        raise ValueError(
            f"keep_alive = {config.keep_alive}: homeostasis needs one process, but there are {ranks.number}: train in "
            "one process, or leave keep_alive out"
        )


def _require_fitting(config: Settings, net: torch.nn.Module, objective: Objective) -> None:
    """Refuse settings that need something that the network or the objective has not."""
    if not isinstance(getattr(objective, "name", None), str):
        raise TypeError(f'objective: {type(objective).__name__} has no name, give the class one: name = "..."')
    if config.guard and not (objective.has_classes and objective.reads is Spikes):
        raise ValueError(
            f"guard = True: objective {objective.name} has no output unit of a label that could fall silent; leave "
            "guard out"
        )
    if type(net).forward is torch.nn.Sequential.forward and not hasattr(net, "record"):
        raise TypeError(
            "net is a torch.nn.Sequential, which hands no t_end to its layers: give fireprop.nn.Sequential(*net)"
        )
    own = {"gradient": "adjoint", "max_sensitivity": None, "t_start": None, "max_spikes": DEFAULT_MAX_SPIKES}
    for name, plain in own.items():
        if not hasattr(net, "record") and getattr(config, name) != plain:
            raise ValueError(
                f"{name} = {getattr(config, name)!r}: a {type(net).__name__} is called as net(inputs, t_end=t_end) and "
                "does not get it: leave it out, or give the network a method record with the options of nn.LIF.record"
            )
    layers = list(net) if isinstance(net, Sequential) else [net]
    odd = next((layer for layer in layers if not isinstance(layer, LIF)), None)
    if config.keep_alive is not None and odd is not None:
        raise ValueError(
            f"keep_alive = {config.keep_alive}: homeostasis needs a LIF or a Sequential of LIF layers, but the network "
            f"has a {type(odd).__name__}: leave keep_alive out"
        )


def _merit(metrics: EpochMetrics) -> tuple[float, float, int]:
    """Without classes the accuracy is the same in every epoch, so the loss decides."""
    if metrics.validation_loss is None:
        return 0.0, 0.0, metrics.epoch
    return metrics.validation_accuracy or 0.0, -metrics.validation_loss, metrics.epoch


def _require_like(wanted: Mapping[str, torch.Tensor], found: Mapping[str, Any], name: str) -> None:
    """Refuse tensors that are no dense ones of the same kind, shape and device: torch fails late on some of them."""
    if found.keys() != wanted.keys():
        raise ValueError(f"{name} has the entries {list(found)[:10]}: expected {list(wanted)[:10]}")
    for key, tensor in wanted.items():
        if _form(found[key]) != _form(tensor):
            raise ValueError(f"{name}[{key!r}] is {_form(found[key])}: expected {_form(tensor)}")


def _form(tensor: Any) -> str:
    if not isinstance(tensor, torch.Tensor):
        return f"a {type(tensor).__name__}"
    if tensor.is_nested:
        return "a nested tensor"
    kind = str(tensor.layout).removeprefix("torch.").replace("strided", "dense")
    return f"a {kind} tensor of {tensor.dtype} and shape {tuple(tensor.shape)} on {tensor.device.type}"


def _copy(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    weights = net.state_dict()  # whose metadata stay
    for name, tensor in weights.items():
        weights[name] = tensor.detach().clone()
    return weights
