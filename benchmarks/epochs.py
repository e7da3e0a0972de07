"""Times an epoch of Yin-Yang 5-150-3 (forward, gradient, update), and its parts, on one core.

    python -m benchmarks.epochs

The results are checked before anything is timed. Medians and quartiles; compare within one run.
"""

import platform
import statistics
import time

import numba
import torch

import fireprop
from fireprop import tasks, training

# The paper's network and batch. Its inputs, time constants and initial weights: docs/deviations.md.
PAPER = {
    "hidden": (150,),
    "batch_size": 150,
    "lr": 5e-4,
    "lr_decay": 1.0,
    "tau_mem": 1.0,
    "tau_syn": 1.0 / 0.999,
    "t_end": 2.0,
    "t_low": 0.15,
    "bias_time": 0.9,
    "hidden_weight": (1.5, 0.8),
    "output_weight": (2.0, 0.1),
    "tau": 0.2,
    "late_penalty": 0.005,
    "late_tau": 1.0,
    "patience": None,
}
EPOCHS = 20


def main() -> None:
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    print(
        f"fireprop {fireprop.__version__}, numba {numba.__version__}, torch {torch.__version__}, {platform.machine()}"
    )
    for name, changes in {"paper's setting, 5-150-3, batch 150": PAPER, "defaults of fireprop train": {}}.items():
        for dtype in tasks.DTYPES:
            time_epochs(f"{name}, {dtype}", tasks.default_config("yin-yang", **changes, dtype=dtype))


def time_epochs(name: str, config: tasks.Config) -> None:
    """Samples per second over whole epochs of training, validation not counted."""
    trainer = training.Trainer.of(config, config.load())
    start = time.perf_counter()
    trainer.warm_up()
    compile_seconds = time.perf_counter() - start
    rates = [trainer.run_epoch().samples_per_second for _ in range(EPOCHS)]
    first, last = trainer.metrics[0], trainer.metrics[-1]
    assert last.train_loss < first.train_loss
    low, middle, high = statistics.quantiles(rates, n=4)
    print(f"{name}: {middle:,.0f} samples/s (quartiles {low:,.0f}, {high:,.0f}); warm-up {compile_seconds:.1f} s")


if __name__ == "__main__":
    main()
