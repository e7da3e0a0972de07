"""Accuracy of a task's settings, or of a recipe, over seeds:
`python -m benchmarks.accuracy TASK [--recipe NAME] [--data DIR] [--seeds N] [--first SEED] [--epochs N]`.

xor     share of initialisations that get all four patterns right within the epochs, and after how many; 200 seeds
others  test accuracy of the epoch that is best on validation, of the last one where nothing validates: yin-yang and
        iris, which draws its split by the seed, mnist, fashion-mnist and nmnist, which need --data
"""

import argparse
import statistics
import time
from typing import Any

import torch

import fireprop
from benchmarks.arguments import at_least_one, in_one_line
from fireprop import recipes, tasks, training

DEFAULT_SEEDS = {"yin-yang": 5, "iris": 10, "xor": 200, "mnist": 3, "fashion-mnist": 3, "nmnist": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=DEFAULT_SEEDS)
    parser.add_argument("--recipe")
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=at_least_one)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    number = DEFAULT_SEEDS[arguments.task] if arguments.seeds is None else arguments.seeds
    changes = {name: getattr(arguments, name) for name in ("data", "epochs") if getattr(arguments, name) is not None}
    with in_one_line(parser):
        configs = [
            recipes.configure(arguments.task, arguments.recipe, seed=seed, **changes)
            for seed in range(arguments.first, arguments.first + number)
        ]
    of_seed, tell = (epochs_to_converge, report_convergence) if arguments.task == "xor" else (measure, report)
    found: list[Any] = []
    for config in configs:
        with in_one_line(parser):
            splits = config.load()
        found.append(of_seed(config, splits))
    tell(found)


def measure(config: tasks.Config, splits: tasks.Splits) -> dict[str, Any]:
    """Train one seed, print its line, and return the result of the run."""
    trainer = training.Trainer.of(config, splits)
    trainer.warm_up()
    start, start_cpu = time.perf_counter(), time.process_time()
    while trainer.epoch < config.epochs:
        trainer.run_epoch()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    result = trainer.result()
    chosen = "" if result["validation_accuracy"] is None else f", validation {result['validation_accuracy']:.2%}"
    print(
        f"seed {config.seed}: test {result['test_accuracy']:.2%}{chosen}, "
        f"epoch {result['best_epoch']} of {config.epochs}, {seconds:.1f} s ({cpu_seconds:.1f} CPU s), "
        f"{result['spikes_per_sample']:.1f} spikes per sample, "
        f"up to the decision {result['spikes_to_decision']:.1f} and {result['inputs_to_decision']:.1f} of the inputs",
        flush=True,
    )
    return {**result, "cpu_seconds": cpu_seconds}


def report(results: list[dict[str, Any]]) -> None:
    values = [row["test_accuracy"] for row in results]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    cpu_seconds, spikes = (
        statistics.mean(row[name] for row in results) for name in ("cpu_seconds", "spikes_to_decision")
    )
    print(
        f"mean {statistics.mean(values):.2%}, standard deviation {deviation:.2%}, {len(values)} seeds, "
        f"{cpu_seconds:.0f} CPU s each, {results[0]['parameters']:,} parameters, {spikes:.1f} spikes up to the decision"
    )


def epochs_to_converge(config: tasks.Config, splits: tasks.Splits) -> int | None:
    """Updates before all patterns are right, or None. A run ends when they are."""
    trainer = training.Trainer.of(config, splits)
    for epoch in range(config.epochs):
        if trainer.run_epoch().train_accuracy == 1.0:
            return epoch
    return None


def report_convergence(values: list[int | None]) -> None:
    converged = [value for value in values if value is not None]
    when = f", after {statistics.mean(converged):.1f} epochs on average, {max(converged)} at most" if converged else ""
    print(f"{len(converged)} of {len(values)} initialisations converged ({len(converged) / len(values):.1%}){when}")


if __name__ == "__main__":
    main()
