"""Chains of modules that map Spikes to Spikes."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fireprop import engine
from fireprop.nn.checks import check_options
from fireprop.nn.fused import run_layers
from fireprop.nn.lif import LIF
from fireprop.nn.network import Network
from fireprop.nn.record import GradientBy, OnGraze, Record, Stop
from fireprop.spikes import Spikes


class Sequential(nn.Sequential):
    """A chain of modules that map Spikes to Spikes.

    Neighbouring LIF layers run as one event loop and one node of the graph; the result is the same, bit for bit, as
    that of the layers one after the other.

    >>> import torch
    >>> net = Sequential(LIF(5, 20, tau_mem=1.0, tau_syn=0.5), LIF(20, 3, tau_mem=1.0, tau_syn=0.5))
    >>> out = net(Spikes.from_latencies(torch.rand(8, 5)), t_end=4.0, stop="first_spikes")
    >>> out.first(1).shape
    torch.Size([8, 3, 1])
    """

    def forward(  # type: ignore[override]
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
    ) -> Spikes:
        """Spikes of the last layer, with differentiable times.

        inputs      Spikes with n_units = in_features of the first layer
        t_end       a number or (batch,): spikes from t_end on do not exist, input spikes included
        t_start     a number or (batch,), not after any input: where a bias or an initial state begins to act; needed
                    where there is one
        stop        "first_spikes" ends a sample as soon as every output unit has fired once; what comes after is then
                    unknown, and whatever needs it raises
        on_graze    what a derivative does that needs a spike of slope 0: "raise" GrazeError, or "zero": nothing flows
        gradient    how `backward` finds the gradient: "adjoint", or "forward", the paper's forward propagation, with
                    the same result, to float32 rounding if weights are float32 (docs/gradients.md)
        max_sensitivity  None, or the largest 1/slope that derivatives may use: a spike that nearly grazes moves at
                    most as far as one of slope 1/max_sensitivity. Spikes stay as they are; a gradient that needed it
                    is not exact any more (docs/gradients.md)
        max_spikes  limit of spikes per layer and sample, a million by default; beyond it SpikeLimitError

        Raises ValueError for inputs, constants or weights that are out of range, TypeError for a dtype other than
        float32 and float64, TimeResolutionError if spikes of a unit come within 2**-42 of their time.
        """
        options: dict[str, Any] = {"on_graze": on_graze, "gradient": gradient, "max_spikes": max_spikes}
        if max_sensitivity is not None:
            options["max_sensitivity"] = max_sensitivity
        if t_start is not None:
            options["t_start"] = t_start
        spikes, _ = self._run(inputs, t_end=t_end, stop=stop, **options)
        return spikes

    def record(self, inputs: Spikes, **options: Any) -> Record:
        """As `forward`, but the spikes of every LIF layer, all in one graph: a loss may use any of them together."""
        _, records = self._run(inputs, **options)
        return Record(
            layers=tuple(spikes for record in records for spikes in record.layers),
            runs=tuple(run for record in records for run in record.runs),
        )

    def _run(self, inputs: Spikes, *, stop: Stop = None, **options: Any) -> tuple[Spikes, list[Record]]:
        stages = stages_of(self)
        fused = [k for k, stage in enumerate(stages) if isinstance(stage, list | LIF | Sequential | Network)]
        if stop is not None and len(fused) > 1:
            between = type(stages[fused[-1] - 1]).__name__
            raise ValueError(
                f'stop="{stop}" needs all LIF layers in one run, but a {between} stands between two of them: '
                "move it to an end of the network, or run without stop"
            )
        if not fused:  # a run of layers checks them itself
            check_options(stop=stop, **options)
        spikes: Spikes = inputs
        records: list[Record] = []
        for stage in stages:
            if isinstance(stage, list):
                number = sum(len(record) for record in records)
                records.append(run_layers(stage, spikes, first_layer=number, stop=stop, **options))
                spikes = records[-1][-1]
            elif isinstance(stage, LIF | Sequential | Network):  # one that does more than ours
                spikes = stage(spikes, stop=stop, **options)
            else:
                spikes = stage(spikes)
        return spikes, records


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module does what `kind` does and nothing else: it overrides no forward and has no hooks."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return isinstance(module, kind) and type(module).forward is kind.forward and not hooks


def stages_of(modules: Sequence[nn.Module] | nn.Sequential) -> list[list[LIF] | nn.Module]:
    """The modules in order, neighbouring LIF layers together in lists, also across nested Sequentials."""
    stages: list[list[LIF] | nn.Module] = []
    for module in modules:
        parts: list[list[LIF] | nn.Module]
        if isinstance(module, Sequential) and _is_plain(module, Sequential):
            parts = stages_of(module)
        else:
            parts = [[module] if isinstance(module, LIF) and _is_plain(module, LIF) else module]
        for part in parts:
            if isinstance(part, list) and stages and isinstance(stages[-1], list):
                stages[-1].extend(part)
            else:
                stages.append(part)
    return stages
