"""Why exact gradients collapse without patience, at a constant rate.

    python -m benchmarks.collapse [--rate 0.01] [--seed 0] [--guard] [--decay 0.9]

The network and constants of the fair surrogate comparison at a rate that is constant unless a factor from epoch to
epoch is given, 40 epochs: accuracy beside the share of samples in which the output unit of the label fires, and what
steps do to the spikes. Not bit for bit a run of the comparison: input times are not rounded to its grid, and batches
come in another order.
"""

import argparse

from fireprop import following, set_num_threads, tasks
from fireprop.evidence.experiments.learners import BATCH
from fireprop.evidence.experiments.surrogates_fair import FAIR_CHANGES, TAUS
from fireprop.training import Trainer

EPOCHS = 40


def main(rate, seed, guard, decay):
    set_num_threads(1)
    changes = {
        **FAIR_CHANGES,
        "tau": TAUS[1],
        "patience": None,
        "seed": seed,
        "lr": rate,
        "lr_decay": decay,
        "epochs": EPOCHS,
        "batch_size": BATCH,
    }
    config = tasks.default_config("yin-yang", **changes, follow=1.0, guard=guard)
    trainer = Trainer.of(config, config.load())
    validation = trainer.splits.validation
    print("epoch  loss  accuracy  label fires  created  deleted  silent hidden units")
    for epoch in range(1, EPOCHS + 1):
        m = trainer.run_epoch()
        out = trainer.net(validation.spikes, t_end=config.t_end, stop="first_spikes").detach()
        fires = following.fires(out, validation.labels).double().mean()
        print(
            f"{epoch:5} {m.train_loss:5.2f} {m.validation_accuracy:9.1%} {float(fires):12.1%} {m.spikes_created:8.2f} "
            f"{m.spikes_deleted:8.2f} {m.silent_units:12}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guard", action="store_true")
    parser.add_argument("--decay", type=float, default=1.0)
    main(**vars(parser.parse_args()))
