"""What each way to a gradient costs, in time and memory, against spikes and weights: `python -m benchmarks.gradients`.

adjoint              loss.backward(): one walk backwards
tangent              one direction in forward mode: one walk forwards
forward propagation  loss.backward() with gradient="forward": all P parameters forwards at once, streaming
rows                 ift.forward_propagation: the same, and every row of dF/dW kept

Medians of runs on one core; memory is the peak that NumPy allocated during the derivative.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable

import torch
from torch.autograd import forward_ad
from torch.func import functional_call

import fireprop
from fireprop import Spikes
from fireprop.ift import forward_propagation
from fireprop.nn import LIF, Sequential

TAUS = {"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float64}
RUNS = 9
BATCH = 4


def main() -> None:
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    print(f"fireprop {fireprop.__version__}, batch {BATCH}; milliseconds per sample, peak MB")
    head = f"{'network':34}{'weights':>8}{'spikes':>8}{'forward':>9}"
    print(head + "".join(f"{name:>19}" for name in ("adjoint", "tangent", "forward prop.", "rows")))
    for name, net, t_end in networks():
        measure(name, net, t_end)


def networks() -> list[tuple[str, Sequential, float]]:
    """Growing numbers of weights, then of spikes."""
    cases = []
    for width in (25, 50, 100, 200):
        cases.append((f"chain 10-{width}-3", chain(10, width, 3), 2.0))
    for width in (10, 20, 40):
        cases.append((f"recurrent 10-{width}-3", chain(10, width, 3, recurrent=True), 2.0))
    for t_end in (1.0, 2.0, 4.0, 8.0):
        cases.append((f"recurrent 10-20-3, t_end {t_end:g}", chain(10, 20, 3, recurrent=True), t_end))
    return cases


def chain(n_in: int, width: int, n_out: int, *, recurrent: bool = False) -> Sequential:
    generator = torch.Generator().manual_seed(0)
    net = Sequential(LIF(n_in, width, recurrent=recurrent, **TAUS), LIF(width, n_out, **TAUS))
    for layer in net:
        layer.reset_parameters(gain=2.8, recurrent_spread=0.5, generator=generator)
    return net


def measure(name: str, net: Sequential, t_end: float) -> None:
    times = torch.rand(BATCH, 10 * int(4 * t_end), generator=torch.Generator().manual_seed(1)).double() * t_end
    units = torch.arange(times.shape[1]) % 10
    inputs = Spikes.from_padded_events(
        *(x.contiguous() for x in (times.sort(1)[0], units.expand_as(times))), n_units=10
    )
    record = net.record(inputs, t_end=t_end)
    coefficients = [torch.randn(s.n_spikes, generator=torch.Generator().manual_seed(2)).double() for s in record]
    n_weights, n_spikes = sum(p.numel() for p in net.parameters()), sum(s.n_spikes for s in record) / BATCH
    forward, _ = cost(lambda: net.record(inputs, t_end=t_end))
    cells = []
    for way in (
        backward(net, inputs, t_end, coefficients, "adjoint"),
        tangent(net, inputs, t_end),
        backward(net, inputs, t_end, coefficients, "forward"),
        rows(net, inputs, t_end),
    ):
        cells.append("{:>11.3f} ms{:>4.0f} M".format(*cost_of(way)))
    print(f"{name:34}{n_weights:>8}{n_spikes:>8.0f}{forward:>9.3f}" + "".join(cells), flush=True)


Way = tuple[Callable[[], object], Callable[[object], object]]


def backward(net: Sequential, inputs: Spikes, t_end: float, coefficients: list[torch.Tensor], gradient: str) -> Way:
    def prepare() -> torch.Tensor:
        record = net.record(inputs, t_end=t_end, gradient=gradient)
        return sum(((c * s.times).sum() for c, s in zip(coefficients, record, strict=True)), torch.zeros(()))

    return prepare, lambda loss: loss.backward()  # type: ignore[attr-defined]


def tangent(net: Sequential, inputs: Spikes, t_end: float) -> Way:
    """The forward pass is part of a forward-mode call: its time is taken off."""
    ones = {name: torch.ones_like(p) for name, p in net.named_parameters()}

    def call(_: object) -> None:
        with forward_ad.dual_level():
            duals = {name: forward_ad.make_dual(p.detach(), ones[name]) for name, p in net.named_parameters()}
            functional_call(net, duals, (inputs,), {"t_end": t_end})

    return lambda: net(inputs, t_end=t_end), call


def rows(net: Sequential, inputs: Spikes, t_end: float) -> Way:
    return (
        lambda: net.record(inputs, t_end=t_end, gradient="forward"),
        lambda record: forward_propagation(net, inputs, record, t_end=t_end),  # type: ignore[arg-type]
    )


def cost(call: Callable[[], object]) -> tuple[float, float]:
    """Median milliseconds per sample, and peak MB."""
    return cost_of((lambda: None, lambda _: call()))


def cost_of(way: Way) -> tuple[float, float]:
    prepare, run = way
    run(prepare())
    seconds = []
    for _ in range(RUNS):
        made = prepare()
        start = time.thread_time()
        run(made)
        seconds.append(time.thread_time() - start)
    made = prepare()
    tracemalloc.start()
    run(made)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return statistics.median(seconds) * 1e3 / BATCH, peak / 1e6


if __name__ == "__main__":
    main()
