"""A layer of leaky integrate-and-fire neurons as an ordinary torch module: Spikes in, Spikes out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.compat.tensors import has_hooks, has_own, note_in_state
from fireprop.eager import eagerly
from fireprop.nn import checks, initial
from fireprop.nn.connectivity import Connectivity, keep_mask
from fireprop.nn.constants import (
    OPTIONAL,
    adapt_state,
    check_synapse,
    exact_constants,
    is_trained,
    keep_adaptation,
    keep_constant,
    keep_synaptic,
)
from fireprop.nn.fused import run_layers
from fireprop.nn.record import GradientBy, OnGraze, Record, called, contribute, joined
from fireprop.nn.state import From
from fireprop.nn.stencils import Stencil
from fireprop.nn.stop import Stop
from fireprop.spikes import Shape, Spikes
from fireprop.synapses import Synapse

EXACT = (
    "tau_mem", "tau_syn", "t_ref", "v_threshold", "tau_syn_rec", "delay", "delay_rec", "bias", "v_start", "i_start",
    "adaptation", "tau_adapt",
)  # fmt: skip


class LIF(nn.Module):
    r"""A layer of leaky integrate-and-fire neurons, with or without recurrence, simulated exactly, event by event.

    .. math:: I' = -I/\tau_{syn} + \sum_j w_j \delta(t - t_j), \qquad V' = -V/\tau_{mem} + I

    A neuron fires when V reaches v_threshold from below. V is then 0 for the refractory period t_ref (Lee et al. 2023,
    equations 1-4, plus the refractory period). A unit with synapses of several tau_syn has one such current for each.

    in_features, out_features  numbers of units
    tau_mem          time constant of the membrane > 0, a number or (out,), in the unit of the spike times; inf: no leak
                     (integrate and fire). This and all constants below may be an nn.Parameter (float64), which is then
                     trained, exactly; `keep_positive` trains its logarithm. A trained tau_mem is finite
    tau_syn          of the synapses > 0: a number, (1, in) per source, (out, 1) per unit, or (out, in) per synapse; any
                     may equal a tau_mem. Each distinct value adds a state variable per unit, and run time
    synapse          "exponential" or "alpha". A spike at an alpha synapse brings the current w (t / tau_syn)
                     exp(-t / tau_syn), of the same area as at an exponential synapse of this weight (docs/neurons.md).
                     Recurrent synapses are of the same kind. Default "exponential"
    v_threshold      > 0, a number or (out,). Default 1
    t_ref            refractory period >= 0, a number or (out,). Default 0
    mask             (out, in) bool, True where a synapse exists, or a torch sparse tensor (COO, CSR) whose stored
                     entries are the synapses. Then weight is (n_synapses,) in the order of CSR, and memory and time
                     grow with the synapses alone (docs/sparse.md). Or a `Stencil`, whose synapses share weights: see
                     `Conv2d`. Default: everywhere
    recurrent        whether the units connect to one another and to themselves by recurrent_weight (out, out)
    recurrent_mask   (out, out), likewise for recurrent_weight. Default: everywhere, self-loops included
    tau_syn_rec      of the recurrent synapses: a number, (1, out) per source, (out, 1), (out, out). Default: tau_syn,
                     where that is a number or (out, 1) and not trained; otherwise required
    delay            between a spike and its arrival >= 0: a number, (1, in) per source (axonal), (out, 1) per unit
                     (dendritic), or (out, in) per synapse. Default: none
    delay_rec        of the recurrent synapses, likewise. Default: none
    bias             constant current, a number or (out,), from t_start on, which a run then needs: with it V' =
                     -V/tau_mem + I + bias. Default: none
    v_start, i_start V at t_start, below v_threshold, and I there, which decays with tau_syn, a number or (out, 1) then;
                     numbers or (out,). Default: 0, both
    adaptation       by how much each own spike lowers the unit's adaptation current, in the unit of the weights: a
                     number or (out,); below 0 it raises it. The current adds to I and decays with tau_adapt. It is
                     rounded to the dtype of the weights where it enters I. Default: none (docs/adaptation.md)
    tau_adapt        time constant of the adaptation current > 0, a number or (out,). Needed with adaptation
    dtype            of the weights and their gradient, torch.float32 or torch.float64; default torch's. Times and the
                     other constants are float64 always. V and I have the dtype of the weights (design, section 5)
    generator        of the initial weights; default torch's own, as in torch.nn

    Weights start as `reset_parameters` says. The module maps `Spikes` to `Spikes`:

    >>> layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5)
    >>> _ = torch.nn.init.constant_(layer.weight, 5.0)
    >>> layer(Spikes.from_latencies([[0.1, 0.4]]), t_end=2.0)
    Spikes(batch=1, units=1, spikes=3, t in [0.405949, 0.849378], t_end=2.0)

    The derivative is one-sided where an arrival coincides with a spike or with the end of a refractory period. Where a
    delay of a unit to itself equals its t_ref, dL/ddelay_rec is the derivative from the right, for a longer delay.
    dL/dt_ref is then the derivative from the left, for a shorter t_ref. The derivative is infinite at a graze. It does
    not include spikes that a finite change of the parameters would create or delete (design, section 3).
    """

    tau_mem: Tensor
    tau_syn: Tensor
    t_ref: Tensor
    v_threshold: Tensor
    mask: Tensor | Connectivity | None
    recurrent_mask: Tensor | Connectivity | None
    tau_syn_rec: Tensor | None
    delay: Tensor | None
    delay_rec: Tensor | None
    bias: Tensor | None
    v_start: Tensor | None
    i_start: Tensor | None
    adaptation: Tensor | None
    tau_adapt: Tensor | None

    in_shape: Shape | None = None  # of the sources, (channels, height, width) or (channels, length), where it matters
    out_shape: Shape | None = None  # likewise of the units
    _as_graph = False  # whether it runs as a graph though it is plain, to check one engine against the other

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau_mem: float | Tensor,
        tau_syn: float | Tensor,
        synapse: Synapse = "exponential",
        v_threshold: float | Tensor = 1.0,
        t_ref: float | Tensor = 0.0,
        mask: Tensor | Stencil | None = None,
        recurrent: bool = False,
        recurrent_mask: Tensor | Stencil | None = None,
        tau_syn_rec: float | Tensor | None = None,
        delay: float | Tensor | None = None,
        delay_rec: float | Tensor | None = None,
        bias: float | Tensor | None = None,
        v_start: float | Tensor | None = None,
        i_start: float | Tensor | None = None,
        adaptation: float | Tensor | None = None,
        tau_adapt: float | Tensor | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        n_in, n_out = checks.size("in_features", in_features), checks.size("out_features", out_features)
        self.in_features, self.out_features = n_in, n_out
        self.recurrent = arguments.flag("recurrent", recurrent)
        self.synapse = checks.synapse(synapse)
        for name, value in (
            ("recurrent_mask", recurrent_mask), ("tau_syn_rec", tau_syn_rec), ("delay_rec", delay_rec)
        ):  # fmt: skip
            if not recurrent and value is not None:
                raise ValueError(f"{name} is given, but recurrent = False: pass recurrent=True, or leave it out")
        units = (n_out,)
        keep_constant(self, "tau_mem", tau_mem, units, leak_free=True)
        keep_synaptic(self, "tau_syn", tau_syn, n_out, n_in)
        keep_constant(self, "t_ref", t_ref, units)
        keep_constant(self, "v_threshold", v_threshold, units)
        keep_synaptic(self, "delay", delay, n_out, n_in)
        keep_constant(self, "bias", bias, units)
        keep_constant(self, "v_start", v_start, units)
        keep_constant(self, "i_start", i_start, units)
        keep_adaptation(self, adaptation, tau_adapt, n_out)
        if i_start is not None and self.tau_syn.dim() > 0 and tuple(self.tau_syn.shape) != (n_out, 1):
            raise ValueError(
                f"i_start needs one synaptic current per unit, but tau_syn has shape {tuple(self.tau_syn.shape)}: "
                "give tau_syn as a number or (out, 1)"
            )
        keep_mask(self, "mask", mask, (n_out, n_in))
        self.weight = nn.Parameter(checks.empty_weight(n_out, n_in, checks.weight_dtype(dtype), self.mask))
        self._init_recurrence(recurrent_mask, tau_syn_rec, delay_rec)
        self.reset_parameters(generator=generator)

    def _init_recurrence(
        self,
        recurrent_mask: Tensor | Stencil | None,
        tau_syn_rec: float | Tensor | None,
        delay_rec: float | Tensor | None,
    ) -> None:
        n = self.out_features
        keep_synaptic(self, "delay_rec", delay_rec, n, n)
        if not self.recurrent:
            self.register_buffer("recurrent_mask", None)
            self.register_buffer("tau_syn_rec", None)
            self.register_parameter("recurrent_weight", None)
            return
        if tau_syn_rec is None:
            if self.tau_syn.dim() > 0 and tuple(self.tau_syn.shape) != (n, 1):
                raise ValueError(
                    f"tau_syn has shape {tuple(self.tau_syn.shape)}, which does not fit the recurrent synapses: "
                    "give tau_syn_rec"
                )
            if is_trained(self, "tau_syn"):
                raise ValueError("tau_syn is trained: give tau_syn_rec too, a number or a parameter")
            tau_syn_rec = self.tau_syn
        keep_mask(self, "recurrent_mask", recurrent_mask, (n, n))
        keep_synaptic(self, "tau_syn_rec", tau_syn_rec, n, n)
        self.recurrent_weight = nn.Parameter(checks.empty_weight(n, n, self.weight.dtype, self.recurrent_mask))

    def reset_parameters(
        self,
        *,
        spikes_per_input: float | None = None,
        window: float | None = None,
        gain: float | None = None,
        spread: float | None = None,
        recurrent_spread: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw normal weights with which units fire from the start.

        **Without arguments** nothing is assumed about the inputs, but that each source fires about once. Each unit has
        one strong synapse, from its principal source; the sources take turns. A spike of that source makes the unit
        fire once, whatever the others do. It takes V to (1 + (0.7 ± 0.05) m) * threshold; from (1 + m) * threshold on
        the unit would fire twice. m is 0.56 at tau_syn = tau_mem / 2, less for longer synapses. All other weights have
        mean 0, those of recurrent synapses too. If each source fires once at one instant, they move V by 0.05 m *
        threshold (one standard deviation). So every layer of a chain, recurrent or not, fires about one spike per unit.
        The more spikes of a source overlap, the more a unit fires: `initialise` scales the weights to any inputs
        (docs/starting_weights.md).

        **For inputs that you know**, give any of the next four. Then all sources drive a unit together. The mean weight
        is gain * threshold / (synapses * spikes_per_input * H), where H is the peak of the response of the membrane to
        one unit of current spread over the window.

        spikes_per_input  mean number of spikes of an input unit per sample. Default 1
        window            duration over which they arrive, evenly. Default 0: all at once
        gain              highest mean potential that they cause, over the threshold. A unit fires if it is above 1.
                          Default 2.8, a few spikes per unit
        spread            standard deviation of a weight, over its mean. Default 0.5
        recurrent_spread  standard deviation of the potential that all recurrent synapses of a unit cause if each brings
                          one spike at once, over the threshold; their mean is 0. Default: 0.05 m
        generator         default: torch's own, as in torch.nn

        Weights of synapses that do not exist are 0. Raises ValueError for a value out of range, and for weights that
        the dtype cannot represent.
        """
        checks.generator(generator)
        for weight in (self.weight, self.recurrent_weight):
            checks.check_own_weight("reset_parameters", weight)
        theta = self.v_threshold.detach().expand(self.out_features)
        tau_mem = self.tau_mem.detach()
        taus = tau_mem, self.tau_syn.detach(), self.synapse
        rows = initial.rows_of(self.weight, theta, taus, self.mask)
        if all(value is None for value in (spikes_per_input, window, gain, spread)):
            initial.draw_copying_(*rows, generator=generator)
        else:
            rate = (
                1.0 if spikes_per_input is None else arguments.number("spikes_per_input", spikes_per_input, above=0.0)
            )
            window = 0.0 if window is None else arguments.number("window", window, least=0.0)
            peaks = initial.peaks(*rows.taus, window=window, mask=rows.mask)
            initial.draw_driving_(
                rows.weight, rows.theta, rate * peaks, rows.mask,
                gain=initial.GAIN if gain is None else arguments.number("gain", gain, above=0.0),
                spread=initial.SPREAD if spread is None else arguments.number("spread", spread, least=0.0),
                generator=generator,
            )  # fmt: skip
        if self.tau_syn_rec is None:
            return
        taus = tau_mem, self.tau_syn_rec.detach(), self.synapse
        rows = initial.rows_of(self.recurrent_weight, theta, taus, self.recurrent_mask)
        if recurrent_spread is None:
            initial.draw_lateral_(*rows, generator=generator)
        else:
            initial.draw_balanced_(
                rows.weight, rows.theta, initial.peaks(*rows.taus, mask=rows.mask), rows.mask,
                spread=arguments.number("recurrent_spread", recurrent_spread, least=0.0), generator=generator,
            )  # fmt: skip

    @eagerly
    def forward(
        self,
        inputs: Spikes,
        *,
        t_end: float | Tensor,
        t_start: float | Tensor | None = None,
        stop: Stop = None,
        on_graze: OnGraze = "raise",
        gradient: GradientBy = "adjoint",
        max_sensitivity: float | None = None,
        max_spikes: int = engine.DEFAULT_MAX_SPIKES,
        state: From = None,
    ) -> Spikes:
        """The layer's spikes; see `Sequential.forward`."""
        run = self.record if has_own(self, LIF, "record") else partial(run_layers, [self])
        spikes: Spikes = run(
            inputs, t_end=t_end, t_start=t_start, stop=stop, on_graze=on_graze, gradient=gradient,
            max_sensitivity=max_sensitivity, max_spikes=max_spikes, state=state,
        )[-1]  # fmt: skip
        return spikes

    @eagerly
    def record(
        self,
        inputs: Spikes,
        *,
        t_end: float | Tensor,
        t_start: float | Tensor | None = None,
        stop: Stop = None,
        on_graze: OnGraze = "raise",
        gradient: GradientBy = "adjoint",
        max_sensitivity: float | None = None,
        max_spikes: int = engine.DEFAULT_MAX_SPIKES,
        state: From = None,
    ) -> Record:
        """As `forward`, but as a `Record`, which has the slopes too; hooks of the layer run as in a call of it."""
        options: dict[str, Any] = {
            "t_end": t_end, "t_start": t_start, "stop": stop, "on_graze": on_graze, "gradient": gradient,
            "max_sensitivity": max_sensitivity, "max_spikes": max_spikes, "state": state,
        }  # fmt: skip
        if not has_hooks(self) or has_own(self, LIF, "record"):  # which the call would ask again
            return run_layers([self], inputs, **options)
        found, out = called(self, inputs, options)
        return contribute(joined(found).ending_with(out, after=0))

    def extra_repr(self) -> str:
        parts = [f"{self.in_features}, {self.out_features}"]
        optional = [name for name in OPTIONAL if getattr(self, name) is not None]
        for name in ("tau_mem", "tau_syn", "v_threshold", "t_ref", *optional):
            value = getattr(self, name)
            shown = f"{value.item():g}" if value.dim() == 0 else str(tuple(value.shape))
            parts.append(f"{name}={shown}")
        if self.recurrent:
            parts.append("recurrent=True")
        if self.synapse != "exponential":
            parts.append(f"synapse={self.synapse}")
        parts += [f"{n}=True" for n in ("mask", "recurrent_mask") if isinstance(getattr(self, n), Tensor)]
        return ", ".join(parts)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        note_in_state(destination, prefix, "synapse", self.synapse)

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str],
        unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        adapt_state(self, state, prefix, errors, "tau_syn", "tau_syn_rec", "delay", "delay_rec")
        check_synapse(self, prefix, metadata, errors)
        super()._load_from_state_dict(state, prefix, metadata, strict, missing, unexpected, errors)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LIF":
        """Convert weights only: times, time constants and thresholds stay float64, to the bit, also in net.float()."""
        with exact_constants(self, EXACT):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
