"""The same task with each neuron: leaky, without leak, and with alpha synapses.

    python -m benchmarks.neurons [--seeds 3] [--epochs 20] [--only "no leak" ...]

Yin-Yang, 5-120-3, first spikes. Weights are scaled by `nn.initialise` to one spike per unit. All neurons have the
settings of the recipe `yin-yang`, chosen for the leaky one, and a rate that falls along a cosine. Each line gives the
mean and the standard deviation over seeds of the test accuracy after the last epoch, and the spikes of hidden units.
"""

import argparse
import itertools
import math
import statistics
import time

import torch

from fireprop import set_num_threads, tasks
from fireprop.nn import LIF, Sequential, initialise
from fireprop.training import Trainer

NEURONS = {"leaky": {}, "no leak": {"tau_mem": math.inf}, "alpha synapses": {"synapse": "alpha"}}
SIZES = (5, 120, 3)  # with a bias channel


def trained(options, seed, epochs):
    """Test accuracy, and spikes per hidden unit and sample."""
    config = tasks.default_config("yin-yang", hidden=SIZES[1:-1], seed=seed, epochs=epochs, schedule="cosine")
    splits, generator = config.load(), torch.Generator().manual_seed(seed)
    constants = {"tau_mem": config.tau_mem, "tau_syn": config.tau_syn, **options}
    sizes = config.n_inputs, *SIZES[1:]
    net = Sequential(*(LIF(*ends, **constants, generator=generator) for ends in itertools.pairwise(sizes)))
    initialise(net, splits.train.spikes[:256], t_end=config.t_end, spikes_per_unit=1.0)
    trainer = Trainer(net, splits, config.objective(), config, generator=generator)
    for _ in range(epochs):
        trainer.run_epoch()
    with torch.no_grad():
        record = net.record(splits.test.spikes, t_end=config.t_end)
    spikes = record[0].n_spikes / len(splits.test.spikes) / SIZES[1]
    return trainer.evaluate(splits.test).accuracy, spikes


def main(seeds, epochs, only):
    set_num_threads(1)
    torch.set_num_threads(1)
    print("| neuron | test accuracy, % | hidden spikes per unit | CPU s per run |")
    print("|---|---|---|---|")
    for name, options in NEURONS.items():
        if only and name not in only:
            continue
        begun = time.process_time()
        found = [trained(options, seed, epochs) for seed in range(seeds)]
        seconds = (time.process_time() - begun) / seeds
        accuracies, spikes = zip(*found, strict=True)
        spread = statistics.stdev(accuracies) if seeds > 1 else 0.0
        mean = statistics.mean(accuracies)
        print(
            f"| {name} | {100 * mean:.1f} ± {100 * spread:.1f} | {statistics.mean(spikes):.2f} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=(), choices=NEURONS, metavar="NEURON")
    main(**vars(parser.parse_args()))
