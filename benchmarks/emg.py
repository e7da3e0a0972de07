"""EMG of a hand, five blocked folds: a spiking network, logistic regression and a 1-D CNN of equal parameters.

    python -m benchmarks.emg --data DIR                     # validation: one block of the four that do not test
    python -m benchmarks.emg --data DIR --test [--seeds 3]  # trained on all four blocks, the test block read once

The settings of every method are those with the best mean validation accuracy of the first command, over the same folds.
The last command uses what was chosen (CHOSEN here, and the task's defaults). Logistic regression sees the 40 numbers
that the encoding of the network starts from, or the raw samples. The network of the CNN has two convolutions, its
channels may be scaled at random, as the jitter of the task does for spikes.
"""

import argparse
import itertools
import statistics
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.arguments import at_least_one, in_one_line
from fireprop import datasets, recipes, set_num_threads
from fireprop.datasets import emg
from fireprop.training import Trainer

CNN_GRID = {"lr": (1e-3, 3e-3), "gain": (0.0, 0.2, 0.45), "epochs": (40,)}
C_GRID = 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0
SNN_GRID = {"jitter": (0.0, 0.1, 0.2)}
CHOSEN = {"loudness": {"C": 1.0}, "raw": {"C": 0.01}, "cnn": {"lr": 3e-3, "gain": 0.45, "epochs": 40}}
FOLDS = range(emg.EMG_BLOCKS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--seeds", type=at_least_one, default=3)
    options = parser.parse_args()
    set_num_threads(1)
    torch.set_num_threads(1)
    with in_one_line(parser):
        signal, labels = datasets.load_emg_fingers(options.data)
    block = datasets.class_blocks(labels)
    features = {"loudness": datasets.loudness(signal), "raw": signal.flatten(1)}

    def parts(fold: int) -> tuple[Tensor, Tensor]:
        """Samples to train on, and those to measure."""
        place = (block - fold) % emg.EMG_BLOCKS
        return (place > 0, place == 0) if options.test else (place > 1, place == 1)

    def linear(name: str, C: float) -> list[float]:
        return [regression(features[name], labels, *parts(fold), C) for fold in FOLDS]

    def convolutions(seed: int, **settings: float) -> list[float]:
        return [cnn_accuracy(signal, labels, *parts(fold), seed, **settings) for fold in FOLDS]

    def spiking(seed: int, **changes: float) -> list[float]:
        return [snn_accuracy(options.data, fold, seed, options.test, **changes) for fold in FOLDS]

    if options.test:
        for name in features:
            say(f"logistic regression, {name}", [linear(name, **CHOSEN[name])])
        seeds = range(options.seeds)
        say(f"CNN, {size(cnn())} parameters", [convolutions(seed, **CHOSEN["cnn"]) for seed in seeds])
        say("spiking network", [spiking(seed) for seed in seeds])
        return
    for C in C_GRID:
        say(f"logistic regression, loudness, C = {C}", [linear("loudness", C)])
    for C in C_GRID[:4]:
        say(f"logistic regression, raw, C = {C}", [linear("raw", C)])
    search("CNN", CNN_GRID, convolutions)
    search("spiking network", SNN_GRID, spiking)


def search(name: str, grid: dict[str, tuple[float, ...]], measure: Callable[..., list[float]]) -> None:
    """Print the accuracy of every setting of a grid, from seed 0."""
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        say(f"{name}, {settings}", [measure(0, **settings)])


def say(name: str, runs: Iterable[list[float]]) -> None:
    """Mean over folds, its spread over seeds, and the folds, each the mean over seeds."""
    runs = list(runs)
    means = [statistics.mean(run) for run in runs]
    spread = f" ± {100 * statistics.stdev(means):.2f}" if len(runs) > 1 else ""
    folds = " ".join(f"{100 * statistics.mean(each):.1f}" for each in zip(*runs, strict=True))
    print(f"{name}: {100 * statistics.mean(means):.2f}{spread} % (folds {folds})", flush=True)


def regression(features: Tensor, labels: Tensor, train: Tensor, test: Tensor, C: float) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the raw samples have not converged
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=300))
        model.fit(features[train].numpy(), labels[train].numpy())
    return float(model.score(features[test].numpy(), labels[test].numpy()))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(8, 15, 7, stride=2), nn.ReLU(), nn.Conv1d(15, 21, 5, stride=2), nn.ReLU(), nn.AdaptiveMaxPool1d(4),
        nn.Flatten(), nn.Linear(84, 7),
    )  # fmt: skip


def size(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def cnn_accuracy(
    signal: Tensor, labels: Tensor, train: Tensor, test: Tensor, seed: int, *, lr: float, gain: float, epochs: int
) -> float:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = cnn()
    inputs = (signal / signal[train].std()).float()
    adam = torch.optim.Adam(net.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs)
    own = torch.nonzero(train)[:, 0]
    for _ in range(epochs):
        for k in own[torch.randperm(len(own), generator=generator)].split(64):
            gains = torch.exp(gain * torch.randn(len(k), 8, 1, generator=generator))
            adam.zero_grad()
            functional.cross_entropy(net(inputs[k] * gains), labels[k]).backward()
            adam.step()
        schedule.step()
    with torch.no_grad():
        return float((net(inputs[test]).argmax(1) == labels[test]).double().mean())


def snn_accuracy(data: str, fold: int, seed: int, test: bool, **changes: float) -> float:
    recipe = "blocked" if test else None
    config = recipes.configure("emg-fingers", recipe, data=data, fold=fold, seed=seed, **changes)
    trainer = Trainer.of(config, config.load())
    while trainer.epoch < config.epochs:
        trainer.run_epoch()
    part = trainer.splits.test if test else trainer.splits.validation
    assert part is not None
    return float(trainer.evaluate(part).accuracy or 0.0)  # of the last epoch: none is chosen


if __name__ == "__main__":
    main()
