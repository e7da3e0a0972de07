"""Pictures of a training run and of a network at work, as matplotlib Figures: to be saved or shown by the caller.

Nothing is written, shown or set globally. Every function draws into a new figure, or into Axes of the caller's (`ax`,
or `axes` where a picture has several panels), and returns the figure. A class has the same colour in every picture:
CLASS_COLORS, which stay apart also for colour-blind readers; from the eleventh class on they repeat. Times are in the
unit of the data. `explore` returns a page for a browser instead of a figure.
"""

from fireprop.plotting.choices import accuracy_against_spikes
from fireprop.plotting.curves import learning_curves
from fireprop.plotting.explorer import explore
from fireprop.plotting.histograms import first_spike_histograms
from fireprop.plotting.look import CLASS_COLORS, DPI, FAINT, GREY, INK, SMALL, UNDECIDED_COLOR
from fireprop.plotting.maps import decision_map
from fireprop.plotting.rasters import raster_and_traces
from fireprop.plotting.reliability import validity
from fireprop.plotting.samples import sample_rasters

__all__ = [
    "CLASS_COLORS",
    "DPI",
    "FAINT",
    "GREY",
    "INK",
    "SMALL",
    "UNDECIDED_COLOR",
    "accuracy_against_spikes",
    "decision_map",
    "explore",
    "first_spike_histograms",
    "learning_curves",
    "raster_and_traces",
    "sample_rasters",
    "validity",
]
