"""Yin-Yang with weights of a few bits and times on a grid, and what the validity report says of it before:
`python -m benchmarks.quantized [--recipe NAME] [--epochs N] [--seed N]`.

A sample changes if some unit fires another number of times. It is predicted to change if the reach of the validity
report, along the change of the weights, is at most 1. The last column counts samples with another class that were not.
"""

import argparse

import torch

from fireprop import Spikes, recipes, training
from fireprop.interop import clock_driven
from fireprop.interop.quantize import on_grid, quantize
from fireprop.nn import Record
from fireprop.objectives import Objective
from fireprop.validity import validity_report

BITS = (8, 7, 6, 5, 4)
STEPS = (0.0125, 0.025, 0.05)  # of tau_mem: 1 ms where tau_mem is 80, 40 and 20 ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="first-spike")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    config = recipes.configure("yin-yang", given.recipe, seed=given.seed, epochs=given.epochs)
    trainer = training.Trainer.of(config, config.load())
    while trainer.epoch < config.epochs:
        trainer.run_epoch()
    trainer.use_best()
    data, net, t_end, objective = trainer.splits.test, trainer.net, config.t_end, config.objective()
    inputs, labels = data.spikes, data.labels
    with torch.no_grad():
        own = net.record(inputs, t_end=t_end)
        told = objective.predictions(own)
        print(f"{config.name}, {given.recipe}, seed {given.seed}: test accuracy {share(told == labels)}")
        print("| bits | accuracy | other spikes | predicted | right of these | found of those | other class | missed |")
        print("|---|---|---|---|---|---|---|---|")
        for bits in BITS:
            found = quantize(net, bits=bits)
            reach = validity_report(net, inputs, t_end=t_end, along=found.change).reach
            record = found.net.record(inputs, t_end=t_end)
            changed, predicted = other_spikes(own, record), reach <= 1.0
            both, now = float((changed & predicted).sum()), objective.predictions(record)
            print(
                f"| {bits} | {share(now == labels)} | {share(changed)} | {share(predicted)} | "
                f"{both / max(int(predicted.sum()), 1):.0%} | {both / max(int(changed.sum()), 1):.0%} | "
                f"{share(now != told)} | {int(((now != told) & ~predicted).sum())} |"
            )
        print("\n| step / tau_mem | inputs and delays on the grid | all spikes on the grid, 8 bits |\n|---|---|---|")
        for step in STEPS:
            coarse, plain = on_grid(inputs, step), quantize(net, bits=24, step=step).net
            moved = share(objective.predictions(plain.record(coarse, t_end=t_end)) == labels)
            whole = share(stepped(net, coarse, step, t_end, objective) == labels)
            print(f"| {step:g} | {moved} | {whole} |")


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
