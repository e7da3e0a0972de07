r"""Help for units that do not fire: no part of the exact gradient of the spikes, and never used unless called.

The gradient of firing times says nothing of a unit without a spike. What is here are other quantities, each a term of a
loss or a step of its own:

- `silent_hinge`: a loss on how far the peak potential of a silent unit stays below its threshold. It is exact itself:
  the derivative of a peak is that of V at its fixed time. But it is another loss than that of the spikes.
- `missing_times`, `next_times`: times after t_end that stand for missing spikes in a loss, the later the lower the peak
  of the unit.
- `bump_`: a constant added to the weights of dead units. The derivative of nothing.
- `project_`: the paper's projection onto a mean potential (Lee et al. 2023), a step as well.

docs/silent.md compares them from a dead start.
"""

from fireprop.silent.projection import project_
from fireprop.silent.units import SilentPeaks, bump_, missing_times, next_times, silent_hinge, silent_peaks

__all__ = ["SilentPeaks", "bump_", "missing_times", "next_times", "project_", "silent_hinge", "silent_peaks"]
