"""Sweeps: trials of many settings, by several processes and hosts that share a folder (extra `sweep`)."""

from fireprop.sweeping.space import Range, read_space
from fireprop.sweeping.study import TrialRow, read_trials
from fireprop.sweeping.sweep import Sweep
from fireprop.sweeping.table import setting_text, write_table
from fireprop.sweeping.work import run

__all__ = ["Range", "Sweep", "TrialRow", "read_space", "read_trials", "run", "setting_text", "write_table"]
