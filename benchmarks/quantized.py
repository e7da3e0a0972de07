"""A task with weights of a few bits and times on a grid, and what the validity report says of it before:
`python -m benchmarks.quantized [TASK] [--recipe NAME] [--data DIR] [--epochs N] [--seed N] [--samples N]`.

A sample changes if some unit fires another number of times. It is predicted to change if the reach of the validity
report, along the change of the weights, is at most 1. The last column counts samples with another class that were not.
"""

import argparse
import itertools

import torch

from benchmarks.arguments import in_one_line
from fireprop import Spikes, recipes, training
from fireprop.interop import clock_driven
from fireprop.interop.quantize import Quantized, on_grid, quantize
from fireprop.nn import Record
from fireprop.objectives import Objective
from fireprop.validity import validity_report

BITS = (8, 7, 6, 5, 4)
STEPS = (0.0125, 0.025, 0.05)  # of tau_mem: 0.25, 0.5 and 1 ms where that is 20 ms
AT_ONCE = 250  # samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default="yin-yang")
    parser.add_argument("--recipe", help="default: the task's own settings")
    parser.add_argument("--data")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, help="the first ones of the test part; default all")
    given = parser.parse_args()
    with in_one_line(parser):
        config = recipes.configure(given.task, given.recipe, seed=given.seed, epochs=given.epochs, data=given.data)
        splits = config.load()
    trainer = training.Trainer.of(config, splits)
    while trainer.epoch < config.epochs:
        trainer.run_epoch()
    trainer.use_best()
    test, net, t_end, objective = trainer.splits.test, trainer.net, config.t_end, config.objective()
    n = min(given.samples or len(test), len(test))
    edges = [*range(0, n, AT_ONCE), n]
    parts = [(test.spikes[first:stop], test.labels[first:stop]) for first, stop in itertools.pairwise(edges)]
    print(f"{config.name}, {given.recipe or 'its own settings'}, seed {given.seed}, {n} test samples")
    print("| bits | accuracy | other spikes | predicted | right of these | found of those | other class | missed |")
    print("|---|---|---|---|---|---|---|---|")
    for bits in BITS:
        found = quantize(net, bits=bits)
        rows = [of_bits(net, found, inputs, labels, t_end, objective) for inputs, labels in parts]
        before, right, changed, predicted, other = map(torch.cat, zip(*rows, strict=True))
        if bits == BITS[0]:
            print(f"| float | {share(before)} | | | | | | |")
        both = float((changed & predicted).sum())
        print(
            f"| {bits} | {share(right)} | {share(changed)} | {share(predicted)} | "
            f"{both / max(int(predicted.sum()), 1):.0%} | {both / max(int(changed.sum()), 1):.0%} | "
            f"{share(other)} | {int((other & ~predicted).sum())} |",
            flush=True,
        )
    print("\n| step / tau_mem | inputs and delays on the grid | all spikes on the grid, 8 bits |\n|---|---|---|")
    for share_of_tau in STEPS:
        step, moved, whole = share_of_tau * config.tau_mem, [], []
        for inputs, labels in parts:
            coarse, plain = on_grid(inputs, step), quantize(net, bits=24, step=step).net
            moved.append(told(plain, coarse, t_end, objective) == labels)
            whole.append(stepped(net, coarse, step, t_end, objective) == labels)
        print(f"| {share_of_tau:g} | {share(torch.cat(moved))} | {share(torch.cat(whole))} |", flush=True)


def of_bits(
    net: torch.nn.Module, found: Quantized, inputs: Spikes, labels: torch.Tensor, t_end: float, objective: Objective
) -> tuple[torch.Tensor, ...]:
    """Of each sample, (batch,) bool: right before; right after; a count changes; predicted to; another class."""
    with torch.no_grad():
        own, coarse = (each.record(inputs, t_end=t_end) for each in (net, found.net))
        reach = validity_report(net, inputs, t_end=t_end, along=found.change).reach
    before, after = objective.predictions(own), objective.predictions(coarse)
    return before == labels, after == labels, other_spikes(own, coarse), reach <= 1.0, before != after


def told(net: torch.nn.Module, inputs: Spikes, t_end: float, objective: Objective) -> torch.Tensor:
    with torch.no_grad():
        return objective.predictions(net.record(inputs, t_end=t_end))


def stepped(net: torch.nn.Module, inputs: Spikes, step: float, t_end: float, objective: Objective) -> torch.Tensor:
    """What a network of 8 bits tells if all spikes lie on a grid."""
    layers = clock_driven.simulate(quantize(net, step=step).net, inputs, t_end=t_end, dt=step)
    return objective.predictions(Record(layers, ()))


def other_spikes(mine: Record, theirs: Record) -> torch.Tensor:
    """(batch,) bool: whether some unit fires another number of times."""
    parts = [(a.counts() != b.counts()).any(1) for a, b in zip(mine, theirs, strict=True)]
    return torch.stack(parts).any(0)


def share(mask: torch.Tensor) -> str:
    return f"{float(mask.double().mean()):.2%}"


if __name__ == "__main__":
    main()
