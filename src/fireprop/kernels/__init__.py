"""Numba kernels: pure functions on scalars and arrays. They know neither torch nor the rest of the house."""
