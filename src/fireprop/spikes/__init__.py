"""Spike trains: one container, what is read from it, and its conversions to and from every common layout."""

from fireprop.spikes.checks import Shape, unit_shape
from fireprop.spikes.container import GRID_TOLERANCE, Layout, Spikes

__all__ = ["GRID_TOLERANCE", "Layout", "Shape", "Spikes", "unit_shape"]
