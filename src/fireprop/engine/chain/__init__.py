"""Chains of fully connected layers, recurrent or not, with one tau_mem and one tau_syn in each unit: the fast path."""

from fireprop.engine.chain.forward import Engine, simulate
from fireprop.engine.chain.layout import Layer, is_quiet, is_sparse, lay_out, outline_of
from fireprop.engine.chain.run import Run
from fireprop.kernels.chain.layout import Chain

__all__ = ["Chain", "Engine", "Layer", "Run", "is_quiet", "is_sparse", "lay_out", "outline_of", "simulate"]
