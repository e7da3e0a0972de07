"""What a network is trained for: which spikes or potentials decide, the loss, the predicted class, what is measured."""

from fireprop.objectives.first_spike import FirstSpike
from fireprop.objectives.objective import Objective, fires
from fireprop.objectives.scores import Count, LIMaximum, LIMean, Scores
from fireprop.objectives.spike_train import SpikeTrain

OBJECTIVES: dict[str, type[Objective]] = {each.name: each for each in (FirstSpike, Count, LIMaximum, LIMean)}

__all__ = [
    "OBJECTIVES",
    "Count",
    "FirstSpike",
    "LIMaximum",
    "LIMean",
    "Objective",
    "Scores",
    "SpikeTrain",
    "fires",
]
