"""A read-out of leaky integrators: Spikes in, potentials at any time out, all of it differentiable exactly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fireprop import arguments, responses
from fireprop.eager import eagerly
from fireprop.nn import checks, initial
from fireprop.nn.constants import adapt_state, exact_constants, keep_constant
from fireprop.spikes import Spikes
from fireprop.weighting import Piece, Weighting, pieces

SPREAD = 1.0


class Maximum(NamedTuple):
    """The highest potential of every unit, (batch, units) float64, and the first time of it, a constant."""

    potential: Tensor
    time: Tensor


class LI(nn.Module):
    r"""Leaky integrators without a threshold, which listen to spikes.

    .. math:: I' = -I/\tau_{syn} + \sum_j w_j \delta(t - t_j), \qquad V' = -V/\tau_{mem} + I

    in_features, out_features  numbers of units
    tau_mem    time constant of the membrane > 0, a number or (out,), in the unit of the spike times
    tau_syn    of the synapses > 0, a number or (out, 1), one per receiver; it may equal tau_mem
    dtype      of the weights and their gradient, torch.float32 or torch.float64; default torch's. All else is float64
    generator  of the initial weights; default torch's own, as in torch.nn

    An nn.Parameter (float64) as tau_mem or tau_syn is trained; `keep_positive` trains its logarithm. The module maps
    `Spikes` to a `Trace`, of which one asks what a loss needs:

    >>> readout = LI(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.ones_(readout.weight)
    >>> trace = readout(Spikes.from_latencies([[0.1, 0.4]]))
    >>> trace.potential(torch.tensor([0.1, 1.1], dtype=torch.float64)).detach()
    tensor([[[0.0000, 0.4825]]], dtype=torch.float64)
    >>> trace.maximum(0.0, 2.0).time
    tensor([[0.9763]], dtype=torch.float64)

    It may stand at the end of a `Sequential`, which then returns the trace. With stop="first_spikes" before it, the
    trace is known as far as the spikes are.
    """

    tau_mem: Tensor
    tau_syn: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau_mem: float | Tensor,
        tau_syn: float | Tensor,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        n_in, n_out = checks.size("in_features", in_features), checks.size("out_features", out_features)
        self.in_features, self.out_features = n_in, n_out
        keep_constant(self, "tau_mem", tau_mem, (n_out,))
        keep_constant(self, "tau_syn", tau_syn, (n_out, 1))
        self.weight = nn.Parameter(checks.empty_weight(n_out, n_in, checks.weight_dtype(dtype)))
        self.reset_parameters(generator=generator)

    def reset_parameters(self, *, spread: float = SPREAD, generator: torch.Generator | None = None) -> None:
        """Draw normal weights of mean 0.

        spread  standard deviation of the potential at its peak, if each input brings one spike at once; >= 0
        """
        spread = arguments.number("spread", spread, least=0.0)
        checks.generator(generator)
        with torch.no_grad():
            taus = self.tau_mem.double(), self.tau_syn.double()
            ones = torch.ones(self.out_features, dtype=torch.float64)
            initial.draw_balanced_(self.weight, ones, initial.peaks(*taus), None, spread=spread, generator=generator)

    @eagerly
    def forward(self, inputs: Spikes) -> "Trace":
        """The potentials that these spikes cause, (batch, out) at any time.

        Raises ValueError for inputs with another n_units, a constant or a weight out of range, TypeError for a dtype.
        """
        checks.check_inputs(self.in_features, "the read-out in_features", inputs)
        shape = self.out_features, self.in_features
        checks.check_weight("read-out", "weight", self.weight, checks.dtype_of_run(self.weight), shape)
        tau_mem = _checked("tau_mem", self.tau_mem, (self.out_features,))
        tau_syn = _checked("tau_syn", self.tau_syn, (self.out_features, 1))
        return Trace.of(inputs, arguments.finite("weight", self.weight), tau_mem, tau_syn)

    def extra_repr(self) -> str:
        parts = [f"{self.in_features}, {self.out_features}"]
        for name in ("tau_mem", "tau_syn"):
            value = getattr(self, name).detach()
            parts.append(f"{name}=" + (f"{value.item():g}" if value.dim() == 0 else str(tuple(value.shape))))
        return ", ".join(parts)

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str],
        unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        adapt_state(self, state, prefix, errors)
        super()._load_from_state_dict(state, prefix, metadata, strict, missing, unexpected, errors)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LI":
        """Convert weights only: time constants stay float64, to the bit, also in net.float()."""
        with exact_constants(self, ("tau_mem", "tau_syn")):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The potentials of a read-out over time, for a batch: V(t) in closed form, from the state at the arrival before.

    inputs       the spikes that it heard
    weight       (units, sources) float64; alpha = 1/tau_syn and beta = 1/tau_mem, (units,)
    states       V and I just after every arrival

    Its methods return float64 tensors. They are differentiable once in the weight, the times of the inputs, tau_mem and
    tau_syn, in reverse and forward mode (torch.func.jvp). Before the first spike of a sample V is 0. Whatever asks for
    a time at which an early stop has left the inputs unknown raises ValueError and names `stop`.
    """

    inputs: Spikes
    weight: Tensor
    alpha: Tensor
    beta: Tensor
    states: responses.States

    @classmethod
    def of(cls, inputs: Spikes, weight: Tensor, tau_mem: Tensor, tau_syn: Tensor) -> "Trace":
        """The trace of units with these constants, which are valid: weight (units, sources), as of `LI`."""
        n_units, weight = weight.shape[0], weight.double()
        beta, alpha = 1.0 / tau_mem.expand(n_units), 1.0 / tau_syn.reshape(-1).expand(n_units)
        return cls(inputs, weight, alpha, beta, responses.states(inputs, weight, alpha, beta))

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def n_units(self) -> int:
        """Number of leaky integrators."""
        return self.weight.shape[0]

    def __repr__(self) -> str:
        return f"Trace(batch={len(self)}, units={self.n_units}, inputs={self.inputs!r})"

    @eagerly
    def potential(self, times: Tensor) -> Tensor:
        """V at given times, (n_times,) or (batch, n_times), constants in any order: (batch, units, n_times).

        At an arrival V has a kink: its derivative by the time of that arrival is then the one for a later arrival, 0.
        """
        return self.states_at(times).v.transpose(1, 2)

    def states_at(self, times: Tensor) -> responses.States:
        """V and I at given times, as `potential`: (batch, n_times, units) each."""
        return self._state_at(self._moments("times", times))

    @eagerly
    def maximum(self, t_start: float | Tensor, t_end: float | Tensor) -> Maximum:
        """The highest V of every unit within [t_start, t_end], numbers or (batch,), and when it is reached first.

        It is found in closed form in every gap between arrivals, not on a grid. Its derivative is that of V at fixed
        time, since V' = 0 there or the time is an end of the window (envelope theorem). If V peaks at an inhibitory
        arrival, the peak moves with that arrival. One-sided where two times are equally high.
        """
        start, end = self._window(t_start, t_end)
        found = responses.maxima(self.inputs, self.states, self.alpha, self.beta, start, end)
        n = self.inputs.n_spikes
        none, units = found.event == n, torch.arange(self.n_units)
        arrivals = _padded(self.inputs.times)[found.event]
        constant = arrivals.detach()
        # Fixed in time, but for a kink, which is at gap 0 from its arrival.
        gap = torch.where(found.gap > 0.0, found.gap + (constant - arrivals), 0.0)
        v, i = (_padded(state)[found.event, units] for state in self.states)
        highest = responses.step(v, i, gap, self.alpha, self.beta).v
        return Maximum(highest, torch.where(none, start[:, None], constant + found.gap))

    @eagerly
    def integral(self, t_start: float | Tensor, t_end: float | Tensor, *, weighting: Weighting | None = None) -> Tensor:
        """The integral of V over [t_start, t_end], numbers or (batch,), in closed form: (batch, units).

        weighting  a function of time that V is multiplied by, `fireprop.losses.Weighting`. Default: 1 everywhere
        """
        start, end = self._window(t_start, t_end)
        total = self.weight.new_zeros(len(self), self.n_units)
        for piece in pieces(weighting, start, end):
            total = total + piece.value * self._integral(piece)
        return total

    @eagerly
    def mean(self, t_start: float | Tensor, t_end: float | Tensor, *, weighting: Weighting | None = None) -> Tensor:
        """`integral`, weighted or not, divided by the duration of the window, which must not be 0."""
        start, end = self._window(t_start, t_end)
        empty = arguments.first_true(end <= start)
        if empty is not None:
            b = empty[0]
            raise ValueError(f"t_end = {float(end[b])} equals t_start in sample {b}: a mean needs t_end > t_start")
        return self.integral(start, end, weighting=weighting) / (end - start)[:, None]

    def _integral(self, piece: Piece) -> Tensor:
        """The integral of exp(-rate (t - origin)) V over a piece: of what is there at its start, and of what arrives.

        The factor exp(-rate t) adds the rate to alpha and to beta.
        """
        rates = self.alpha + piece.rate, self.beta + piece.rate
        duration = (piece.end - piece.start).clamp(min=0.0)[:, None]
        v, i = self._state_at(piece.start[:, None])
        decay = torch.exp(-piece.rate * (piece.start - piece.origin))[:, None]
        leak = responses.response(duration, torch.zeros_like(self.beta), rates[1])
        there = decay * (v[:, 0] * leak + i[:, 0] * responses.sum_of_response(duration, *rates))

        times, samples = self.inputs.times, self.inputs.samples
        constant = times.detach()
        inside = torch.nonzero((constant >= piece.start[samples]) & (constant < piece.end[samples]))[:, 0]
        arrivals, owners = times[inside], samples[inside]
        decay = torch.exp(-piece.rate * (arrivals - piece.origin))[:, None]
        caused = decay * responses.sum_of_response((piece.end[owners] - arrivals)[:, None], *rates)
        return there.index_add(0, owners, caused * self.weight.T[self.inputs.units[inside]])

    def _state_at(self, moments: Tensor) -> responses.States:
        """V(t-) and I(t-) at moments (batch, n): (batch, n, units) each."""
        width = int(self.inputs.offsets.diff().max()) if len(self) else 0
        n, starts = self.inputs.n_spikes, self.inputs.offsets[:-1, None]
        slots = starts + torch.arange(width)
        slots = torch.where(slots < self.inputs.offsets[1:, None], slots, n)
        arrivals = _padded(self.inputs.times, torch.inf)
        before = torch.searchsorted(arrivals.detach()[slots], moments)
        event = torch.where(before > 0, starts + before - 1, n)
        gap = torch.where(before > 0, moments - _padded(self.inputs.times)[event], 0.0)
        v, i = (_padded(state)[event] for state in self.states)
        return responses.step(v, i, gap[..., None], self.alpha, self.beta)

    def _moments(self, name: str, times: Tensor) -> Tensor:
        """Constant times (batch, n), all of them known."""
        given = arguments.finite(name, arguments.reals(name, times))
        if given.requires_grad:
            raise TypeError(f"{name} requires a gradient, but fireprop computes none for it: pass {name}.detach()")
        if given.dim() not in (1, 2) or (given.dim() == 2 and given.shape[0] != len(self)):
            raise ValueError(f"{name} has shape {tuple(given.shape)}: give (n_times,) or ({len(self)}, n_times)")
        moments = given.expand(len(self), given.shape[-1]).contiguous()
        self._require_known(name, moments)
        return moments

    def _window(self, t_start: float | Tensor, t_end: float | Tensor) -> tuple[Tensor, Tensor]:
        start, end = (self._moment(name, value) for name, value in (("t_start", t_start), ("t_end", t_end)))
        bad = arguments.first_true(end < start)
        if bad is not None:
            b = bad[0]
            raise ValueError(f"t_end = {float(end[b])} is before t_start = {float(start[b])} in sample {b}")
        self._require_known("t_end", end[:, None])
        return start, end

    def _moment(self, name: str, value: float | Tensor) -> Tensor:
        """A constant time per sample (batch,)."""
        given = arguments.finite(name, arguments.reals(name, value))
        if given.requires_grad:
            raise TypeError(f"{name} requires a gradient, but fireprop computes none for it: pass {name}.detach()")
        if given.shape not in ((), (len(self),)):
            raise ValueError(f"{name} has shape {tuple(given.shape)}: give a number or ({len(self)},)")
        return given.expand(len(self)).contiguous()

    def _require_known(self, name: str, moments: Tensor) -> None:
        known, ends = self.inputs.t_known, self.inputs.t_end
        if known is None or ends is None:
            return
        late = arguments.first_true((moments > known[:, None]) & (known < ends)[:, None])
        if late is not None:
            raise ValueError(
                f"{name}: t = {float(moments[late])} of sample {late[0]}, whose inputs are known only to t = "
                f'{float(known[late[0]])}, after an early stop (stop="first_spikes"): run the network without stop'
            )


def _padded(values: Tensor, last: float = 0.0) -> Tensor:
    """One more entry (or row), for the place where no arrival is."""
    return torch.cat((values, values.new_full((1, *values.shape[1:]), last)))


def _checked(name: str, tau: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A time constant as it is now, after training."""
    tau = tau.double()
    checks.constant(name, tau.detach(), shape)
    return tau
