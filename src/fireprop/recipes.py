"""Recipes: for each published task the settings that reach what docs/results.md says, and the number of epochs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fireprop.plans import LIFPlan
from fireprop.tasks import PLANS, plan_of


@dataclass(frozen=True)
class Recipe:
    """Settings of a task that belong together.

    about    what they are for, in a line
    changes  what they change in the task's own settings
    """

    about: str
    changes: Mapping[str, Any] = field(default_factory=dict)


# As they were measured: without patience.
DELAYS = {"patience": None, "hidden_delay": 1.0, "epochs": 100, "lr_decay": 0.97}

RECIPES: dict[str, dict[str, Recipe]] = {
    "yin-yang": {
        # Without the guard some seeds lose an output unit for good.
        "first-spike": Recipe(
            "5-200-3, first spike", {"patience": None, "dtype": "float32", "follow": 1.0, "guard": True}
        ),
        "delays-30": Recipe(
            "5-30-3 with a trained delay per hidden synapse, 390 parameters", {**DELAYS, "hidden": (30,)}
        ),
        # Long currents, so that spikes at different times add up in few units.
        "delays-5": Recipe(
            "5-5-3 with a trained delay per hidden synapse, 65 parameters",
            {
                **DELAYS,
                "hidden": (5,),
                "lr": 2e-2,
                "tau_syn": 1.0,
                "hidden_weight": (2.0, 1.0),
                "output_weight": (2.0, 1.0),
                "tau": 0.025,
            },
        ),
        # Ten layers multiply what each of them changes, so the rate is low and the loss soft.
        "deep": Recipe(
            "5-10x100-3, ten hidden layers, with the weights that layers draw themselves",
            {
                "hidden": (100,) * 10,
                "hidden_weight": None,
                "output_weight": None,
                "t_end": 6.0,
                "tau": 0.05,
                "late_penalty": 0.0,
                "lr": 3e-3,
                "relative_lr": True,
                "schedule": "cosine",
                "epochs": 12,
                "dtype": "float32",
            },
        ),
    },
    "mnist": {
        "accurate": Recipe("784-350-10, the most accurate", {"epochs": 40}),
        # Few hidden units reach their threshold, and two of their spikes are enough for an output.
        "sparse": Recipe(
            "784-350-10, few spikes", {"epochs": 40, "hidden_weight": (0.01, 0.05), "output_weight": (0.6, 0.5)}
        ),
        # Spikes grow in number from epoch to epoch, more so at a higher rate or with a penalty for late spikes.
        "convolutional": Recipe(
            "28x28, 32 and 64 kernels of 5x5 with stride 2, 128 hidden units, 10 outputs: 184,352 weights",
            {
                "channels": (32, 64),
                "kernels": (5, 5),
                "strides": (2, 2),
                "hidden": (128,),
                "late_penalty": 0.0,
                "lr": 2e-3,
                "batch_size": 32,
                "epochs": 8,
            },
        ),
        # Units of the first layer add many pixels, and a spike has time enough to pass all layers.
        "five-layers": Recipe(
            "784-350-200-200-200-10, four hidden dense layers",
            {
                "hidden": (350, 200, 200, 200),
                "hidden_weight": (0.01, 0.04),
                "output_weight": None,
                "t_end": 8.0,
                "tau": 0.05,
                "late_penalty": 0.0,
                "patience": 1.0,
                "lr": 1e-2,
                "relative_lr": True,
                "batch_size": 32,
                "epochs": 8,
            },
        ),
        # The weights that layers draw themselves, and time enough for a spike to pass all layers.
        "six-layers": Recipe(
            "28x28, four convolutions of 12, 24, 24 and 48 channels, 128 hidden units, 10 outputs",
            {
                "hidden_weight": None,
                "output_weight": None,
                "t_end": 8.0,
                "late_penalty": 0.0,
                "relative_lr": True,
                "patience": 1.0,
                "channels": (12, 24, 24, 48),
                "kernels": (5, 3, 3, 3),
                "strides": (2, 1, 2, 1),
                "hidden": (128,),
                "tau": 0.05,
                "lr": 1e-2,
                "batch_size": 32,
                "epochs": 10,
            },
        ),
    },
    "fashion-mnist": {"accurate": Recipe("784-350-10, the most accurate", {"epochs": 30})},
    "emg-fingers": {
        "blocked": Recipe("41-64-7, trained on all four blocks that do not test", {"held_out": 0.0}),
    },
    "oxford": {"spikes": Recipe("200-256-200, 10,361 target spikes", {"epochs": 1000})},
    "nmnist": {
        # As many epochs as validation asked for when a fifth of the thousand was held out.
        "subset": Recipe(
            "2312-512-10, SLAYER's subset of 1000 recordings, without validation", {"epochs": 25, "held_out": 0.0}
        ),
        "convolutional": Recipe(
            "2x34x34, 24 kernels of 7x7 with stride 3, 256 hidden units, 10 outputs, without validation",
            {
                "channels": (24,),
                "kernels": (7,),
                "strides": (3,),
                "hidden": (256,),
                "convolution_weight": (0.0002, 0.0015),
                "hidden_weight": (0.0002, 0.001),
                "lr": 1e-4,
                "patience": 50.0,
                "epochs": 20,
                "held_out": 0.0,
            },
        ),
    },
}


def configure(task: str, recipe: str | None = None, **changes: Any) -> LIFPlan:
    """The settings of a task, or of a recipe for it, with changes.

    Raises ValueError for a task or recipe that is unknown, or a setting that is out of range.

    >>> configure("yin-yang", "first-spike", seed=3).seed
    3
    """
    if recipe is None:
        return plan_of(task, **changes)
    if task not in PLANS:
        return plan_of(task)  # which says so
    known = RECIPES.get(task, {})
    if recipe not in known:
        choices = f"choose {' or '.join(known)}" if known else f"there is none for {task}"
        raise ValueError(f"recipe = {recipe!r}: {choices}; `fireprop recipes` lists them all")
    return plan_of(task, **{**known[recipe].changes, **changes})
