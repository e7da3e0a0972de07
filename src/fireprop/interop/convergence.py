"""What spikes of another simulator are worth: the error of the gradient that they give, and what polishing leaves."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fireprop.engine import GrazeError, ReplayError
from fireprop.external import Given, polish, replay
from fireprop.interop import clock_driven
from fireprop.nn import LIF, Network, Record, Sequential
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.spikes import Spikes

Net: TypeAlias = LIF | Sequential | Network
Loss: TypeAlias = Callable[[Record], Tensor]
Simulator: TypeAlias = Callable[..., tuple[Spikes, ...]]
Floats: TypeAlias = npt.NDArray[np.float64]

LEAST = 1e-17  # where a picture on a logarithmic axis shows an error of 0


def every_spike(record: Record) -> Tensor:
    """Half the sum of the squares of all firing times: a loss to which every spike counts, in whatever order."""
    return torch.stack([0.5 * spikes.times.square().sum() for spikes in record.spikes]).sum()


@dataclass(frozen=True)
class GradientError:
    """Errors of given spikes, and of the gradients that they give, against the run of the network itself.

    times     largest |f_given - f|; NaN if some unit fires another number of times
    raw       largest difference of a gradient, over the largest entry of its kind (a parameter, the input times), of
              the spikes as they are; NaN if they have none: one is impossible, or V does not rise there
    polished  the same after `polish`; NaN if it refused
    refusal   why polish refused; empty if it did not
    """

    times: float
    raw: float
    polished: float
    refusal: str = ""


def gradient_error(
    net: Net, inputs: Spikes, spikes: Given, *, t_end: float | Tensor, loss: Loss = every_spike
) -> GradientError:
    """How far the gradients of given spikes are from the exact ones, before and after polishing.

    net, inputs, spikes, t_end  as for `replay`
    loss                        of a Record; it must not depend on the order of the spikes. Default `every_spike`

    Spikes off their thresholds are what is measured here: the warnings of `replay` are silenced.

    >>> layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 5.0)
    >>> inputs = Spikes.from_latencies([[0.1, 0.4]])
    >>> rough = clock_driven.simulate(layer, inputs, t_end=2.0, dt=0.001)
    >>> found = gradient_error(layer, inputs, rough, t_end=2.0)
    >>> found.raw > 1e-5, found.polished < 1e-10
    (True, True)
    """
    leaf, exact_inputs = _with_leaf(inputs)
    truth = net.record(exact_inputs, t_end=t_end)
    wanted = _gradients(net, leaf, loss(truth))
    given = [spikes[name] for name in truth.names] if isinstance(spikes, Mapping) else list(spikes)
    raw, polished, refusal = np.nan, np.nan, ""
    try:
        raw = _error(net, inputs, spikes, t_end, loss, wanted, on_mismatch="warn")
    except (ReplayError, GrazeError):
        pass
    try:
        polished = _error(net, inputs, polish(net, inputs, spikes, t_end=t_end), t_end, loss, wanted)
    except ReplayError as error:
        refusal = str(error)
    return GradientError(_time_error(given, truth), raw, polished, refusal)


def _with_leaf(inputs: Spikes) -> tuple[Tensor, Spikes]:
    """The inputs with times of their own that a gradient is wanted of."""
    leaf = inputs.times.detach().clone().requires_grad_()
    sizes: dict[str, int] = {"n_units": inputs.n_units, "batch_size": inputs.batch_size}
    return leaf, Spikes.from_events(leaf, inputs.units, inputs.samples, **sizes)


def _gradients(net: Net, leaf: Tensor, loss: Tensor) -> list[Tensor]:
    leaves = [parameter for parameter in net.parameters() if parameter.requires_grad]
    grads = torch.autograd.grad(loss, [*leaves, leaf], allow_unused=True)
    return [torch.zeros(()) if grad is None else grad for grad in grads]


def _error(
    net: Net,
    inputs: Spikes,
    spikes: Given,
    t_end: float | Tensor,
    loss: Loss,
    wanted: Sequence[Tensor],
    **options: Any,
) -> float:
    leaf, inputs = _with_leaf(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _gradients(net, leaf, loss(replay(net, inputs, spikes, t_end=t_end, **options).record))
    errors = [
        float((mine - exact).abs().max() / exact.abs().max())
        for mine, exact in zip(found, wanted, strict=True)
        if exact.numel() and bool((exact != 0.0).any())
    ]
    return max(errors, default=0.0)


def _time_error(given: Sequence[Spikes], truth: Record) -> float:
    worst = 0.0
    for mine, exact in zip(given, truth, strict=True):
        if not torch.equal(mine.counts(), exact.counts()):
            return np.nan
        fired = torch.isfinite(exact.to_padded_trains().detach())
        gaps = mine.to_padded_trains().detach()[fired] - exact.to_padded_trains().detach()[fired]
        worst = max(worst, float(gaps.abs().max()) if gaps.numel() else 0.0)
    return worst


# ------------------------------------------------------------------------------------------------- over many steps


@dataclass(frozen=True)
class Convergence:
    """Errors of a simulator with a time grid, over its step.

    source  the name of the simulator
    dt      (n,); errors, one per step
    """

    source: str
    dt: Floats
    errors: tuple[GradientError, ...]

    @property
    def times(self) -> Floats:
        """Largest error of a spike time at each step, (n,)."""
        return np.array([error.times for error in self.errors])

    @property
    def raw(self) -> Floats:
        """Error of the gradient of the spikes as they are, at each step, (n,)."""
        return np.array([error.raw for error in self.errors])

    @property
    def polished(self) -> Floats:
        """Error of the gradient of the refined spikes, at each step, (n,)."""
        return np.array([error.polished for error in self.errors])


def convergence(
    net: Net,
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    steps: Sequence[float],
    simulate: Simulator = clock_driven.simulate,
    source: str = "clock-driven",
    loss: Loss = every_spike,
) -> Convergence:
    """`gradient_error` of a simulator with every step dt of `steps`.

    simulate  called as simulate(net, inputs, t_end=..., dt=...), and named `source` in tables and pictures
    """
    errors = [
        gradient_error(net, inputs, simulate(net, inputs, t_end=t_end, dt=dt), t_end=t_end, loss=loss) for dt in steps
    ]
    return Convergence(source, np.array(steps, dtype=float), tuple(errors))


def draw_convergence(*results: Convergence) -> Figure:
    """The errors of one or several simulators against their step, a panel for each."""
    figure = new_figure(4.4 * max(len(results), 1) + 0.4, 4.0)
    panels = figure.subplots(1, max(len(results), 1), sharex=True, sharey=True, squeeze=False)[0]
    for ax, result in zip(panels, results, strict=False):
        _draw(ax, result)
    if results:
        panels[0].set_ylabel("error against the exact run")
        panels[0].legend(frameon=False, fontsize=pieces.SMALL, loc="center left")
        panels[0].invert_xaxis()
    return figure


def _draw(ax: Axes, result: Convergence) -> None:
    styles: dict[str, Any] = {"lw": 1.2, "ms": 5}
    ax.loglog(result.dt, result.raw, "o-", color=pieces.RED, label="gradient, spikes as given", **styles)
    ax.loglog(result.dt, result.times, "s-", color=pieces.GOLD, label="spike times (absolute)", **styles)
    known = np.flatnonzero(np.isfinite(result.times))
    if known.size > 1:
        fine = known[np.argsort(result.dt[known])]
        pieces.guide(ax, result.dt[fine], 0.4 * result.times[fine[0]], 1.0, "proportional to dt")
    polished = np.maximum(result.polished, LEAST)
    ax.loglog(result.dt, polished, "D-", color=pieces.BLUE, label="gradient, spikes polished", **styles)
    refused = result.dt[~np.isfinite(result.polished)]
    if refused.size:
        ax.plot(
            refused, np.full(refused.size, 1e-15), "x", color=pieces.BLUE, ms=6, label="polish refuses: other spikes"
        )
    ax.set(xlabel="step dt", ylim=(LEAST / 3.0, 30.0))
    ax.set_title(result.source, loc="left")
