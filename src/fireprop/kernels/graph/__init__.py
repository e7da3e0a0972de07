"""Kernels of any directed graph of units: every unit has constants of its own, every synapse is an entry of a list."""
