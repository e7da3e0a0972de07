"""What a network is trained for: which spikes or potentials decide, the loss, the predicted class, what is measured."""

from fireprop.objectives.first_spike import FirstSpike
from fireprop.objectives.kth_spike import KthSpike
from fireprop.objectives.objective import Objective, fires
from fireprop.objectives.scores import Count, LIMaximum, LIMean, Scores
from fireprop.objectives.spike_train import SpikeTrain
from fireprop.objectives.targets import TargetTimes, TraceRegression

OBJECTIVES: dict[str, type[Objective]] = {each.name: each for each in (FirstSpike, KthSpike, Count, LIMaximum, LIMean)}

__all__ = [
    "OBJECTIVES",
    "Count",
    "FirstSpike",
    "KthSpike",
    "LIMaximum",
    "LIMean",
    "Objective",
    "Scores",
    "SpikeTrain",
    "TargetTimes",
    "TraceRegression",
    "fires",
]
