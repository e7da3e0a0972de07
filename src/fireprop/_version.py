"""The version of fireprop, written here alone: `pyproject.toml` and `fireprop.__version__` read it from here."""

__version__ = "0.2.0.dev0"
