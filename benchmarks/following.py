"""What it costs to follow steps and to guard them, against plain training: `python -m benchmarks.following`.

Yin-Yang with its default settings, one thread; epochs of all arms in turn, CPU time, medians and their ratio to plain.
"""

import statistics
import time

import torch

from fireprop import set_num_threads, tasks
from fireprop.training import Trainer

ARMS = {
    "plain": {},
    "follow 1/8": {"follow": 0.125},
    "follow and guard 1/5": {"follow": 0.2, "guard": True},
    "follow and guard all": {"follow": 1.0, "guard": True},
}
EPOCHS = 9


def make(changes):
    config = tasks.default_config("yin-yang", **changes)
    trainer = Trainer(config, tasks.load_splits(config))
    trainer.warm_up()
    return trainer


def main():
    set_num_threads(1)
    torch.set_num_threads(1)
    trainers = {name: make(changes) for name, changes in ARMS.items()}
    seconds = {name: [] for name in ARMS}
    for _ in range(EPOCHS):
        for name, trainer in trainers.items():
            start = time.thread_time()
            trainer.run_epoch()
            seconds[name].append(time.thread_time() - start)
    plain = statistics.median(seconds["plain"])
    for name, each in seconds.items():
        median = statistics.median(each)
        print(f"{name:22} {median:.3f} s an epoch, {median / plain:.3f} of plain")


if __name__ == "__main__":
    main()
