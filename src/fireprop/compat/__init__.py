"""What fireprop uses of Numba and torch without their promise to keep it.

No other file names it (`tests/test_compat.py`). `compiler` is what kernels need, `tensors` what networks need. Where a
name may go without harm, there is a way without it. For all others `pyproject.toml` has an upper bound: raise it after
the tests have passed with the new version.
"""
