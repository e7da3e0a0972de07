"""Trained runs as files in NIR, and what an imported network answers on the data of a task."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fireprop.datasets.extras import require
from fireprop.interop.nir.exporting import to_nir
from fireprop.nn import LI, LIF, Network, Sequential
from fireprop.plans import Plan
from fireprop.runs import RunFolder, write_new
from fireprop.training import Trainer, load_network

STARTS = ("bias", "v_start", "i_start")


def export_run(run: RunFolder, path: Path) -> None:
    """Write the network of a run with its best weights to a new file in NIR. It reads none of the data of the run.

    run   a folder with a checkpoint
    path  of the file, which must not exist yet

    Raises MissingExtraError without the package nir; RunError if the run cannot be read or the file cannot be written;
    ValueError for a network that NIR cannot say, as `to_nir`.
    """
    nir = require("nir", extra="nir", needed_for="fireprop export")
    content = io.BytesIO()
    nir.write(content, to_nir(load_network(run)))
    write_new(path, content.getvalue())


def accuracy(net: Sequential | Network, plan: Plan) -> tuple[float, int]:
    """The share of test samples in which the network tells the right class, and their number.

    net   with the inputs and outputs of the plan, in its unit of time
    plan  of a task or a run: its data, their encoding, t_end, and the objective that says what the network tells. A
          bias acts from 0 on, if the plan has no t_start

    Raises ValueError for a network that does not fit the plan; else as `Plan.load` and a run of the network.
    """
    found, wanted = _ends(net), _ends(plan.network(torch.Generator()))
    if found[:2] != wanted[:2]:
        raise ValueError(
            f"the network has {found[0]} inputs and {found[1]} outputs, but {plan.name} has {wanted[0]} and "
            f"{wanted[1]}: choose the task that it was trained for"
        )
    if found[2] != wanted[2]:
        kinds = {LI: "a CubaLI, which does not fire", LIF: "units that fire"}
        raise ValueError(
            f"the network ends in {kinds[found[2]]}, but that of {plan.name} in {kinds[wanted[2]]}: choose the task "
            "that it was trained for"
        )
    starts = any(getattr(module, name, None) is not None for module in net.modules() for name in STARTS)
    settings = replace(plan, t_start=0.0) if starts and plan.t_start is None else plan
    splits = plan.load()
    evaluation = Trainer(net, splits, plan.objective(), settings).evaluate(splits.test)
    if evaluation.accuracy is None:
        raise ValueError(f"the objective of {plan.name} has no classes, so that there is no accuracy")
    return evaluation.accuracy, len(splits.test)


def _ends(net: nn.Module) -> tuple[int, int, type[nn.Module]]:
    """The numbers of inputs and outputs, and what the outputs are: LIF or LI."""
    if isinstance(net, Network):
        output: Any = net.populations[net.output_population]
        return net.n_inputs, output.size, LIF
    layers = [layer for layer in net.modules() if isinstance(layer, LIF | LI)]
    return layers[0].in_features, layers[-1].out_features, type(layers[-1])
