"""Why exact gradients collapse in the fair surrogate comparison.

    python -m benchmarks.collapse [--guard] [--decay 0.9]

Its network and constants at a rate of 0.01, constant unless a factor from epoch to epoch is given, seed 0, 40 epochs:
accuracy beside the share of samples in which the output unit of the label fires, and what steps do to the spikes.
"""

import argparse

from fireprop import following, set_num_threads, tasks
from fireprop.experiments.learners import BATCH
from fireprop.experiments.surrogates_fair import FAIR_CHANGES
from fireprop.training import Trainer

EPOCHS = 40


def main(guard, decay):
    set_num_threads(1)
    changes = {**FAIR_CHANGES, "lr": 0.01, "lr_decay": decay, "epochs": EPOCHS, "batch_size": BATCH}
    config = tasks.default_config("yin-yang", **changes, follow=1.0, guard=guard)
    trainer = Trainer(config, tasks.load_splits(config))
    validation = trainer.splits.validation
    print("epoch  loss  accuracy  label fires  created  deleted  silent hidden units")
    for epoch in range(1, EPOCHS + 1):
        m = trainer.run_epoch()
        fires = following.fires(trainer._run(validation.spikes)[-1], validation.labels).double().mean()
        print(
            f"{epoch:5} {m.train_loss:5.2f} {m.validation_accuracy:9.1%} {float(fires):12.1%} {m.spikes_created:8.2f} "
            f"{m.spikes_deleted:8.2f} {m.silent_units:12}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--guard", action="store_true")
    parser.add_argument("--decay", type=float, default=1.0)
    main(**vars(parser.parse_args()))
