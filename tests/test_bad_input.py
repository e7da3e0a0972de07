"""Bad input: every argument of every public function, replaced by what does not belong there.

Each call must end in an error of ours that names the argument, or in a result that is valid. Errors of torch, NumPy and
Numba, warnings, NaN, and spikes that break the promises of `Spikes` are failures.
"""

import math
import re
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fireprop
from fireprop import (
    Spikes,
    certify,
    datasets,
    encoding,
    engine,
    external,
    gradcheck,
    ift,
    losses,
    plotting,
    validity,
)
from fireprop.datasets.events import EVENT
from fireprop.engine.arrays import check_trains
from fireprop.evidence import gradchecks, parity, random_networks
from fireprop.evidence.insights.chain import read_chain
from fireprop.evidence.insights.graze import graze
from fireprop.nn import LIF, Connection, Network, Population, Record, Sequential, initialise
from fireprop.nn.view import graph_view
from fireprop.tasks import Config, build_network, default_config, encode

HOUSE = Path(fireprop.__file__).parent
ERRORS = (ValueError, TypeError, IndexError, KeyError, fireprop.GrazeError, fireprop.SpikeLimitError)
ERRORS += (fireprop.TimeResolutionError,)

# ------------------------------------------------------------------------------------------------ what does not belong


class Strange:
    """An object of no use anywhere."""


def _float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def _read_only(array):
    array.setflags(write=False)
    return array


SCALARS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "a digit in quotes": lambda: "1",
    "a word": lambda: "spikes",
    "bytes": lambda: b"1",
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "-1": lambda: -1,
    "0": lambda: 0,
    "-0.0": lambda: -0.0,
    "1.5": lambda: 1.5,
    "1": lambda: 1,
    "5e-324": lambda: 5e-324,
    "1e308": lambda: 1e308,
    "2**63": lambda: 2**63,
    "-2**63": lambda: -(2**63),
    "10**400": lambda: 10**400,
    "1j": lambda: 1j,
    "np.float16": lambda: np.float16(1.0),
    "np.int8": lambda: np.int8(1),
    "np.bool": lambda: np.bool_(True),
    "np.datetime64": lambda: np.datetime64("2020-01-01"),
    "an object": Strange,
    "a class": lambda: Strange,
    "a function": lambda: len,
    "a module": lambda: nn.Linear(2, 2),
    "a generator": torch.Generator,
    "a dtype": lambda: torch.float16,
    "a device": lambda: torch.device("cpu"),
    "a dictionary": lambda: {"times": [0.1]},
    "a set": lambda: {1.0},
    "an iterator": lambda: iter([0.1]),
}

ARRAYS: dict[str, Callable[[], Any]] = {
    "[]": lambda: [],
    "()": lambda: (),
    "[None]": lambda: [None],
    "['a']": lambda: ["a"],
    "[nan]": lambda: [math.nan],
    "[1.0]": lambda: [1.0],
    "[1.0, 2.0]": lambda: [1.0, 2.0],
    "a ragged list": lambda: [[0.1, 0.2], [0.3]],
    "a tensor without axes": lambda: torch.tensor(1.0),
    "nan without axes": lambda: torch.tensor(math.nan),
    "True without axes": lambda: torch.tensor(True),
    "1j without axes": lambda: torch.tensor(1j),
    "a tensor that requires a gradient": lambda: torch.tensor(1.0, requires_grad=True),
    "an empty tensor": lambda: torch.empty(0),
    "(0, 3)": lambda: torch.empty(0, 3),
    "(2, 0, 3)": lambda: torch.empty(2, 0, 3),
    "(1, 1, 1, 1)": lambda: torch.ones(1, 1, 1, 1),
    "float16": lambda: torch.ones(2, dtype=torch.float16),
    "bfloat16": lambda: torch.ones(2, dtype=torch.bfloat16),
    "int8": lambda: torch.ones(2, dtype=torch.int8),
    "bool": lambda: torch.tensor([True, False]),
    "complex": lambda: torch.ones(2, dtype=torch.complex64),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "meta": lambda: torch.ones(2, device="meta"),
    "meta without axes": lambda: torch.tensor(1.0, device="meta"),
    "expanded to 2**60": lambda: torch.ones(1, dtype=torch.float64).expand(2**60),
    "an array without axes": lambda: np.array(1.0),
    "an array of objects": lambda: np.array([None, 1.0], dtype=object),
    "an array of strings": lambda: np.array(["a", "b"]),
    "an array of dates": lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
    "a structured array": lambda: np.zeros(2, [("time", float), ("unit", int)]),
    "a read-only array": lambda: _read_only(np.ones(2)),
    "a big-endian array": lambda: np.ones(2, ">f8"),
    "an unsigned array": lambda: np.array([2**64 - 1], np.uint64),
    "empty Spikes": lambda: Spikes.from_events([], [], [], n_units=2, batch_size=0),
    "Spikes of no units": lambda: Spikes.from_latencies(torch.empty(2, 0)),
    "Spikes of nine units": lambda: Spikes.from_latencies(torch.rand(1, 9)),
    "Spikes of an early stop": lambda: _stopped(),
}


FEW = {
    "None", "True", "a word", "nan", "inf", "-1", "0", "1.5", "2**63", "10**400", "1j", "an object", "a module",
    "a dictionary", "[]", "[None]", "['a']", "[nan]", "[1.0, 2.0]", "a ragged list", "complex", "sparse", "meta",
    "expanded to 2**60", "an array of objects", "Spikes of no units", "Spikes of nine units", "Spikes of an early stop",
    "its float16", "its booleans", "one axis more", "twice", "none of it", "nan in it", "inf in it", "-1 in it",
    "1e308 in it", "4611686018427387904 in it",
}  # fmt: skip


def _stopped():
    return Spikes(times=[0.1], units=[0], offsets=[0, 1, 1], n_units=2, t_end=[2.0, 2.0], t_known=[0.5, 0.5])


def _put(tensor, value):
    if tensor.numel() == 0:
        return tensor
    tensor = tensor.clone() if tensor.is_floating_point() else tensor.double()
    tensor.reshape(-1)[-1] = value
    return tensor


def variants(valid: torch.Tensor) -> dict[str, Any]:
    """The same numbers in another shape, dtype, memory or place, and with one entry that is bad."""
    plain = valid.detach()
    array = plain.numpy()
    many = {
        "its float16": plain.half(),
        "its float32": plain.float(),
        "its float64": plain.double(),
        "its integers": plain.long(),
        "its int32": plain.int(),
        "its booleans": plain.bool(),
        "its complex numbers": plain.to(torch.complex128),
        "its sparse form": plain.to_sparse() if plain.dim() else plain,
        "its meta tensor": plain.to("meta"),
        "with a gradient": plain.double().clone().requires_grad_(),
        "as a Parameter": nn.Parameter(plain.double().clone()),
        "as an array": array.copy(),
        "as a list": plain.tolist(),
        "as strings": [str(value) for value in plain.reshape(-1).tolist()],
        "as objects": array.astype(object),
        "big-endian": array.astype(array.dtype.newbyteorder(">")),
        "read-only": _read_only(array.copy()),
        "strided": torch.stack([plain, plain], -1)[..., 0],
        "flipped": plain.flip(list(range(plain.dim()))),
        "negated": -plain if plain.dtype != torch.bool else ~plain,
        "one axis more": plain[None],
        "one axis more behind": plain[..., None],
        "expanded": plain[:1].expand_as(plain) if plain.dim() and plain.numel() else plain,
        "twice": torch.cat([plain, plain]) if plain.dim() else plain,
        "none of it": plain[:0] if plain.dim() else plain,
        "all but one": plain[:-1] if plain.dim() else plain,
        "flat": plain.reshape(-1),
        "transposed": plain.mT if plain.dim() >= 2 else plain,
    }
    for name, value in {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-1": -1.0, "1e308": 1e308}.items():
        many[f"{name} in it"] = _put(plain, value)
        many[f"{name} in its array"] = _put(plain, value).numpy()
    if not plain.is_floating_point() and plain.dtype != torch.bool:
        for value in (-(2**63), -1, 2**62):
            many[f"{value} in it"] = plain.clone().reshape(-1).index_fill(0, torch.tensor([plain.numel() - 1]), value)
            many[f"{value} in it"] = many[f"{value} in it"].reshape(plain.shape)
    return many


# --------------------------------------------------------------------------------------------------------- the verdict


def finite(value: Any, *, padded: bool = False) -> str:
    """What is wrong with a result, or nothing. `padded`: inf stands for an absent spike."""
    if isinstance(value, Spikes):
        return _broken(value)
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            return f"a tensor on {value.device}"
        dense = value.detach().to_dense() if value.is_sparse else value.detach()
        if not dense.is_floating_point():
            return ""
        return "nan" if bool(dense.isnan().any()) else "inf" if not padded and bool(dense.isinf().any()) else ""
    if isinstance(value, np.ndarray):
        return finite(torch.from_numpy(value.copy()), padded=padded) if value.dtype.kind in "fiu" else ""
    if isinstance(value, float | np.floating):
        return "" if math.isfinite(value) or (padded and value == math.inf) else str(value)
    if isinstance(value, nn.Module):
        found = {k: finite(v, padded=padded) for k, v in value.state_dict().items()}
        return ", ".join(f"{k}: {what}" for k, what in found.items() if what)
    if isinstance(value, Record):
        return next((f for f in (finite(part) for part in (*value.layers, *value.slopes)) if f), "")
    if is_dataclass(value) and not isinstance(value, type):
        value = dict(vars(value))
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next((f for f in (finite(part, padded=padded) for part in value) if f), "")
    return ""


def _broken(spikes: Spikes) -> str:
    """Which promise of Spikes is broken."""
    try:
        parts = (spikes.times.detach(), spikes.units, spikes.offsets, spikes.n_units, spikes.t_end, spikes.t_known)
        Spikes(*parts)
    except (ValueError, TypeError) as error:
        return f"Spikes that are not valid: {error}"
    return ""


@dataclass
class Case:
    """A public callable with valid arguments.

    arguments  makes valid ones anew for every call
    also       words by which an error may call an argument, beside its name
    padded     whether inf is valid in the result
    infinite   arguments that may be inf, as the result is then
    skip       bad values by label that are not tried: they are valid, and take long
    few        whether only FEW of the bad values are tried, because a valid call takes long
    """

    call: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]
    also: dict[str, tuple[str, ...]] = field(default_factory=dict)
    padded: bool = False
    infinite: frozenset[str] = frozenset()
    skip: frozenset[str] = frozenset()
    few: bool = False


def bad_values(valid: Any) -> dict[str, Callable[[], Any]]:
    values = {**SCALARS, **ARRAYS}
    if isinstance(valid, torch.Tensor):
        values |= {name: (lambda value=value: value) for name, value in variants(valid).items()}
    return values


def complaint(case: Case, argument: str, arguments: dict[str, Any]) -> str:
    """What is wrong with how a call ends, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*torch.jit.script.*")  # torch itself, in forward mode
            warnings.filterwarnings("ignore", message="tau_syn has shape .*, one per source")  # it works, for now
            result = case.call(**arguments)
    except ERRORS as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error)
        if HOUSE not in Path(where.filename).parents and not any(word in text for word in case.also.get(argument, ())):
            return f"raw {type(error).__name__} from {where.filename}:{where.lineno}: {text[:150]}"
        names = (argument, *case.also.get(argument, ()))
        if not any(name in text for name in names):
            return f"{type(error).__name__} at {where.filename}:{where.lineno} names no {argument}: {text[:150]}"
        return ""
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {where.filename}:{where.lineno}: {str(error)[:150]}"
    found = finite(result, padded=case.padded or argument in case.infinite)
    return f"result: {found}" if found else ""


# ----------------------------------------------------------------------------------------------------------- the table

WEIGHT = _float64(6.0, 4.0, 2.0, 8.0, 9.0, 3.0).view(3, 2)


def layer(**options):
    lif = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64, generator=_seeded(), **options)
    with torch.no_grad():
        lif.weight.copy_(WEIGHT)
    return lif


def _neuron():
    lif = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    nn.init.constant_(lif.weight, 6.0)
    return lif


def chain():
    return Sequential(layer(), LIF(3, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64, generator=_seeded()))


def network():
    net = Network(2, dtype=torch.float64, generator=_seeded())
    net.add("hidden", 3, tau_mem=1.0)
    net.add("out", 2, tau_mem=1.0)
    net.connect("input", "hidden", tau_syn=0.5)
    net.connect("hidden", "out", tau_syn=0.5)
    return net


def _seeded():
    return torch.Generator().manual_seed(0)


def _written_into(module, state):
    """A module whose parameters, buffers and attributes somebody has replaced."""
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and name.endswith("weight") and value.is_floating_point():
            value = nn.Parameter(value.detach().clone() if value.numel() < 100 else value.detach())
        setattr(module, name, value)
    return module


def inputs():
    return Spikes.from_latencies([[0.1, 0.4], [0.3, 0.2]])


def fired():
    """Output spikes of a run, with a horizon."""
    return layer()(inputs(), t_end=2.0)


def cross(out, labels, **options):
    return losses.first_spike_cross_entropy(out, labels, **options)


def trains(**arguments):
    return {"times": _float64(0.1, 0.4, 0.2), "units": torch.tensor([1, 0, 1]), **arguments}


def run_options():
    return {
        "inputs": inputs(),
        "t_end": 2.0,
        "stop": None,
        "on_graze": "raise",
        "gradient": "adjoint",
        "max_spikes": 99,
    }


def _of(make, method):
    return lambda **arguments: getattr(make(), method)(**arguments)


HORIZON = {"t_end": _float64(2.0, 2.0), "t_known": _float64(2.0, 1.5)}
CASES: dict[str, Case] = {
    "Spikes": Case(Spikes, lambda: trains(offsets=torch.tensor([0, 2, 3]), n_units=2, **HORIZON), {"times": ("t = ",)}),
    "Spikes.from_latencies": Case(Spikes.from_latencies, lambda: {"x": _float64(0.1, 0.2, 0.3, math.inf).view(2, 2)}),
    "Spikes.from_padded_trains": Case(
        Spikes.from_padded_trains, lambda: {"x": _float64(0.1, 0.2, 0.3, math.inf).view(1, 2, 2)}
    ),
    "Spikes.from_events": Case(
        Spikes.from_events, lambda: trains(samples=torch.tensor([0, 0, 1]), n_units=2, batch_size=2)
    ),
    "Spikes.from_padded_events": Case(
        Spikes.from_padded_events,
        lambda: {
            "times": _float64(0.1, 0.2, 0.3, math.inf).view(2, 2),
            "units": torch.tensor([[1, 0], [0, -1]]),
            "n_units": 2,
        },
    ),
    "Spikes.from_lists": Case(
        Spikes.from_lists, lambda: {"trains": [[[0.1, 0.3], []], [[], [0.2]]], "n_units": 2}, {"n_units": ("units",)}
    ),
    "Spikes.from_grid": Case(
        Spikes.from_grid,
        lambda: {"grid": torch.tensor([[[0, 1]], [[1, 0]]]), "dt": 0.5, "layout": "time_first", "t_start": 0.0},
    ),
    "Spikes.to_grid": Case(
        _of(lambda: Spikes.from_latencies([[0.5, 0.0]]), "to_grid"),
        lambda: {"dt": 0.5, "n_steps": 2, "layout": "time_first", "t_start": 0.0, "rounding": "raise"},
        also={"dt": ("grid",), "t_start": ("grid",)},
    ),
    "Spikes.first": Case(_of(inputs, "first"), lambda: {"k": 1}, padded=True),
    "Spikes[]": Case(lambda samples: inputs()[samples], lambda: {"samples": torch.tensor([0, 1])}),
    "Spikes.select_units": Case(
        _of(inputs, "select_units"), lambda: {"index": torch.tensor([1, 0])}, {"index": ("units",)}
    ),
    "Spikes.shift": Case(_of(inputs, "shift"), lambda: {"duration": _float64(1.0, 2.0)}),
    "Spikes.cat": Case(Spikes.cat, lambda: {"parts": [inputs(), inputs()]}),
    "Spikes.stack_units": Case(Spikes.stack_units, lambda: {"parts": [inputs(), inputs()]}),
    "LIF": Case(
        LIF,
        lambda: {
            "in_features": 2,
            "out_features": 3,
            "tau_mem": _float64(1.0, 0.5, 2.0),
            "tau_syn": _float64(*[0.5] * 6).view(3, 2),
            "v_threshold": _float64(1.0, 0.5, 2.0),
            "t_ref": _float64(0.0, 0.1, 0.2),
            "mask": torch.tensor([[True, False]] * 3),
            "recurrent": True,
            "recurrent_mask": torch.eye(3, dtype=torch.bool),
            "tau_syn_rec": _float64(0.5, 0.25, 1.0)[None],
            "synapse": "alpha",
            "dtype": torch.float64,
            "generator": _seeded(),
        },
        also={
            "in_features": ("tau_syn", "mask"),
            "out_features": ("tau_mem", "tau_syn"),
            "recurrent": ("recurrent_mask",),
        },
        infinite=frozenset({"tau_mem"}),
    ),
    "LIF.reset_parameters": Case(
        _of(layer, "reset_parameters"),
        lambda: {"spikes_per_input": 1.0, "window": 0.5, "gain": 2.0, "spread": 0.5, "generator": _seeded()},
    ),
    "LIF.reset_parameters, recurrent": Case(
        _of(lambda: layer(recurrent=True), "reset_parameters"), lambda: {"recurrent_spread": 0.5}
    ),
    "initialise": Case(
        lambda **arguments: initialise(**arguments).n_runs,
        lambda: {
            "net": chain(),
            "inputs": inputs(),
            "t_end": 2.0,
            "t_start": 0.0,
            "spikes_per_unit": 1.0,
            "potential": 1.0,
            "tolerance": 10.0,
        },
        also={"net": ("module",), "spikes_per_unit": ("layer",), "t_end": ("layer", "t_start"), "inputs": ("t_start",)},
        few=True,
    ),
    "LIF, written into": Case(
        lambda **state: _written_into(layer(), state)(inputs(), t_end=2.0, max_spikes=99),
        lambda: {
            name: getattr(layer(), name).detach() for name in ("weight", "tau_mem", "tau_syn", "v_threshold", "t_ref")
        },
        also={name: ("cannot assign",) for name in ("weight", "tau_mem", "tau_syn", "v_threshold", "t_ref")},
    ),
    "LIF recurrent, written into": Case(
        lambda **state: _written_into(layer(recurrent=True, mask=torch.ones(3, 2) > 0), state)(
            inputs(), t_end=2.0, max_spikes=99
        ),
        lambda: {
            "recurrent_weight": torch.eye(3).double(),
            "tau_syn_rec": _float64(0.5, 0.5, 0.5)[None],
            "mask": torch.ones(3, 2) > 0,
        },
        also={
            "recurrent_weight": ("cannot assign",),
            "tau_syn_rec": ("cannot assign", "recurrent_weight: tau_syn"),
            "mask": ("cannot assign",),
        },
    ),
    "Network, written into": Case(
        lambda output: _written_into(network(), {"output": output})(inputs(), t_end=2.0), lambda: {"output": "hidden"}
    ),
    "LIF()": Case(lambda **options: layer()(**options), run_options),
    "LIF() recurrent": Case(lambda **options: layer(recurrent=True)(**options), run_options),
    "LIF.record": Case(_of(layer, "record"), run_options),
    "Sequential": Case(
        lambda first, second: Sequential(first, second),
        lambda: {"first": layer(), "second": layer()},
        {name: ("Module subclass",) for name in ("first", "second")},
    ),
    "Sequential()": Case(lambda **options: chain()(**options), run_options),
    "Sequential.record": Case(_of(chain, "record"), run_options),
    "Network": Case(Network, lambda: {"n_inputs": 2, "dtype": torch.float64, "generator": _seeded()}),
    "Network.add": Case(
        _of(network, "add"),
        lambda: {"name": "more", "size": 3, "tau_mem": _float64(1.0, 0.5, 2.0), "v_threshold": 1.0, "t_ref": 0.0},
        also={"size": ("tau_mem",)},
        infinite=frozenset({"tau_mem"}),
    ),
    "Network.connect": Case(
        _of(network, "connect"),
        lambda: {
            "pre": "out",
            "post": "hidden",
            "tau_syn": _float64(0.5, 0.25)[None],
            "mask": torch.tensor([[True, False]] * 3),
            "weight": WEIGHT.clone(),
            "synapse": "alpha",
            "name": "nmda",
        },
    ),
    "Network()": Case(lambda **options: network()(**options), run_options),
    "Network.record": Case(_of(network, "record"), run_options),
    "Population": Case(
        Population,
        lambda: {"size": 3, "tau_mem": _float64(1.0, 0.5, 2.0), "v_threshold": _float64(1.0, 0.5, 2.0), "t_ref": 0.1},
        also={"size": ("tau_mem",)},
        infinite=frozenset({"tau_mem"}),
    ),
    "Connection": Case(
        Connection,
        lambda: {
            "weight": WEIGHT.clone(),
            "tau_syn": _float64(0.5, 0.25)[None],
            "synapse": "alpha",
            "mask": torch.tensor([[True, False]] * 3),
        },
        also={"weight": ("tau_syn", "mask")},
    ),
    "Record[]": Case(lambda layer: chain().record(inputs(), t_end=2.0)[layer], lambda: {"layer": 0}),
    "Record.potential": Case(
        lambda **a: network().record(inputs(), t_end=2.0).potential(**a),
        lambda: {"layer": "hidden", "unit": 0, "times": _float64(0.1, 0.5, 1.0), "sample": 0},
    ),
    "Record.current": Case(
        lambda **a: chain().record(inputs(), t_end=2.0).current(**a),
        lambda: {"layer": 0, "unit": 0, "times": _float64(0.1, 0.5, 1.0), "sample": 0},
    ),
    "Record.threshold": Case(lambda layer: chain().record(inputs(), t_end=2.0).threshold(layer), lambda: {"layer": 0}),
    "losses.first_spike_times": Case(losses.first_spike_times, lambda: {"out": fired()}),
    "losses.first_spike_cross_entropy": Case(
        losses.first_spike_cross_entropy,
        lambda: {"out": fired(), "labels": torch.tensor([0, 1]), "tau": 0.2, "late_penalty": 0.1, "late_tau": 1.0},
        also={"late_tau": ("late_penalty",), "out": ("labels",)},
    ),
    "losses.first_spike_predictions": Case(losses.first_spike_predictions, lambda: {"out": fired()}),
    "losses.spike_time_mse": Case(
        losses.spike_time_mse, lambda: {"out": fired(), "targets": fired()}, {"targets": ("stop",), "out": ("stop",)}
    ),
    "losses.spike_count_loss": Case(
        losses.spike_count_loss,
        lambda: {"out": fired(), "counts": torch.tensor([[1, 0, 2], [0, 1, 1]]), "tau": 0.2},
        also={"out": ("counts", "stop")},
    ),
    "encoding.latency": Case(
        encoding.latency,
        lambda: {
            "x": _float64(0.1, 0.2, 0.3, 0.4).view(2, 2),
            "x_range": (0.0, 1.0),
            "t_range": (0.0, 2.0),
            "clip": True,
            "threshold": 0.2,
        },
    ),
    "encoding.latency, x_range": Case(
        lambda low, high, first, last, clip: encoding.latency(
            _float64(0.1, 0.2).view(1, 2), x_range=(low, high), t_range=(first, last), clip=clip
        ),
        lambda: {"low": _float64(0.0, 0.0), "high": _float64(1.0, 2.0), "first": 0.0, "last": 1.0, "clip": False},
        also={name: ("x_range", "t_range") for name in ("low", "high", "first", "last")},
    ),
    "encoding.bias_spike": Case(encoding.bias_spike, lambda: {"spikes": inputs(), "time": 0.5}),
    "datasets.SpikeDataset": Case(
        datasets.SpikeDataset, lambda: {"spikes": inputs(), "labels": torch.tensor([0, 1])}, {"spikes": ("labels",)}
    ),
    "datasets.SpikeDataset[]": Case(
        lambda sample: datasets.SpikeDataset(inputs(), [0, 1])[sample], lambda: {"sample": 0}
    ),
    "datasets.Augmented": Case(
        lambda **options: datasets.Augmented(**options)[0],
        lambda: {
            "data": datasets.SpikeDataset(inputs(), [0, 1]),
            "seed": 0,
            "max_shift": 1,
            "drop": 0.1,
            "shape": (1, 1, inputs().n_units),
            "flip": True,
        },
    ),
    "datasets.flip_images": Case(
        datasets.flip_images,
        lambda: {"spikes": inputs(), "flipped": torch.tensor([True, False]), "shape": (1, 1, inputs().n_units)},
        {"spikes": ("flipped",)},
    ),
    "datasets.shift_pixels": Case(
        datasets.shift_pixels,
        lambda: {"spikes": inputs(), "shifts": torch.tensor([[0, 1], [1, 0]]), "shape": (1, 1, inputs().n_units)},
        {"spikes": ("shifts",)},
    ),
    "datasets.spikes_from_events": Case(
        datasets.spikes_from_events,
        lambda: {
            "recordings": [np.zeros(2, dtype=EVENT)],
            "shape": (1, 1, 1),
            "per_unit": 1000.0,
            "t_end": 5.0,
        },
    ),
    "datasets.split_samples": Case(
        datasets.split_samples,
        lambda: {
            "labels": torch.arange(8) % 2,
            "validation": 0.25,
            "test": 0.25,
            "seed": 0,
            "groups": torch.arange(8) // 2,
        },
        also={"labels": ("groups",)},
    ),
    "datasets.iris_split": Case(datasets.iris_split, lambda: {"seed": 0, "test_fraction": 0.2}),
    "datasets.yin_yang": Case(
        datasets.yin_yang, lambda: {"n_samples": 2, "seed": 0}, skip=frozenset({"2**63", "10**400"})
    ),
    "datasets.yin_yang_class": Case(
        datasets.yin_yang_class, lambda: {"points": _float64(0.1, 0.2, 0.3, 0.4).view(2, 2)}
    ),
    "set_num_threads": Case(fireprop.set_num_threads, lambda: {"number": 1}),
}


CASES |= {
    "external.replay": Case(
        external.replay,
        lambda: {
            "net": layer(),
            "inputs": inputs(),
            "spikes": [fired().detach()],
            "t_end": 2.0,
            "tolerance": 1e-6,
            "on_mismatch": "raise",
            "on_graze": "raise",
            "gradient": "adjoint",
        },
        also={"inputs": ("spike",), "t_end": ("spike",), "spikes": ("spike",)},
    ),
    "external.polish": Case(
        external.polish,
        lambda: {"net": layer(), "inputs": inputs(), "spikes": [fired().detach()], "t_end": 2.0},
        also={"inputs": ("spike",), "t_end": ("spike",)},
    ),
    "ift.explicit_system": Case(
        ift.explicit_system,
        lambda: {
            "net": layer(),
            "inputs": inputs(),
            "spikes": [fired().detach()],
            "t_end": 2.0,
            "t_start": 0.0,
            "sample": 0,
            "stop": None,
            "form": "paper",
            "tolerance": 1e-6,
        },
        also={"inputs": ("spike",), "t_end": ("spike",)},
    ),
    "ift.forward_propagation": Case(
        ift.forward_propagation,
        lambda: {
            "net": layer(),
            "inputs": inputs(),
            "spikes": None,
            "t_end": 2.0,
            "t_start": 0.0,
            "stop": None,
            "layers": [0],
            "first_only": False,
            "parameters": ["weight"],
            "tolerance": 1e-6,
        },
        also={"inputs": ("spike",), "t_end": ("spike",)},
    ),
    "ExplicitSystem.adjoint": Case(
        lambda grad_times: ift.explicit_system(layer(), inputs(), t_end=2.0).adjoint(grad_times),
        lambda: {"grad_times": torch.ones(len(ift.explicit_system(layer(), inputs(), t_end=2.0)), dtype=torch.float64)},
    ),
    "ExplicitSystem.gradient": Case(
        lambda grad_times: ift.explicit_system(layer(), inputs(), t_end=2.0).gradient(grad_times),
        lambda: {"grad_times": torch.ones(len(ift.explicit_system(layer(), inputs(), t_end=2.0)), dtype=torch.float64)},
    ),
    "ExplicitSystem.causes": Case(
        lambda k: ift.explicit_system(layer(), inputs(), t_end=2.0).causes(k), lambda: {"k": 0}
    ),
    "Jacobian.gradient": Case(
        lambda grad_times: ift.forward_propagation(layer(), inputs(), t_end=2.0).gradient(grad_times),
        lambda: {"grad_times": torch.ones(fired().n_spikes, dtype=torch.float64)},
    ),
}


CONFIG = default_config("yin-yang")


def epochs():
    return [{"epoch": 1, "train_loss": 0.9, "validation_accuracy": 0.5}, {"epoch": 2, "train_loss": 0.4}]


CASES |= {
    "plotting.learning_curves": Case(plotting.learning_curves, lambda: {"metrics": epochs()}),
    "plotting.learning_curves, a row": Case(
        lambda epoch, loss: plotting.learning_curves([*epochs(), {"epoch": epoch, "train_loss": loss}]),
        lambda: {"epoch": 3, "loss": 0.1},
        also={"epoch": ("metrics[2]",)},
        few=True,
    ),
    "plotting.decision_map": Case(
        plotting.decision_map,
        lambda: {
            "classify": lambda x: datasets.yin_yang_class(x[:, :2]),
            "features": datasets.yin_yang(3, seed=0)[0],
            "labels": torch.tensor([0, 1, 2]),
            "class_of": datasets.yin_yang_class,
            "class_names": ["yin", "yang", "dot"],
            "resolution": 9,
        },
        also={"labels": ("class_names",), "features": ("labels",)},
        skip=frozenset({"a module"}),  # it is called, and says itself what it cannot read
        few=True,
    ),
    "plotting.raster_and_traces": Case(
        plotting.raster_and_traces,
        lambda: {
            "inputs": inputs(),
            "record": chain().record(inputs(), t_end=2.0),
            "sample": 0,
            "units": [(0, 1)],
            "class_names": ["a", "b"],
            "t_range": (0.0, 1.0),
        },
        few=True,
    ),
    "plotting.first_spike_histograms": Case(
        plotting.first_spike_histograms,
        lambda: {
            "out": fired(),
            "labels": torch.tensor([0, 1]),
            "class_names": ["a", "b", "c"],
            "t_range": (0.0, 1.0),
        },
        also={"out": ("labels", "class_names"), "labels": ("class_names",)},
        few=True,
    ),
    "tasks.Config": Case(
        Config,
        lambda: {f.name: getattr(CONFIG, f.name) for f in fields(Config)},
        infinite=frozenset({"tau_mem"}),
    ),
    "tasks.Config.from_dict": Case(Config.from_dict, lambda: {"values": CONFIG.to_dict()}, {"values": ("setting",)}),
    "tasks.default_config": Case(
        lambda task, hidden: default_config(task, hidden=hidden), lambda: {"task": "xor", "hidden": (4,)}
    ),
    "insights.chain.read_chain": Case(
        read_chain,
        lambda: {"net": chain(), "inputs": inputs(), "record": chain().record(inputs(), t_end=2.0), "sample": 0},
        also={"inputs": ("record",)},
    ),
    "insights.graze": Case(
        graze, lambda: {"tau_mem": 1.0, "tau_syn": 0.5, "distances": [0.1, 0.01]}, skip=frozenset({"2**63"}), few=True
    ),
    "gradcheck.check_gradients": Case(
        gradcheck.check_gradients,
        lambda: {
            "net": _neuron(),
            "inputs": Spikes.from_latencies([[0.1]]),
            "t_end": 0.9,
            "loss": None,
            "step": 1e-4,
            "tolerance": 1e-6,
        },
        skip=frozenset({"a module"}),  # as a loss it is called, and says itself what it cannot read
        few=True,
    ),
    "gradchecks.check_random_chains": Case(
        gradchecks.check_random_chains, lambda: {"n": 1, "seed": 0}, skip=frozenset({"2**63"}), few=True
    ),
    "gradchecks.check_random_networks": Case(
        gradchecks.check_random_networks,
        lambda: {"n": 1, "seed": 0, "kinds": ["recurrent"]},
        skip=frozenset({"2**63"}),
        few=True,
    ),
    "random_networks.random_network": Case(
        random_networks.random_network, lambda: {"generator": _seeded(), "kind": "populations"}, few=True
    ),
    "validity.validity_report": Case(
        lambda **arguments: validity.validity_report(**arguments).reach,
        lambda: {"net": chain(), "inputs": inputs(), "t_end": 2.0, "stop": None, "along": {"0.weight": WEIGHT}},
        padded=True,
    ),
    "validity.measure_reach": Case(
        validity.measure_reach,
        lambda: {"net": layer(), "inputs": inputs(), "along": {"weight": WEIGHT}, "t_end": 2.0, "upto": 1.0},
        skip=frozenset({"2**63", "a huge integer"}),
        few=True,
    ),
    "plotting.validity": Case(
        plotting.validity, lambda: {"report": validity.validity_report(chain(), inputs(), t_end=2.0)}, few=True
    ),
    "certify.certify_crossings": Case(
        lambda **arguments: certify.certify_crossings(**arguments).n_spikes,
        lambda: {
            "net": layer(),
            "inputs": inputs(),
            "t_end": 2.0,
            "record": [fired()],
            "max_spikes": 99,
            "name": "a layer",
        },
        also={"inputs": ("spikes",), "record": ("spikes",), "t_end": ("spikes",)},
    ),
    "parity.load_fixture": Case(parity.load_fixture, lambda: {"name": "mpmath_burst"}, few=True),
    "encode": Case(
        lambda **settings: encode(replace(default_config("xor"), **settings), datasets.xor()[0], (0.0, 1.0)),
        lambda: {"t_low": 0.0, "t_high": 1.0, "bias_time": 0.5},
        also={"t_low": ("t_range",), "t_high": ("t_range",)},
    ),
    "build_network": Case(
        lambda **settings: build_network(replace(default_config("xor"), **settings), _seeded()),
        lambda: {"tau_mem": 1.0, "tau_syn": 0.5, "hidden_weight": (1.0, 0.5), "output_weight": (1.0, 0.5)},
        infinite=frozenset({"tau_mem"}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_arguments_get_words_or_work(name):
    case = CASES[name]
    complaints = []
    assert not complaint(case, "-", case.arguments()), "the valid arguments are not valid"
    for argument, valid in case.arguments().items():
        for label, make in bad_values(valid).items():
            if label in case.skip or (case.few and label not in FEW):
                continue
            found = complaint(case, argument, {**case.arguments(), argument: make()})
            if found:
                complaints.append(f"{argument} = {label}: {found}")
    assert not complaints, "\n".join(complaints)


def number_of_calls():
    """How many bad inputs the table tries."""
    return sum(
        label not in case.skip and not (case.few and label not in FEW)
        for case in CASES.values()
        for valid in case.arguments().values()
        for label in bad_values(valid)
    )


def test_the_table_is_not_cut_down_unnoticed():
    assert number_of_calls() > 15_000


REMEDY = ": make new Spikes instead of writing into the tensors of old ones"
WRITTEN = pytest.mark.parametrize(
    ("name", "k", "value", "fault"),
    [
        ("units", 0, 2, "units[0] = 2 is not in [0, 2)"),
        ("units", 1, -1, "units[1] = -1 is not in [0, 2)"),
        ("units", 0, 10**12, "units[0] = 1000000000000 is not in [0, 2)"),
        ("offsets", 1, 5, "offsets[2] = 4 is less than offsets[1] = 5"),
        ("offsets", -1, 10**9, "offsets[2] = 1000000000, where the last must be the number of spikes, 4"),
        ("offsets", 0, -3, "offsets[0] = -3, where the first must be 0"),
        ("times", 0, 0.9, "times[1] = 0.4 comes after 0.9 in the same sample"),
    ],
)


@pytest.mark.parametrize("make", [layer, chain, lambda: layer(recurrent=True), network])
@WRITTEN
def test_spikes_that_somebody_wrote_into_never_reach_a_kernel(make, name, k, value, fault):
    spikes = inputs()
    getattr(spikes, name)[k] = value
    with pytest.raises(ValueError, match="^" + re.escape(f"inputs: {fault}{REMEDY}")):
        make()(spikes, t_end=2.0)


@pytest.mark.parametrize("call", [certify.certify_crossings, external.replay])
@WRITTEN
def test_inputs_that_somebody_wrote_into_never_reach_the_kernel_that_looks_at_given_spikes(call, name, k, value, fault):
    spikes, given = inputs(), [fired().detach()]
    getattr(spikes, name)[k] = value
    argument = {certify.certify_crossings: "record", external.replay: "spikes"}[call]
    with pytest.raises(ValueError, match="^" + re.escape(f"inputs: {fault}{REMEDY}")):
        call(layer(), spikes, t_end=2.0, **{argument: given})


@pytest.mark.white_box
@pytest.mark.parametrize(
    "judge",
    [
        lambda view, trains, given, t_end: engine.certify.certify_spikes(
            view.structure, *view.solve_arrays(), trains, given, t_end
        ),
        lambda view, trains, given, t_end: engine.graph.replay(
            view.structure, *view.solve_arrays(), *trains, given, t_end, excess=1e-6
        ),
    ],
)
@WRITTEN
def test_given_arrays_that_are_not_sound_are_named_as_spikes(judge, name, k, value, fault):
    trains = {part: getattr(inputs(), part).numpy() for part in ("times", "units", "offsets")}
    given = {part: values.copy() for part, values in trains.items()}
    given[name][k] = value + (value == 2)  # there are three units
    fault = fault.replace("units[0] = 2", "units[0] = 3").replace("[0, 2)", "[0, 3)")
    with pytest.raises(ValueError, match="^" + re.escape(f"spikes: {fault}{REMEDY}")):
        judge(graph_view(layer()), tuple(trains.values()), tuple(given.values()), np.full(2, 2.0))


@pytest.mark.white_box
def test_arrays_of_different_lengths_are_told():
    times, none = np.array([0.1, 0.2]), np.zeros(0, int)
    with pytest.raises(ValueError, match=r"^inputs: there are 0 units and 2 times: make new"):
        check_trains("inputs", times, none, np.array([0, 2]), 1)
    with pytest.raises(ValueError, match=r"^spikes: there are no offsets"):
        check_trains("spikes", times, np.zeros(2, int), none, 1)


@pytest.mark.white_box
def test_samples_may_begin_before_the_last_one_ended_and_be_empty():
    times, units = np.array([0.1, 0.9, 0.2, 0.2]), np.array([0, 1, 1, 0])
    check_trains("inputs", times, units, np.array([0, 0, 2, 2, 4, 4]), 2)
    with pytest.raises(ValueError, match=re.escape("inputs: times[2] = 0.2 comes after 0.9 in the same sample")):
        check_trains("inputs", times, units, np.array([0, 4, 4]), 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308])
def test_times_that_somebody_wrote_into_are_named(value):
    spikes = inputs()
    spikes.times[1] = value
    for net in (layer(), network()):
        with pytest.raises(ValueError, match=re.escape("times[1]")):
            net(spikes, t_end=2.0)
