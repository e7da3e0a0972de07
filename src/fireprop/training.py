"""Training: epochs of exact gradients, checkpoints after each, and the same weights, bit for bit, after a resume."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler

import fireprop
from fireprop import arguments, following, losses, validity
from fireprop.datasets import Augmented, SpikeDataset, yin_yang_class
from fireprop.engine import Array
from fireprop.nn import LIF, Record, Sequential
from fireprop.optim import Adam
from fireprop.ranks import ALONE, Ranks
from fireprop.recipes import configure
from fireprop.runs import RunError, RunFolder, new_path
from fireprop.spikes import Spikes
from fireprop.tasks import (
    TASKS,
    Config,
    Splits,
    build_network,
    encode,
    learning_rates,
    load_splits,
    require_data,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # loaded where pictures are drawn: it takes as long as all of fireprop

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.csv. Validation values are None where a task has no validation part.

    spikes_per_unit      mean number of spikes of a hidden unit per sample, up to the decision
    silent_units         hidden units that never fired in the epoch
    grazes               spikes of slope <= 0, through which no gradient flows
    near_graze_share     share of the spikes whose slope is below 1 % of v_threshold / tau_mem
    largest_sensitivity  largest 1/slope of all spikes of slope > 0
    spikes_created, spikes_deleted   by a step, per sample, of the steps that were followed; None if none was
    labels_silenced      share of the samples of followed steps in which the step silenced the unit of the label
    steps_shortened      steps that the guard has halved; None without a guard
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    spikes_per_unit: float
    silent_units: int
    grazes: int
    learning_rate: float
    samples_per_second: float
    near_graze_share: float | None = None
    largest_sensitivity: float | None = None
    spikes_created: float | None = None
    spikes_deleted: float | None = None
    labels_silenced: float | None = None
    steps_shortened: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """Loss, share of samples classified correctly, and mean numbers of spikes per sample.

    spikes_per_sample   of all units until every output has fired, which is how far a run goes
    spikes_to_decision  of all units up to the first spike of an output, included: what the answer needs
    inputs_to_decision  of the inputs up to then
    """

    loss: float
    accuracy: float
    spikes_per_sample: float
    spikes_to_decision: float
    inputs_to_decision: float


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `done` of the `batches` of `epoch`, the mean loss so far, and the last finished epoch.

    In several processes the loss is that of the process's own share until the epoch has ended.
    """

    epoch: int
    epochs: int
    done: int
    batches: int
    loss: float
    metrics: EpochMetrics | None


Report: TypeAlias = Callable[[Progress], None]


def train(
    run: RunFolder, *, resume: bool = False, report: Report | None = None, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """Train what the folder's configuration says, write everything into the folder, and return the result.

    run     a folder with its configuration written
    resume  go on from the folder's checkpoint, or from the start if no epoch had ended; the weights end as they would
            have without the interruption
    report  called after every batch and at the end of every epoch
    ranks   the processes that train together; each batch is split among them, and the one that leads reads and writes
            the folder. The weights are those of one process, to rounding

    After every epoch the folder has a checkpoint, so that a KeyboardInterrupt loses at most the epoch in progress.
    Raises RunError if the folder cannot be read or written.
    """
    config = ranks.from_first(lambda: read_config(run))
    state = ranks.from_first(lambda: run.load_checkpoint() if resume and run.has_checkpoint() else None)
    trainer = Trainer(config, load_splits(config), ranks)
    if state is not None:
        trainer.load_state_dict(state)
        if ranks.leads:
            run.write_metrics([asdict(row) for row in trainer.metrics])
    trainer.warm_up()
    while trainer.epoch < config.epochs:
        trainer.run_epoch(report)
        if ranks.leads:
            run.save_checkpoint(trainer.state_dict())
            run.write_metrics([asdict(row) for row in trainer.metrics])
    result = trainer.result()
    if ranks.leads:
        run.write_result(result)
        _draw(run, trainer)
    return result


def start(
    task: str, out: Path | None = None, *, recipe: str | None = None, ranks: Ranks = ALONE, **changes: Any
) -> RunFolder:
    """A new run folder with the settings of a task, changed by `changes`; `out` defaults to runs/<task>-<date>-<time>.

    recipe  one of the task's `recipes.RECIPES`, instead of its own settings
    ranks   the processes that train together; the one that leads makes the folder

    Raises ValueError for a setting that is out of range or not for several processes, datasets.MissingExtraError if the
    data need a package that is not installed, datasets.MissingDataError if their files are not there, RunError if `out`
    exists and is not empty. Until all is well it makes no folder.
    """

    def make() -> RunFolder:
        config = configure(task, recipe, **changes)
        _require_shareable(config, ranks)
        require_data(config)
        run = RunFolder.create(new_path(task) if out is None else out)
        run.write_config(config.to_dict())
        return run

    return ranks.from_first(make)


def evaluate(run: RunFolder) -> dict[str, Evaluation]:
    """The best weights of a run on every part of its data: train, validation (where there is one), test."""
    trainer = load_trained(run)
    trainer.use_best()
    splits = trainer.splits
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: trainer.evaluate(part) for name, part in parts.items() if part is not None}


def draw(run: RunFolder) -> list[Path]:
    """Draw the pictures of a run into its folder, from its checkpoint; their paths."""
    return _draw(run, load_trained(run))


def read_config(run: RunFolder) -> Config:
    """The configuration of a run. Raises RunError if it is not ours."""
    try:
        return Config.from_dict(run.read_config())
    except (ValueError, TypeError) as error:
        raise RunError(f"{run.path}: its configuration cannot be used: {error}") from error


def load_trained(run: RunFolder) -> "Trainer":
    """The state of a run after its last finished epoch."""
    config = read_config(run)
    trainer = Trainer(config, load_splits(config))
    trainer.load_state_dict(run.load_checkpoint())
    return trainer


class Trainer:
    """A network on its way: weights, optimiser, random state and what has been measured.

    In several processes each has a trainer, and calls its methods at the same point as the others.
    """

    def __init__(self, config: Config, splits: Splits, ranks: Ranks = ALONE) -> None:
        _require_shareable(config, ranks)
        self.config = config
        self.splits = splits
        self.ranks = ranks
        self.generator = torch.Generator().manual_seed(config.seed)
        self.net = build_network(config, self.generator)
        self.objective = ranks.parallel(_Objective(self.net.parameters(), self._run, self._loss))
        self.optimizer = Adam(learning_rates(config, self.net), lr=config.lr, fused=True)
        self.schedule = _schedule(config, self.optimizer)
        self.metrics: list[EpochMetrics] = []
        self.best_epoch = 0
        self.best_weights = _copy(self.net)
        self.train_seconds = 0.0
        self.compile_seconds = 0.0

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.metrics)

    def warm_up(self) -> None:
        """Compile the kernels, or load them from Numba's cache, on one sample; changes no state."""
        start = time.perf_counter()
        spikes, labels = self.splits.train[0]
        self._loss(self._run(spikes), labels.reshape(1)).backward()  # type: ignore[no-untyped-call]
        self.net.zero_grad()
        self.compile_seconds = time.perf_counter() - start

    def run_epoch(self, report: Report | None = None) -> EpochMetrics:
        """One pass over the training part, then the validation; Adam follows the exact gradient of each batch."""
        start = time.perf_counter()
        loader = self._loader()
        tally = _Tally(self.net)
        learning_rate = float(self.schedule.get_last_lr()[0])
        for done, (spikes, labels) in enumerate(loader, start=1):
            record, loss = self.objective(spikes, labels)
            step = self.epoch * len(loader) + done
            is_followed = math.floor(step * self.config.follow) > math.floor((step - 1) * self.config.follow)
            guarded = self.config.guard and is_followed
            start_weights = [p.detach().clone() for p in self.net.parameters()] if guarded else None
            self.optimizer.zero_grad()
            weight = self.ranks.weight(len(labels), self._batch_size(done))
            # Given a gradient to start from, torch would import sympy, which takes a third of a second.
            (loss if weight == 1.0 else loss * weight).backward()
            self.optimizer.step()
            if self.config.keep_alive is not None:
                self._keep_alive(spikes, self.config.keep_alive)
            tally.add(record, labels, float(loss.detach()))
            if is_followed:
                tally.follow(following.follow(self.net, self._run, spikes, labels, record, start_weights, self.ranks))
            if report:
                report(Progress(self.epoch + 1, self.config.epochs, done, len(loader), tally.mean_loss, self._last()))
        self.schedule.step()
        tally.join(self.ranks)
        seconds = time.perf_counter() - start
        validation = self.evaluate(self.splits.validation) if self.splits.validation else None
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            train_loss=tally.mean_loss,
            train_accuracy=tally.accuracy,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            spikes_per_unit=tally.spikes_per_unit,
            silent_units=tally.silent_units,
            grazes=tally.grazes,
            learning_rate=learning_rate,
            samples_per_second=tally.samples / seconds,
            near_graze_share=tally.near_graze_share,
            largest_sensitivity=tally.largest_sensitivity,
            spikes_created=tally.per_followed(tally.created),
            spikes_deleted=tally.per_followed(tally.deleted),
            labels_silenced=tally.per_followed(tally.silenced),
            steps_shortened=tally.shortened if self.config.guard else None,
        )
        self._keep_if_best(metrics)
        self.metrics.append(metrics)
        self.train_seconds += time.perf_counter() - start
        if report:
            report(Progress(self.epoch, self.config.epochs, len(loader), len(loader), tally.mean_loss, metrics))
        return metrics

    def evaluate(self, data: SpikeDataset) -> Evaluation:
        """Loss, accuracy and activity of the present weights."""
        loss = correct = 0.0
        spikes = [0, 0, 0]
        with torch.no_grad():
            # A DataLoader draws a seed even where it does not shuffle: not from torch's own generator.
            for inputs, labels in self._shares(data, SequentialSampler(data), EVALUATION_BATCH, torch.Generator()):
                record = self._run(inputs)
                loss += float(self._loss(record, labels)) * len(labels)
                correct += _n_correct(record[-1], labels)
                for k, number in enumerate(_n_spikes(inputs, record)):
                    spikes[k] += number
        return Evaluation(*(total / len(data) for total in self.ranks.sum([loss, correct, *spikes])))

    def use_best(self) -> None:
        """Give the network the weights of the best epoch."""
        self.net.load_state_dict(self.best_weights)

    def result(self) -> dict[str, Any]:
        """The outcome of the run; leaves the network with its best weights."""
        self.use_best()
        test = self.evaluate(self.splits.test)
        rates = sorted(row.samples_per_second for row in self.metrics)
        return {
            "task": self.config.task,
            "test_accuracy": test.accuracy,
            "validation_accuracy": self.metrics[self.best_epoch - 1].validation_accuracy,
            "best_epoch": self.best_epoch,
            "epochs": self.epoch,
            "train_seconds": self.train_seconds,
            "compile_seconds": self.compile_seconds,
            "samples_per_second": rates[len(rates) // 2],
            "spikes_per_sample": test.spikes_per_sample,
            "spikes_to_decision": test.spikes_to_decision,
            "inputs_to_decision": test.inputs_to_decision,
            "parameters": sum(parameter.numel() for parameter in self.net.parameters()),
            "seed": self.config.seed,
            "version": fireprop.__version__,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {
            "config": self.config.to_dict(),
            "weights": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "metrics": [asdict(row) for row in self.metrics],
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "train_seconds": self.train_seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises RunError if the state belongs to another configuration."""
        try:
            # Settings that are newer than the checkpoint, and where the files lie now, make no other configuration.
            if replace(Config.from_dict(state["config"]), data=self.config.data) != self.config:
                raise RunError("the checkpoint belongs to another configuration than config.json")
            self.net.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.generator.set_state(state["generator"])
            self.metrics = [EpochMetrics(**row) for row in state["metrics"]]
            self.best_epoch, self.best_weights = state["best_epoch"], state["best_weights"]
            self.train_seconds = state["train_seconds"]
            self._require_consistent()
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"the checkpoint is incomplete: {' '.join(str(error).split())}") from error

    def _require_consistent(self) -> None:
        """Refuse a state that no run of ours leaves behind."""
        epochs = [row.epoch for row in self.metrics]
        if epochs != list(range(1, len(epochs) + 1)) or self.epoch > self.config.epochs:
            raise ValueError(f"its epochs are {epochs[:5]} …, of {self.config.epochs}")
        if self.schedule.last_epoch != self.epoch:
            raise ValueError(f"schedule is at epoch {self.schedule.last_epoch} of {self.epoch}")
        if not 1 <= arguments.integer("best_epoch", self.best_epoch) <= self.epoch:
            raise ValueError(f"best_epoch = {self.best_epoch} of {self.epoch}")
        arguments.number("train_seconds", self.train_seconds, least=0.0)
        shapes = {name: tensor.shape for name, tensor in self.net.state_dict().items()}
        if {name: tensor.shape for name, tensor in self.best_weights.items()} != shapes:
            raise ValueError("best_weights are those of another network")
        for parameter, moments in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                if moments[name].shape != parameter.shape:
                    raise ValueError(f"optimizer has {name} of shape {tuple(moments[name].shape)}")

    def _loader(self) -> DataLoader[Any]:
        """The training part in batches, in the order of one epoch."""
        data = self._augmented() if self.config.max_shift or self.config.input_dropout else self.splits.train
        order = RandomSampler(self.splits.train, generator=self.generator)
        return self._shares(data, order, self.config.batch_size, self.generator)

    def _augmented(self) -> Augmented:
        """The training part as this epoch sees it."""
        seed = int(torch.randint(1 << 62, (), generator=self.generator))
        return Augmented(
            self.splits.train,
            seed=seed,
            max_shift=self.config.max_shift,
            drop=self.config.input_dropout,
            shape=TASKS[self.config.task].shape,
        )

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

    def _run(self, spikes: Spikes) -> Record:
        config = self.config
        options = {"on_graze": "zero", "gradient": config.gradient, "max_sensitivity": config.max_sensitivity}
        return self.net.record(spikes, t_end=self.config.t_end, stop="first_spikes", **options)

    def _whole(self, spikes: Spikes) -> Record:
        """A run to t_end, without stop."""
        with torch.no_grad():
            return self.net.record(spikes, t_end=self.config.t_end)

    def _keep_alive(self, spikes: Spikes, zeta_min: float) -> None:
        from fireprop.insights import rates  # which can draw, and loads what it needs for that

        rates.project_(self.net, spikes, self._whole(spikes), zeta_min=zeta_min)

    def _loss(self, record: Record, labels: torch.Tensor) -> torch.Tensor:
        return losses.first_spike_cross_entropy(
            record[-1],
            labels,
            tau=self.config.tau,
            late_penalty=self.config.late_penalty,
            late_tau=self.config.late_tau,
        )

    def _last(self) -> EpochMetrics | None:
        return self.metrics[-1] if self.metrics else None

    def _keep_if_best(self, metrics: EpochMetrics) -> None:
        """The best epoch has the highest validation accuracy, then the lowest loss; without validation, the last."""
        best = self.metrics[self.best_epoch - 1] if self.best_epoch else None
        if best is None or _merit(metrics) >= _merit(best):
            self.best_epoch, self.best_weights = metrics.epoch, _copy(self.net)


class _Objective(torch.nn.Module):
    """The run of a batch and its loss: what has to be one module to be wrapped for several processes.

    It has the parameters of the network without its buffers, which are constants: they would be sent in every step.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        run: Callable[[Spikes], Record],
        loss: Callable[[Record, torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList(parameters)
        self.run = run
        self.loss = loss

    def forward(self, spikes: Spikes, labels: torch.Tensor) -> tuple[Record, torch.Tensor]:
        record = self.run(spikes)
        return record, self.loss(record, labels)


def _schedule(config: Config, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, config.lr_decay)


def _require_shareable(config: Config, ranks: Ranks) -> None:
    if config.keep_alive is not None and ranks.number > 1:
        raise ValueError(
            f"keep_alive = {config.keep_alive}: it goes through a batch sample by sample, so {ranks.number} processes "
            "cannot share one: train in one process, or leave it out"
        )


def _draw(run: RunFolder, trainer: Trainer) -> list[Path]:
    """The pictures of a trained run; leaves the network with its best weights."""
    from fireprop import plotting

    trainer.use_best()
    config, test = trainer.config, trainer.splits.test
    names = TASKS[config.task].class_names
    figures = {
        "learning_curves": plotting.learning_curves([asdict(row) for row in trainer.metrics]),
        "sample": _draw_sample(trainer, names),
        "first_spikes": plotting.first_spike_histograms(
            trainer._whole(test.spikes[:EVALUATION_BATCH])[-1], test.labels[:EVALUATION_BATCH], class_names=names
        ),
    }
    if config.task == "yin-yang":
        figures["decision_map"] = _draw_decision_map(trainer, names)
    return [run.save_figure(name, figure) for name, figure in figures.items()]


def _draw_sample(trainer: Trainer, names: Sequence[str]) -> "Figure":
    from fireprop import plotting

    inputs = trainer.splits.test.spikes[0]
    return plotting.raster_and_traces(inputs, trainer._whole(inputs), class_names=names)


def _draw_decision_map(trainer: Trainer, names: Sequence[str]) -> "Figure":
    from fireprop import plotting

    def classify(features: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            record = trainer._run(encode(trainer.config, features, (0.0, 1.0)))
        return losses.first_spike_predictions(record[-1])

    features, labels = fireprop.datasets.yin_yang_splits()["test"]
    return plotting.decision_map(classify, features, labels, class_of=yin_yang_class, class_names=names)


class _Tally:
    """Sums over the batches of an epoch."""

    SUMS = (
        *("samples", "grazes", "near_grazes", "spikes", "followed", "created", "deleted", "silenced"),
        *("loss", "correct", "hidden_spikes"),
    )

    def __init__(self, net: Sequential) -> None:
        self.hidden_fired = [
            np.zeros(layer.out_features, dtype=bool) for layer in list(net)[:-1] if isinstance(layer, LIF)
        ]
        self.layers = [layer for layer in net if isinstance(layer, LIF)]
        self.samples = self.grazes = self.near_grazes = self.spikes = 0
        self.loss = self.correct = self.hidden_spikes = self.largest_sensitivity = 0.0
        self.followed = self.created = self.deleted = self.silenced = self.shortened = 0

    def add(self, record: Record, labels: torch.Tensor, loss: float) -> None:
        self.samples += len(labels)
        self.loss += loss * len(labels)
        self.correct += _n_correct(record[-1], labels)
        for layer, spikes, slopes in zip(self.layers, record, record.slopes, strict=True):
            self.spikes += spikes.n_spikes
            if spikes.n_spikes:
                self._add_slopes(layer, spikes, slopes.numpy())
        for fired, spikes in zip(self.hidden_fired, record, strict=False):
            self.hidden_spikes += spikes.n_spikes
            fired[spikes.units.numpy()] = True

    def _add_slopes(self, layer: LIF, spikes: Spikes, slopes: Array) -> None:
        """In NumPy: on a few hundred numbers, torch's overhead would be the most of it."""
        limit = validity.steepness_of_near_grazes(layer.v_threshold.detach().numpy(), layer.tau_mem.detach().numpy())
        self.near_grazes += int(np.count_nonzero(slopes < (limit[spikes.units.numpy()] if limit.ndim else limit)))
        least = float(slopes.min())
        if least <= 0.0:
            rising = slopes > 0.0
            self.grazes += int(np.count_nonzero(~rising))
            least = float(slopes[rising].min(initial=math.inf))
        self.largest_sensitivity = max(self.largest_sensitivity, 1.0 / least)

    def follow(self, effect: following.Effect) -> None:
        self.followed += effect.samples
        self.created += effect.created
        self.deleted += effect.deleted
        self.silenced += effect.silenced
        self.shortened += effect.halvings > 0

    def join(self, ranks: Ranks) -> None:
        """What all processes have seen; a shortened step is the same one in each."""
        for name, total in zip(self.SUMS, ranks.sum([getattr(self, name) for name in self.SUMS]), strict=True):
            setattr(self, name, type(getattr(self, name))(total))
        (self.largest_sensitivity,) = ranks.largest([self.largest_sensitivity])
        self.hidden_fired = [np.array(ranks.largest(fired.tolist())) > 0.0 for fired in self.hidden_fired]

    def per_followed(self, number: int) -> float | None:
        return number / self.followed if self.followed else None

    @property
    def near_graze_share(self) -> float:
        return self.near_grazes / max(self.spikes, 1)

    @property
    def mean_loss(self) -> float:
        return self.loss / self.samples

    @property
    def accuracy(self) -> float:
        return self.correct / self.samples

    @property
    def silent_units(self) -> int:
        return sum(int(np.count_nonzero(~fired)) for fired in self.hidden_fired)

    @property
    def spikes_per_unit(self) -> float:
        units = sum(fired.size for fired in self.hidden_fired)
        return self.hidden_spikes / (self.samples * units) if units else 0.0


def _n_correct(out: Spikes, labels: torch.Tensor) -> int:
    return int((losses.first_spike_predictions(out) == labels).sum())


def _n_spikes(inputs: Spikes, record: Record) -> tuple[int, int, int]:
    """Spikes of all units in the run, those of all units up to the decision, and those of the inputs up to then."""
    out = record[-1]
    decided = losses.first_spike_times(out).detach().amin(1)
    until = [int((spikes.times <= decided[spikes.samples]).sum()) for spikes in (inputs, *record)]
    return sum(layer.n_spikes for layer in record), sum(until[1:]), until[0]


def _merit(metrics: EpochMetrics) -> tuple[float, float, int]:
    if metrics.validation_accuracy is None or metrics.validation_loss is None:
        return 0.0, 0.0, metrics.epoch
    return metrics.validation_accuracy, -metrics.validation_loss, metrics.epoch


def _copy(net: Sequential) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
