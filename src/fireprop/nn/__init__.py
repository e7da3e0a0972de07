"""Spiking networks as ordinary torch modules: Spikes in, Spikes out, exact derivatives of every spike time."""

from fireprop.nn.constants import Positive, keep_positive
from fireprop.nn.convolution import AvgPool2d, Conv1d, Conv2d, Flatten, SumPool2d
from fireprop.nn.dropout import SpikeDropout
from fireprop.nn.lif import LIF
from fireprop.nn.network import Connection, Network, Population
from fireprop.nn.readout import LI, Maximum, Trace
from fireprop.nn.record import EngineUsed, Record
from fireprop.nn.scaling import LayerStart, Start, initialise
from fireprop.nn.sequential import Sequential
from fireprop.nn.state import State
from fireprop.nn.stencils import Stencil
from fireprop.nn.stop import Decided

__all__ = [
    "LI",
    "LIF",
    "AvgPool2d",
    "Connection",
    "Conv1d",
    "Conv2d",
    "Decided",
    "EngineUsed",
    "Flatten",
    "LayerStart",
    "Maximum",
    "Network",
    "Population",
    "Positive",
    "Record",
    "Sequential",
    "SpikeDropout",
    "Start",
    "State",
    "Stencil",
    "SumPool2d",
    "Trace",
    "initialise",
    "keep_positive",
]
