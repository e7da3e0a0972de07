"""Waking a dead network: what each help for silent units does, and what it costs: `python -m benchmarks.silent`.

Yin-Yang, 5-60-3, the first 1,000 samples of the training part, 30 epochs of Adam; all weights start at a fifth of those
that work (`tasks`), so that no hidden unit and no output fires in any sample. Every arm trains with the exact gradient
and adds its help; all run to t_end, without stop. CPU time, one thread; means over seeds.
"""

import argparse
import statistics
import time

import torch

from fireprop import losses, set_num_threads, tasks
from fireprop.silent import bump_, project_, silent_hinge

SCALE = 0.2
HIDDEN, SAMPLES, EPOCHS = 60, 1000, 30
TRIALS = {
    "hinge over batch": [1.0, 10.0],
    "hinge over sample": [1.0, 10.0],
    "hinge over batch,sample": [1.0, 10.0],
    "projection": [0.3, 0.4, 0.5],
    "bump": [0.003, 0.03, 0.3],
}


def train(seed, arm, strength, scale):
    """Accuracy on test, hidden units dead there, the step in which every output fires first, seconds, hidden spikes."""
    config = tasks.default_config("yin-yang", hidden=(HIDDEN,), seed=seed, epochs=EPOCHS)
    splits = tasks.load_splits(config)
    generator = torch.Generator().manual_seed(seed)
    net = tasks.build_network(config, generator)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    data = splits.train.spikes[:SAMPLES]
    labels = splits.train.labels[:SAMPLES]
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, config.lr_decay)
    woken, step, start = None, 0, time.thread_time()
    for _ in range(EPOCHS):
        for batch in torch.randperm(SAMPLES, generator=generator).split(config.batch_size):
            spikes = data[batch]
            record = net.record(spikes, t_end=config.t_end, on_graze="zero")
            loss = losses.first_spike_cross_entropy(
                record[-1], labels[batch], tau=config.tau, late_penalty=config.late_penalty, late_tau=config.late_tau
            )
            if arm.startswith("hinge"):
                over = arm.removeprefix("hinge over ")
                loss = loss + strength * silent_hinge(
                    net, spikes, record, over=over.split(",") if "," in over else over
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if arm == "bump":
                bump_(net, spikes, record, amount=strength)
            elif arm == "projection":
                project_(net, spikes, record, zeta_min=strength)
            step += 1
            if woken is None and bool((record[-1].counts().sum(0) > 0).all()):
                woken = step
        decay.step()
    seconds = time.thread_time() - start
    with torch.no_grad():
        record = net.record(splits.test.spikes, t_end=config.t_end)
    accuracy = float((losses.first_spike_predictions(record[-1]) == splits.test.labels).double().mean())
    dead = int((record[0].counts().sum(0) == 0).sum())
    per_sample = record[0].n_spikes / len(record[0])
    return accuracy, dead, woken, seconds, per_sample


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=TRIALS, metavar="HELP", help="one help of the table")
    options = parser.parse_args()
    seeds = range(options.seeds)
    set_num_threads(1)
    torch.set_num_threads(1)
    arms = [("alive from the start", None, 1.0), ("nothing", None, SCALE)]
    arms += [(arm, strength, SCALE) for arm, trials in TRIALS.items() for strength in trials]
    train(0, "hinge over batch", 1.0, SCALE)  # compiles
    print(f"{'help':24}{'strength':>9}{'accuracy':>18}{'dead':>6}{'step':>6}{'spikes':>8}{'seconds':>9}")
    for arm, strength, scale in arms:
        if options.only not in (None, arm):
            continue
        results = [train(seed, arm, strength, scale) for seed in seeds]
        accuracy, dead, woken, seconds, spikes = zip(*results, strict=True)
        spread = statistics.stdev(accuracy) if len(seeds) > 1 else 0.0
        steps = f"{statistics.mean(woken):.0f}" if None not in woken else "-"
        print(
            f"{arm:24}{'-' if strength is None else format(strength, 'g'):>9}"
            f"{100 * statistics.mean(accuracy):>10.1f} ± {100 * spread:4.1f}{statistics.mean(dead):>6.1f}{steps:>6}"
            f"{statistics.mean(spikes):>8.0f}{statistics.mean(seconds):>9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
