"""Accuracy of the tasks' default settings over seeds: `python -m benchmarks.accuracy {yin-yang,xor,iris} [--seeds N]`.

yin-yang  test accuracy of the epoch that is best on validation; seeds 0 to 4
iris      test accuracy after the last epoch on seeded 80/20 splits; seeds 0 to 9
xor       share of initialisations that get all four patterns right within the epochs, and after how many; 200 seeds
"""

import argparse
import statistics
import time

import torch

import fireprop
from fireprop import tasks, training

DEFAULT_SEEDS = {"yin-yang": 5, "iris": 10, "xor": 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=DEFAULT_SEEDS)
    parser.add_argument("--seeds", type=int)
    arguments = parser.parse_args()
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    seeds = range(arguments.seeds or DEFAULT_SEEDS[arguments.task])
    if arguments.task == "xor":
        report_convergence([epochs_to_converge(tasks.default_config("xor", seed=seed)) for seed in seeds])
    else:
        report_accuracy([test_accuracy(tasks.default_config(arguments.task, seed=seed)) for seed in seeds])


def test_accuracy(config: tasks.Config) -> float:
    trainer = training.Trainer(config, tasks.load_splits(config))
    trainer.warm_up()
    start = time.perf_counter()
    while trainer.epoch < config.epochs:
        trainer.run_epoch()
    seconds = time.perf_counter() - start
    result = trainer.result()
    print(
        f"seed {config.seed}: test {result['test_accuracy']:.2%}, epoch {result['best_epoch']} of {config.epochs}, "
        f"{seconds:.1f} s, {result['spikes_per_sample']:.1f} spikes per sample",
        flush=True,
    )
    return float(result["test_accuracy"])


def report_accuracy(values: list[float]) -> None:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    print(f"mean {statistics.mean(values):.2%}, standard deviation {deviation:.2%}, {len(values)} seeds")


def epochs_to_converge(config: tasks.Config) -> int | None:
    """Updates before all patterns are right, or None. A run ends when they are."""
    trainer = training.Trainer(config, tasks.load_splits(config))
    for epoch in range(config.epochs):
        if trainer.run_epoch().train_accuracy == 1.0:
            return epoch
    return None


def report_convergence(values: list[int | None]) -> None:
    converged = [value for value in values if value is not None]
    print(
        f"{len(converged)} of {len(values)} initialisations converged ({len(converged) / len(values):.1%}), "
        f"after {statistics.mean(converged):.1f} epochs on average, {max(converged)} at most"
    )


if __name__ == "__main__":
    main()
