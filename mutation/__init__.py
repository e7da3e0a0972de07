"""Mutation testing of the kernels: `make mutants`."""
