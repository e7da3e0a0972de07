"""When the samples of a run end before t_end."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fireprop import arguments, engine


@dataclass(frozen=True, repr=False)
class Decided:
    """Ends a sample as soon as its class is decided: `window` after the first output spike.

    It goes on until the unit of its label has fired, and ends at once when every output unit has fired. What comes
    after the window has no part in `losses.first_spike_cross_entropy` if the window is many times its tau: a unit that
    fires so late has the share exp(-window / tau) or less, and it is counted as a spike at t_end.

    labels  (batch,) int64, in [0, n_units) of the output
    window  >= 0, in units of time

    >>> import torch
    >>> from fireprop import Spikes
    >>> from fireprop.nn import LIF
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, generator=torch.Generator().manual_seed(0))
    >>> inputs = Spikes.from_latencies([[0.1, 0.4]])
    >>> layer(inputs, t_end=5.0, stop=Decided(torch.tensor([0]), window=0.5)).t_end
    tensor([5.], dtype=torch.float64)

    Raises ValueError for a window below 0; the run raises it for labels that do not fit.
    """

    labels: Tensor
    window: float

    def __post_init__(self) -> None:
        arguments.number("window", self.window, least=0.0)

    def __repr__(self) -> str:
        return f"Decided(labels, window={self.window})"


Stop: TypeAlias = Literal["first_spikes"] | Decided | None


def check_stop(stop: Stop) -> None:
    """Refuse what is no stop."""
    if not isinstance(stop, Decided):
        arguments.choice("stop", stop, None, "first_spikes")


def words(stop: Stop) -> str:
    """A stop as a caller writes it."""
    return f'stop="{stop}"' if isinstance(stop, str) else f"stop={stop!r}"


def engine_stop(stop: Stop, layer: int, n_units: int, batch: int) -> engine.Stop | None:
    """As the engine takes it, for a run whose output is a layer of `n_units`."""
    if not isinstance(stop, Decided):
        return None if stop is None else engine.Stop(layer)
    labels = arguments.integers("stop.labels", stop.labels)
    if labels.shape != (batch,):
        raise ValueError(f"stop.labels has shape {tuple(labels.shape)}: give one for each sample, ({batch},)")
    low, high = torch.aminmax(labels) if batch else (0, 0)
    if int(low) < 0 or int(high) >= n_units:
        k = int(torch.nonzero((labels < 0) | (labels >= n_units))[0])
        raise ValueError(
            f"stop.labels[{k}] = {int(labels[k])}: the output has the units 0 to {n_units - 1}, give labels that count "
            "from 0, one unit for each"
        )
    return engine.Stop(layer, labels.numpy(), stop.window)
