"""What can go wrong in a run, and the words for it."""

from fireprop.kernels import status


class _StoppedRun(RuntimeError):
    """A run that cannot go on.

    sample  its number in the batch; layer: "layer 2", or the name of the population. None where nobody has said
    """

    sample: int | None = None
    layer: str | None = None


class SpikeLimitError(_StoppedRun):
    """A layer fired more than `max_spikes` times in one sample."""


class TimeResolutionError(_StoppedRun):
    """A unit's next spike comes within 2**-42 of the time of its previous one: float64 does not resolve them there."""


class GrazeError(RuntimeError):
    """A derivative needs a spike whose potential only touched the threshold: slope 0, derivative infinite."""


class ReplayError(ValueError):
    """Given spikes are not those of the network: one is missing, is impossible, or lies off its threshold."""


def in_words(code: int, sample: int, layer: str, unit: int, t: float, max_spikes: int = 0) -> Exception:
    """The error for a status of a kernel. layer: "layer 2", or what else the units are called."""
    error = _in_words(code, sample, layer, unit, t, max_spikes)
    if isinstance(error, _StoppedRun):
        error.sample, error.layer = sample, layer
    return error


def _in_words(code: int, sample: int, layer: str, unit: int, t: float, max_spikes: int) -> Exception:
    where = f"sample {sample}, {layer}, unit {unit}, t = {float(t)!r}"
    if code == status.SPIKE_LIMIT:
        return SpikeLimitError(
            f"{where}: more than max_spikes={max_spikes} spikes of this layer in one sample. "
            "Raise max_spikes if this activity is meant"
        )
    if code == status.TIME_RESOLUTION:
        return TimeResolutionError(
            f"{where}: the next spike of this unit is closer to this one than float64 resolves at such a time. "
            "Use a nearer time origin, or smaller weights"
        )
    if code == status.IN_HOLD:
        return ReplayError(f"{where}: the unit is refractory after its last spike and cannot fire: remove the spike")
    if code == status.MISSED:
        return ReplayError(
            f"{where}: the potential rises above the threshold, but no spike is given: add it, or raise the tolerance"
        )
    return GrazeError(
        f"{where}: the potential only touched the threshold, and the derivative of this spike is infinite. "
        'Pass on_graze="zero" to let no gradient flow through such spikes'
    )
