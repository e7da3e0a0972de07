"""One run of a network: how it is made, and what is kept of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fireprop import arguments, autograd, engine
from fireprop.nn.checks import check_index
from fireprop.spikes import Spikes

Stop: TypeAlias = Literal["first_spikes"] | None
OnGraze: TypeAlias = Literal["raise", "zero"]
GradientBy: TypeAlias = Literal["adjoint", "forward"]


@dataclass(frozen=True, repr=False)
class Record:
    """The spikes of every layer of one run, in one graph: `record[k]` of layer k, `record[-1]` of the output.

    The layers of a `Network` are its populations, in the order in which they were added, and have names too:
    `record["hidden"]`. `output` is the name of the population that is the output, which may be another than the last.
    """

    layers: tuple[Spikes, ...]
    runs: tuple[engine.Run, ...]
    names: tuple[str, ...] = ()
    output: str | None = None

    @cached_property
    def slopes(self) -> tuple[Tensor, ...]:
        """V'(f-) of every spike, per layer (n_spikes,) float64, constants.

        1/slope is the sensitivity of a spike; a slope of 0 or less marks a graze, where the time exists but its
        derivative does not.
        """
        return tuple(torch.from_numpy(run.slopes(level + 1)) for run in self.runs for level in range(run.n_layers))

    def __getitem__(self, layer: int | str) -> Spikes:
        return self.layers[self._number(layer)]

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        names = self.names or tuple(map(str, range(len(self))))
        parts = (f"{name}: {spikes!r}" for name, spikes in zip(names, self.layers, strict=True))
        return f"Record({', '.join(parts)})"

    def __iter__(self) -> Iterator[Spikes]:
        return iter(self.layers)

    def potential(self, layer: int | str, unit: int, times: Tensor, *, sample: int = 0) -> Tensor:
        """Membrane potential V(t-) of one unit at ascending times (n,), from the spikes alone (Lee et al., Theorem 1).

        Raises IndexError for a layer, unit or sample that is not there, ValueError for times that are not ascending, or
        after t_known of the sample.
        """
        return self._trace(layer, unit, times, sample)[0]

    def current(self, layer: int | str, unit: int, times: Tensor, *, sample: int = 0) -> Tensor:
        """Synaptic current I(t-) of one unit at ascending times (n,), the sum over all tau_syn; see `potential`."""
        return self._trace(layer, unit, times, sample)[1]

    def threshold(self, layer: int | str) -> Tensor:
        """v_threshold of the units of a layer, as it was in the run: (out,) float64."""
        run, local = self._locate(layer)
        return torch.from_numpy(engine.constants(run, local)[1])

    def _trace(self, layer: int | str, unit: int, times: Tensor, sample: int) -> tuple[Tensor, Tensor]:
        run, local = self._locate(layer)
        spikes = self[layer]
        check_index("unit", unit, spikes.n_units)
        check_index("sample", sample, spikes.batch_size)
        grid = arguments.reals("times", times).detach()
        if grid.dim() != 1 or not bool(torch.isfinite(grid).all()) or not bool((grid.diff() >= 0.0).all()):
            raise ValueError("times: give one dimension of finite times in ascending order")
        known = float(run.t_known[sample])
        if grid.numel() and float(grid[-1]) > known:
            raise ValueError(
                f"times[-1] = {float(grid[-1])}: sample {sample} is known only to t = {known}. "
                "Run to a later t_end, or without stop"
            )
        v, i = engine.trace(run, sample, local, unit, grid.numpy())
        return torch.from_numpy(v), torch.from_numpy(i)

    def _number(self, layer: int | str) -> int:
        if not isinstance(layer, str):
            check_index("layer", layer, len(self), negative=True)
            return layer
        if layer not in self.names:
            raise KeyError(f"layer = {layer!r}: the populations are {', '.join(self.names) or 'not named'}")
        return self.names.index(layer)

    def _locate(self, layer: int | str) -> tuple[engine.Run, int]:
        """The run that a layer is in, and its number there."""
        local = self._number(layer) % len(self.layers)
        for run in self.runs:
            if local < run.n_layers:
                return run, local
            local -= run.n_layers
        raise RuntimeError("a record has as many layers as its runs: please report this")


def simulation_of(
    solve: autograd.Solve,
    parts: Sequence[engine.graph.Part],
    *,
    on_graze: OnGraze,
    gradient: GradientBy,
    max_sensitivity: float | None,
) -> autograd.Simulation:
    """A simulation with the options of a run; parts: the constants by which it is differentiated too."""
    return autograd.Simulation(
        solve,
        zero_grazes=on_graze == "zero",
        parts=parts,
        by_forward_rules=gradient == "forward",
        max_sensitivity=max_sensitivity,
    )


def record_of(
    simulation: autograd.Simulation,
    inputs: Spikes,
    weights: Sequence[Tensor],
    thresholds: Sequence[Tensor],
    t_end: Tensor,
    names: tuple[str, ...] = (),
    *,
    output: str | None = None,
    constants: Sequence[Tensor] = (),
) -> Record:
    """Make the run that a simulation describes; t_end (batch,) float64, constants as simulation.parts says."""
    all_times, run = autograd.fire_times(simulation, inputs.times, weights, thresholds, constants)
    t_known = torch.from_numpy(run.t_known)
    spikes = []
    for level, (times, theta) in enumerate(zip(all_times, thresholds, strict=True), start=1):
        units, offsets = (torch.from_numpy(array) for array in run.trains(level))
        spikes.append(Spikes._trusted(times, units, offsets, theta.numel(), t_end, t_known))
    return Record(tuple(spikes), (run,), names, output=output)
