"""Kernels of a chain of layers: its units move layer by layer, in lanes."""
