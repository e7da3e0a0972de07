"""Trained runs as files in NIR, and what an imported network answers on the data of a task."""

import io
from pathlib import Path
from typing import Any

import torch

from fireprop.datasets.extras import require
from fireprop.interop.nir.exporting import to_nir
from fireprop.nn import LI, LIF, Network, Sequential
from fireprop.runs import RunError, RunFolder, write_new
from fireprop.tasks import TASKS, Config, build_network, load_splits
from fireprop.training import EVALUATION_BATCH, read_config
from fireprop.training.metrics import n_correct


def export_run(run: RunFolder, path: Path) -> None:
    """Write the network of a run with its best weights to a new file in NIR. It reads none of the data of the run.

    run   a folder with a checkpoint
    path  of the file, which must not exist yet

    Raises MissingExtraError without the package nir; RunError if the run cannot be read or the file cannot be written;
    ValueError for a network that NIR cannot say, as `to_nir`.
    """
    nir = require("nir", extra="nir", needed_for="fireprop export")
    content = io.BytesIO()
    nir.write(content, to_nir(trained_network(run)))
    write_new(path, content.getvalue())


def trained_network(run: RunFolder) -> Sequential:
    """The network of a run with the weights of its best epoch. Raises RunError if the run cannot be read."""
    config, state = read_config(run), run.load_checkpoint()
    net = build_network(config, torch.Generator())
    try:
        # Settings that are newer than the checkpoint take their defaults; where the data lie is no part of a network.
        if Config.from_dict({**state["config"], "data": config.data}) != config:
            raise ValueError("it belongs to another config.json")
        net.load_state_dict(state["best_weights"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise RunError(
            f"{run.path}: the checkpoint does not fit ({' '.join(str(error).split())}): restore the files of this run, "
            "or train again into a new folder"
        ) from error
    return net


def accuracy(net: Sequential | Network, config: Config) -> tuple[float, int]:
    """The share of test samples in which the unit of the label is the first output to fire, and their number.

    net     with the inputs and outputs of the task, in its unit of time
    config  of the task: its data, their encoding, t_end

    Raises ValueError for a network that does not fit the task; else as `tasks.load_splits` and a run of the network.
    """
    n_in, n_out = _ends(net)
    task = TASKS[config.task]
    wanted = task.n_features + (config.bias_time is not None), len(task.class_names)
    if (n_in, n_out) != wanted:
        raise ValueError(
            f"the network has {n_in} inputs and {n_out} outputs, but {config.task} has {wanted[0]} and {wanted[1]}: "
            "choose the task that it was trained for"
        )
    test = load_splits(config).test
    correct = 0
    with torch.no_grad():
        for part in torch.split(torch.arange(len(test)), EVALUATION_BATCH):
            out = net(
                test.spikes[part], t_end=config.t_end, t_start=0.0, stop="first_spikes", max_spikes=config.max_spikes
            )
            correct += n_correct(out, test.labels[part])
    return correct / len(test), len(test)


def _ends(net: Sequential | Network) -> tuple[int, int]:
    """The numbers of inputs and outputs."""
    if isinstance(net, Network):
        output: Any = net.populations[net.output_population]
        return net.n_inputs, output.size
    layers = [layer for layer in net if isinstance(layer, LIF | LI)]
    if isinstance(layers[-1], LI):
        raise ValueError("the network ends in a CubaLI, which does not fire: only first spikes can be evaluated")
    return layers[0].in_features, layers[-1].out_features
