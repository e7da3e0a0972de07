"""What it costs to follow steps, to guard them, and to make a validity report: `python -m benchmarks.following`.

Yin-Yang with its default settings, one thread, CPU time. Epochs of all arms in turn, medians and their ratio to plain;
then a validity report of one batch up to the decision, along the gradient, against a step of training on that batch.
"""

import statistics
import time

import torch

from fireprop import set_num_threads, tasks, validity
from fireprop.training import Trainer

ARMS = {
    "plain": {},
    "follow 1/8": {"follow": 0.125},
    "follow and guard 1/8": {"follow": 0.125, "guard": True},
    "follow and guard all": {"follow": 1.0, "guard": True},
}
EPOCHS = 9


def make(changes):
    config = tasks.default_config("yin-yang", **changes)
    trainer = Trainer.of(config, config.load())
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
    report_against_step(trainers["plain"])


def report_against_step(trainer):
    spikes, labels = next(iter(trainer.loader()))
    step, report = [], []
    for _ in range(30):
        start = time.thread_time()
        trainer.optimizer.zero_grad()
        trainer.loss(spikes, trainer.run(spikes), labels).backward()
        trainer.optimizer.step()
        middle = time.thread_time()
        options = {"t_end": trainer.config.t_end, "stop": "first_spikes", "along": "descent"}
        validity.validity_report(trainer.net, spikes, **options)
        step.append(middle - start)
        report.append(time.thread_time() - middle)
    ratio = statistics.median(report) / statistics.median(step)
    print(f"a validity report of {len(labels)} samples takes {ratio:.1f} steps of training on them")


if __name__ == "__main__":
    main()
