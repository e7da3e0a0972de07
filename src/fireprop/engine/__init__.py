"""Batches, threads, buffers and errors around the kernels: arrays in, arrays out, no torch.

An engine alone knows how a network is laid out for its kernels, and it alone turns their status codes into words. There
are two: chains of plain layers have kernels of their own, which share work between the units of a layer; everything
else is a graph. `interface` says what an engine offers. All that comes after a simulation asks its `Run`.
"""

from fireprop.engine import chain, graph, layered
from fireprop.engine.arrays import MAX_CONSTANT, Array
from fireprop.engine.errors import GrazeError, ReplayError, SpikeLimitError, TimeResolutionError
from fireprop.engine.interface import DEFAULT_MAX_SPIKES, Cotangents, Engine, Gradient, Part, Run, State
from fireprop.engine.starts import Acting
from fireprop.engine.stop import Stop
from fireprop.engine.threads import get_num_threads, set_num_threads

__all__ = [
    "DEFAULT_MAX_SPIKES",
    "MAX_CONSTANT",
    "Acting",
    "Array",
    "Cotangents",
    "Engine",
    "Gradient",
    "GrazeError",
    "Part",
    "ReplayError",
    "Run",
    "SpikeLimitError",
    "State",
    "Stop",
    "TimeResolutionError",
    "chain",
    "get_num_threads",
    "graph",
    "layered",
    "set_num_threads",
]
