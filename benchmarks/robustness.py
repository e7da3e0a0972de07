"""How many training runs end well, over seeds and learning rates: what keeps exact gradients from collapsing.

    python -m benchmarks.robustness [--seeds 20] [--epochs 80] [--only "a constant rate" ...]

Yin-Yang, 5-120-3, the network of the fair comparison with first spikes and a softmax of one grid step's width, batches
of 150. Each line adds one thing to the one before it, and gives the share of the runs that end within 2 % of the best
run of the line, and the mean, by validation accuracy in the last epoch. The test part is not read.
"""

import argparse
import itertools
import statistics

import torch

from fireprop import set_num_threads, tasks
from fireprop.evidence.experiments.learners import BATCH
from fireprop.evidence.experiments.surrogates_fair import FAIR_CHANGES, TAUS
from fireprop.training import Trainer

RATES = 4e-3, 1.2e-2, 4e-2, 1.2e-1  # a factor of 30
NEAR = 0.02

NONE = {"patience": None, "lr_decay": 1.0}
COSINE = {**NONE, "schedule": "cosine"}
PATIENT = {**COSINE, "patience": 1.0}
LINES = {
    "a constant rate": NONE,
    "a rate that falls along a cosine": COSINE,
    "and --patience 1": PATIENT,
    "and --warmup 60 --clip 0.3": {**PATIENT, "warmup": 60, "clip": 0.3},
}


def final_accuracy(changes, rate, seed, epochs):
    config = tasks.default_config(
        "yin-yang", **{**FAIR_CHANGES, "tau": TAUS[0], **changes}, lr=rate, seed=seed, epochs=epochs, batch_size=BATCH
    )
    trainer = Trainer.of(config, config.load())
    for _ in range(epochs):
        row = trainer.run_epoch()
    return row.validation_accuracy


def main(seeds, epochs, only):
    set_num_threads(1)
    torch.set_num_threads(1)
    print(f"| | within {NEAR:.0%} of the best | mean, % | worst, % |" + "".join(f" {rate:g} |" for rate in RATES))
    print("|---|---|---|---|" + "---|" * len(RATES))
    for name, changes in LINES.items():
        if only and name not in only:
            continue
        found = {key: final_accuracy(changes, *key, epochs) for key in itertools.product(RATES, range(seeds))}
        best = max(found.values())
        share = statistics.mean(accuracy >= best - NEAR for accuracy in found.values())
        means = [statistics.mean(found[rate, seed] for seed in range(seeds)) for rate in RATES]
        cells = "".join(f" {100 * mean:.1f} |" for mean in means)
        worst = min(found.values())
        print(f"| {name} | {share:.0%} | {100 * statistics.mean(means):.1f} | {100 * worst:.1f} |{cells}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--only", nargs="*", default=(), choices=LINES, metavar="LINE")
    main(**vars(parser.parse_args()))
