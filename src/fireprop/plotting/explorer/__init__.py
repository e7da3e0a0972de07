"""The explorer: one sample of a run as a page that a browser shows, with the causal graph of any spike."""

from fireprop.plotting.explorer.document import explore

__all__ = ["explore"]
