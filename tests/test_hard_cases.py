"""Where float64 has little left: every case ends in the right spikes and the right gradient, or in an error by name.

The oracle is `exact.py`: the same networks in 110 digits, derivatives as difference quotients. Every case runs on the
kernels of chains and on those of graphs.
"""

import functools
import json
import re
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf

import exact
from fireprop import SpikeLimitError, Spikes, TimeResolutionError
from fireprop.nn import LIF, Network, Sequential

EPS = 2.0**-52
RATIOS = [1.0, 1 + 1e-12, 1 - 1e-12, 1 + 1e-6, 1 - 1e-6, 2.0, 0.5, 1e3, 1e-3]  # tau_mem / tau_syn
DISTANCES = [1e-6, 1e-10, 1e-13]  # of a peak from the threshold, relative
T_FAR = 60.0  # in units of tau_mem
EITHER_KERNEL = pytest.mark.parametrize("as_graph", [False, True], ids=["chain", "graph"])


@pytest.fixture(autouse=True)
def _many_digits():
    with exact.many_digits():
        yield


def lif(weight, *, tau_mem, tau_syn, v_threshold=1.0, t_ref=0.0, as_graph=False):
    """A layer with these weights whose threshold is trained; as_graph: which runs as a graph."""
    weight = torch.as_tensor(np.atleast_2d(weight), dtype=torch.float64)
    n_out, n_in = weight.shape
    theta = torch.nn.Parameter(torch.as_tensor(v_threshold, dtype=torch.float64).expand(n_out).clone())
    tau_mem = torch.as_tensor(tau_mem, dtype=torch.float64)
    tau_syn = torch.as_tensor(tau_syn, dtype=torch.float64)
    tau_syn = tau_syn[None] if tau_syn.dim() == 1 else tau_syn
    layer = LIF(n_in, n_out, tau_mem=tau_mem, tau_syn=tau_syn, v_threshold=theta, t_ref=t_ref, dtype=torch.float64)
    layer.weight.data.copy_(weight)
    layer._as_graph = as_graph
    return layer


def spec(layer):
    """A layer as `exact.layers` takes it."""
    n_out, n_in = layer.weight.shape
    return {
        "weight": layer.weight.detach().numpy(),
        "tau_syn": layer.tau_syn.expand(n_out, n_in).numpy(),
        "tau_mem": layer.tau_mem.expand(n_out).numpy(),
        "v_threshold": layer.v_threshold.detach().expand(n_out).numpy(),
        "t_ref": layer.t_ref.expand(n_out).numpy(),
    }


def inputs_of(times, units, n_units):
    leaf = torch.tensor(times, dtype=torch.float64, requires_grad=True)
    return leaf, Spikes.from_events(leaf, torch.as_tensor(units), None, n_units=n_units)


# --- peaks that clear or miss the threshold narrowly ---

TIMES, UNITS = [0.125, 0.375, 0.5], [0, 1, 2]
ARRIVALS = [(mpf(t), source) for t, source in zip(TIMES, UNITS, strict=True)]


def response(gap, tau_mem, tau_syn):
    """h(gap) and its derivative."""
    state = exact.State(mpf(0), {1 / mpf(tau_syn): mpf(1)}, 1 / mpf(tau_mem))
    moved = exact.after(state, gap)
    return moved.v, exact.slope(moved)


class Brink:
    """A unit whose highest potential clears, or misses, its threshold by a relative distance.

    arrivals  (time, source) in many digits; weights, tau_syn by source
    f, slope  its crossing and V' there, where it has one
    """

    def __init__(self, rng, arrivals, tau_mem, tau_syn, distance, clears):
        self.arrivals, self.tau_mem, self.tau_syn = arrivals, tau_mem, tau_syn
        self.distance, self.clears = distance, clears
        peaks = [max(float(response(t, tau_mem, tau)[0]) for t in np.geomspace(1e-4, 10, 30)) for tau in tau_syn]
        for _ in range(500):
            self.weights = rng.uniform(-0.4, 1.0, len(tau_syn)) / peaks
            summit = self.summit()
            if summit is not None:
                break
        self.peak, height = summit
        self.theta = float(height / (1 + distance if clears else 1 - distance))
        if clears:
            self.f = exact.root(
                lambda f: (self.v_and_slope(f)[0] - self.theta, self.v_and_slope(f)[1]), self.start, self.peak
            )
            _, self.slope = self.v_and_slope(self.f)

    def parts(self, f):
        """Source, h and h' of every arrival before f."""
        return [(s, *response(f - t, self.tau_mem, self.tau_syn[s])) for t, s in self.arrivals if t < f]

    def v_and_slope(self, f):
        parts = self.parts(f)
        return mpmath.fsum(self.weights[s] * h for s, h, _ in parts), mpmath.fsum(
            self.weights[s] * dh for s, _, dh in parts
        )

    def summit(self):
        """Time and height of the highest V; None if that is at an arrival, or not well above all other peaks, or a
        small difference of large terms, which float64 does not know to its last digits."""
        state, peaks = exact.State(mpf(0), {1 / mpf(tau): mpf(0) for tau in self.tau_syn}, 1 / mpf(self.tau_mem)), []
        stop = self.arrivals[-1][0] + 60 * mpf(self.tau_mem)
        for (t, source), (t_next, _) in zip(self.arrivals, [*self.arrivals[1:], (stop, 0)], strict=True):
            state.currents[1 / mpf(self.tau_syn[source])] += mpf(self.weights[source])
            gap, height = exact.highest(state, t_next - t)
            peaks.append((height, t + gap, t, 0 < gap < t_next - t))
            state = exact.after(state, t_next - t)
        (height, peak, self.start, inside), lower = max(peaks), sorted(peaks)[:-1]
        if not inside or any(other[0] > 0.9 * height for other in lower):
            return None
        size = sum(abs(self.weights[s]) * h for s, h, _ in self.parts(peak))
        return (peak, height) if size < 10 * height else None

    def derivatives(self):
        """Of f: by weights, by the threshold, by the arrivals."""
        by_weight, by_time = [mpf(0)] * len(self.weights), [mpf(0)] * len(self.arrivals)
        for k, (s, h, dh) in enumerate(self.parts(self.f)):
            by_weight[s] -= h / self.slope
            by_time[k] = self.weights[s] * dh / self.slope
        return by_weight, 1 / self.slope, by_time

    def time_error(self, f):
        """Of a crossing, over eps theta / slope, an ulp of f allowed for."""
        return float(abs(f - self.f) / (EPS * self.theta / self.slope + np.spacing(f)))

    def gradient_error(self, found, wanted):
        """Relative to the largest component, over eps / distance."""
        largest = max(map(abs, wanted))
        return float(max(abs(x - y) for x, y in zip(found, wanted, strict=True)) / largest * self.distance / EPS)


def brinks(rng, arrivals, tau_mem, tau_syn, n):
    """n of every distance, on either side."""
    every = [(distance, clears) for distance in DISTANCES for clears in (True, False)]
    return [Brink(rng, arrivals, tau_mem, tau_syn, *kind) for kind in every for _ in range(n)]


def as_layer(units, as_graph, silent_sources=0):
    weight = [[*b.weights, *[0.0] * silent_sources] for b in units]
    tau_mem, tau_syn = units[0].tau_mem, list(units[0].tau_syn)
    tau_syn = tau_syn[0] if len(set(tau_syn)) == 1 else tau_syn + tau_syn[:1] * silent_sources
    return lif(weight, tau_mem=tau_mem, tau_syn=tau_syn, v_threshold=[b.theta for b in units], as_graph=as_graph)


def fired(units, spikes):
    """By unit the time of its spike, after a check that those fire that clear their threshold, once, and no other."""
    counts = torch.bincount(spikes.units, minlength=len(units))
    assert counts.tolist() == [int(b.clears) for b in units]
    return dict(zip(spikes.units.tolist(), spikes.times.tolist(), strict=True))


def brink_figures(units, layer, times=TIMES, sources=UNITS):
    """Worst errors of times, of gradients by weights and thresholds, and of tangents by input times; see `Brink`."""
    leaf, inputs = inputs_of(times, sources, layer.in_features)
    spikes = layer(inputs, t_end=T_FAR)
    found = fired(units, spikes)
    spikes.times.sum().backward()
    columns = []
    for direction in torch.eye(len(ARRIVALS), len(times), dtype=torch.float64) if len(times) == len(ARRIVALS) else ():
        columns.append(tangents(layer, leaf.detach(), sources, direction))
    worst = [0.0, 0.0, 0.0]
    for u, f in found.items():
        b = units[u]
        by_weight, by_theta, by_time = b.derivatives()
        grads = layer.weight.grad[u, : len(by_weight)].tolist(), [float(layer.v_threshold.grad[u])]
        k = int(np.flatnonzero(spikes.units.numpy() == u)[0])
        worst[0] = max(worst[0], b.time_error(f))
        worst[1] = max(worst[1], b.gradient_error(grads[0], by_weight), b.gradient_error(grads[1], [by_theta]))
        worst[2] = max(worst[2], b.gradient_error([float(c[k]) for c in columns], by_time)) if columns else 0.0
    return worst


def tangents(net, times, sources, direction):
    """Forward mode: d(spike times of the output) for a direction of the input times."""
    n_units = (net[0] if isinstance(net, Sequential) else net).in_features

    def run(x):
        return net(Spikes.from_events(x, torch.as_tensor(sources), None, n_units=n_units), t_end=T_FAR).times

    return torch.func.jvp(run, (times,), (direction,))[1].detach()


@functools.cache
def one_tau(ratio):
    return brinks(np.random.default_rng(RATIOS.index(ratio)), ARRIVALS, 1.0, [1 / ratio] * 3, 2)


@EITHER_KERNEL
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_narrow_peak_is_a_spike_or_none_and_has_its_gradient(ratio, as_graph):
    time, gradient, tangent = brink_figures(one_tau(ratio), as_layer(one_tau(ratio), as_graph))
    assert time < 5  # V is a sum of up to three terms of some eps each
    assert gradient < 10
    assert tangent < 10


@pytest.mark.parametrize("others", [0.4, "tau_mem"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_narrow_peak_of_two_currents_is_a_spike_or_none_and_has_its_gradient(rng, ratio, others):
    tau_syn = [1 / ratio, 1.0 if others == "tau_mem" else 0.4 / ratio, 1 / ratio]
    units = brinks(rng, ARRIVALS, 1.0, tau_syn, 1)
    time, gradient, tangent = brink_figures(units, as_layer(units, as_graph=True))
    assert time < 10  # its terms may be ten times as large as their sum
    assert gradient < 10
    assert tangent < 10


@EITHER_KERNEL
@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5, 1e3, 1e-3])
def test_arrivals_beside_a_narrow_peak_decide_nothing(ratio, as_graph):
    # a fourth input, of weight 0, cuts the gap of every unit right before, at, and right after its peak
    units = one_tau(ratio)
    cuts = [float(b.peak) + offset for b in units for offset in (-1e-7, 0.0, 1e-9)]
    times, sources = np.array([*TIMES, *cuts]), np.array([*UNITS, *[3] * len(cuts)])
    order = np.argsort(times, kind="stable")
    layer = as_layer(units, as_graph, silent_sources=1)
    _, gradient, _ = brink_figures(units, layer, times[order], sources[order])
    assert gradient < 10


def second_layer_figures(rng, tau_mem, tau_syn, as_graph):
    """Worst errors of times and of gradients, by all parameters of both layers, of brinks behind a layer."""
    below = lif(rng.uniform(2.0, 5.0, (3, 3)), tau_mem=1.0, tau_syn=0.5, as_graph=as_graph)
    lower = exact.layers(spec(below))
    arrivals = exact.simulate(lower, TIMES, UNITS, T_FAR)
    units = brinks(rng, arrivals, tau_mem, tau_syn, 1)
    net = Sequential(below, as_layer(units, as_graph))
    leaf, inputs = inputs_of(TIMES, UNITS, 3)
    spikes = net(inputs, t_end=T_FAR)
    found = fired(units, spikes)
    parameters = [*(("weight", u, s) for u in range(3) for s in range(3)), *(("v_threshold", u) for u in range(3))]
    parameters += [("times", k) for k in range(3)]
    jacobian = exact.jacobian(lower, TIMES, UNITS, arrivals, T_FAR, parameters)
    directions = torch.eye(3, dtype=torch.float64)
    columns = [tangents(net, leaf.detach(), UNITS, direction) for direction in directions]
    worst = [0.0, 0.0, 0.0]
    for k, u in enumerate(spikes.units.tolist()):
        b = units[u]
        by_weight, by_theta, by_arrival = b.derivatives()
        wanted = [sum(g * row[p] for g, row in zip(by_arrival, jacobian, strict=True)) for p in range(len(parameters))]
        leaves = [below.weight, below.v_threshold, leaf, net[1].weight, net[1].v_threshold]
        parts = torch.autograd.grad(spikes.times[k], leaves, retain_graph=True)
        through = torch.cat([part.flatten() for part in parts[:3]]).tolist()
        pairs = [(through[:9], wanted[:9]), (through[9:12], wanted[9:12]), (through[12:], wanted[12:])]
        pairs += [(parts[3][u].tolist(), by_weight), ([float(parts[4][u])], [by_theta])]
        worst[0] = max(worst[0], b.time_error(found[u]))
        worst[1] = max(worst[1], *(b.gradient_error(*pair) for pair in pairs))
        worst[2] = max(worst[2], b.gradient_error([float(c[k]) for c in columns], wanted[12:]))
    return worst


@EITHER_KERNEL
@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5])
def test_a_narrow_peak_in_a_second_layer_is_a_spike_or_none_and_has_its_gradient(rng, ratio, as_graph):
    time, gradient, tangent = second_layer_figures(rng, 1.0, [1 / ratio] * 3, as_graph)
    assert time < 10
    assert gradient < 10
    assert tangent < 10


def test_a_narrow_peak_of_two_currents_in_a_second_layer_is_a_spike_or_none_and_has_its_gradient(rng):
    time, gradient, tangent = second_layer_figures(rng, 1.0, [0.5, 1.0, 0.5], as_graph=True)
    assert time < 10
    assert gradient < 10
    assert tangent < 10


# --- rates that are equal, nearly equal, and far apart ---


NETWORK_TIMES, NETWORK_UNITS, NETWORK_END = [0.125, 0.375, 0.5, 0.75], [0, 1, 2, 0], 1.5


def drive(rng, n_out, n_in, tau_syn):
    """Weights that fire units several times: 1 / peak of the response, for tau_mem = 1."""
    peaks = [max(float(response(t, 1.0, tau)[0]) for t in np.geomspace(1e-4, 10, 30)) for tau in tau_syn]
    return rng.uniform(-0.3, 1.6, (n_out, n_in)) / peaks


@functools.cache
def many_digits_of(tau_syn, seed):
    """Weights of 3 inputs, 3 hidden and 2 output units, and what `exact` says of them: (weights, units, times, d times
    by all parameters), spikes layer by layer, parameters in the order of `leaves_of`.

    tau_syn  of the three sources of either layer
    """
    rng = np.random.default_rng(seed)
    weights = drive(rng, 3, 3, tau_syn), drive(rng, 2, 3, tau_syn) / 2
    network = exact.layers(*(spec(lif(weight, tau_mem=1.0, tau_syn=list(tau_syn))) for weight in weights))
    found = exact.simulate(network, NETWORK_TIMES, NETWORK_UNITS, NETWORK_END)
    parameters = [("weight", u, s) for u in range(5) for s in range(8) if network.weight[u][s] != 0]
    parameters += [*(("v_threshold", u) for u in range(5)), *(("times", k) for k in range(4))]
    rows = exact.jacobian(network, NETWORK_TIMES, NETWORK_UNITS, found, NETWORK_END, parameters)
    order = sorted(range(len(found)), key=lambda k: (found[k][1] >= 3, k))
    jacobian = np.array([[float(x) for x in rows[k]] for k in order])
    return weights, [found[k][1] for k in order], [found[k][0] for k in order], jacobian


def network_figures(rng, tau_syn, as_graph, seed=0):
    """Against 110 digits: the number of spikes, the worst error of their times over eps times their sensitivity, and
    the worst errors of a gradient and of a tangent over their largest component."""
    weights, units, times, jacobian = many_digits_of(tuple(tau_syn), seed)
    tau = tau_syn[0] if len(set(tau_syn)) == 1 else tau_syn
    net = Sequential(*(lif(weight, tau_mem=1.0, tau_syn=tau, as_graph=as_graph) for weight in weights))
    leaf, inputs = inputs_of(NETWORK_TIMES, NETWORK_UNITS, 3)
    record = net.record(inputs, t_end=NETWORK_END)
    found = torch.cat([spikes.times for spikes in record])
    assert [*record[0].units.tolist(), *(record[1].units + 3).tolist()] == units
    by_theta = 1 / np.concatenate([slopes.numpy() for slopes in record.slopes])
    error = np.array([float(abs(f - g)) for f, g in zip(found.tolist(), times, strict=True)])
    worst_time = (error / (EPS * (by_theta + np.abs(jacobian[:, -4:]).sum(axis=1)))).max()

    coefficients = rng.normal(size=len(times))
    found.backward(torch.from_numpy(coefficients))
    leaves = [net[0].weight, net[1].weight, net[0].v_threshold, net[1].v_threshold, leaf]
    gradient = np.concatenate([leaf.grad.numpy().ravel() for leaf in leaves])
    expected = coefficients @ jacobian
    direction = [torch.from_numpy(rng.normal(size=leaf.shape)) for leaf in leaves]
    moved = jvp_of_record(net, leaves, direction, NETWORK_UNITS, NETWORK_END)
    along = jacobian @ np.concatenate([d.numpy().ravel() for d in direction])
    worst_gradient = np.abs(gradient - expected).max() / np.abs(expected).max()
    worst_tangent = np.abs(moved - along).max() / np.abs(along).max()
    return len(times), float(worst_time), float(worst_gradient), float(worst_tangent)


def jvp_of_record(net, leaves, direction, sources, t_end):
    """Tangents of all spike times, layer by layer; leaves are weights, thresholds of both layers, and input times."""
    names = ["0.weight", "1.weight", "0.v_threshold", "1.v_threshold"]

    class Recording(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, times):
            inputs = Spikes.from_events(times, torch.as_tensor(sources), None, n_units=3)
            return torch.cat([spikes.times for spikes in self.net.record(inputs, t_end=t_end)])

    def run(times, *tensors):
        named = {f"net.{name}": tensor for name, tensor in zip(names, tensors, strict=True)}
        return torch.func.functional_call(Recording(), named, (times,))

    primals = [leaf.detach() for leaf in leaves]
    return torch.func.jvp(run, (primals[4], *primals[:4]), (direction[4], *direction[:4]))[1].numpy()


@EITHER_KERNEL
@pytest.mark.parametrize("ratio", RATIOS)
def test_spikes_and_gradients_are_right_at_any_ratio_of_the_time_constants(rng, ratio, as_graph):
    n_spikes, time, gradient, tangent = network_figures(rng, [1 / ratio] * 3, as_graph)
    assert n_spikes >= 5
    assert time < 30
    assert gradient < 1e-12
    assert tangent < 1e-12


@pytest.mark.parametrize("ratio", RATIOS)
def test_spikes_and_gradients_are_right_where_two_currents_have_any_ratio(rng, ratio):
    n_spikes, time, gradient, tangent = network_figures(rng, [1.0, 1 / ratio, 1.0], as_graph=True)
    assert n_spikes >= 5
    assert time < 300  # a fast current passes on the rounding of the hidden spikes too
    assert gradient < 1e-12
    assert tangent < 1e-12


# --- bursts ---


def one_unit(weight, times, t_end, *, sources=None, max_spikes=100_000, **constants):
    """A unit's layer, its input times, a sample that is not the first, and its spikes."""
    layer = lif(weight, **constants)
    leaf = torch.tensor(times, dtype=torch.float64, requires_grad=True)
    sources = torch.zeros(len(times), dtype=torch.int64) if sources is None else torch.as_tensor(sources)
    inputs = Spikes.from_events(leaf, sources, None, n_units=layer.in_features)
    return layer, leaf, inputs, layer(inputs, t_end=t_end, max_spikes=max_spikes)


@EITHER_KERNEL
def test_a_burst_of_ten_thousand_spikes_has_its_closed_form(rng, as_graph):
    # a membrane that does not leak: V = w (1 - exp(-t)), so spike n comes at -log(1 - n / w)
    w, theta, n = 2e4, 1.0, np.arange(1, 10_001)
    layer, leaf, _, spikes = one_unit([[w]], [0.0], 0.6932, tau_mem=1e30, tau_syn=1.0, as_graph=as_graph)
    found = spikes.times.detach().numpy()
    assert found.size == n.size
    left = 1 - n / w
    np.testing.assert_allclose(found, -np.log1p(-n / w), rtol=0, atol=100 * EPS)
    coefficients = rng.normal(size=n.size)
    spikes.times.backward(torch.from_numpy(coefficients))
    by_weight, by_theta = -n / w**2 / left, n / w / left / theta
    assert float(layer.weight.grad) == pytest.approx(
        coefficients @ by_weight, rel=0, abs=1e-14 * np.abs(by_weight).sum()
    )
    assert float(layer.v_threshold.grad) == pytest.approx(coefficients @ by_theta, rel=0, abs=1e-14 * by_theta.sum())
    assert float(leaf.grad) == pytest.approx(coefficients.sum(), rel=0, abs=1e-14 * n.size)


@functools.cache
def burst(w, tau_mem, tau_syn, n):
    """The first n spikes of a unit after one input of weight w at 0, and their derivatives by w, in 40 digits.

    From one spike to the next V rises from 0 to 1: h(d) i = 1, with i the current at the first.
    """
    with mpmath.workdps(40):
        alpha, beta, w = 1 / mpf(tau_syn), 1 / mpf(tau_mem), mpf(w)
        f, d_f, times, derivatives = mpf(0), mpf(0), [], []
        for _ in range(n):
            i = w * mpmath.exp(-alpha * f)
            gap = gap_next = 1 / i
            for _ in range(20):
                a, b = mpmath.exp(-alpha * gap), mpmath.exp(-beta * gap)
                h, dh = (a - b) / (beta - alpha), (beta * b - alpha * a) / (beta - alpha)
                gap_next = gap - (h - 1 / i) / dh
                if abs(gap_next - gap) < mpf(10) ** -24 * gap:
                    break
                gap = gap_next
            d_i = i / w - alpha * i * d_f
            d_f -= h * d_i / (i * dh)
            f += gap_next
            times.append(f)
            derivatives.append(d_f)
        return np.array([float(t) for t in times]), np.array([float(d) for d in derivatives])


@EITHER_KERNEL
def test_a_burst_of_ten_thousand_spikes_is_that_of_forty_digits(rng, as_graph):
    w, n = 2e4, 10_000
    times, by_weight = burst(w, 1.0, 0.5, n)
    layer, leaf, inputs, spikes = one_unit([[w]], [0.0], 2.6, tau_mem=1.0, tau_syn=0.5, as_graph=as_graph)
    found = spikes.times.detach().numpy()
    assert n - 100 < found.size < n  # w tau_syn is the charge, less what leaks
    times, by_weight = times[: found.size], by_weight[: found.size]
    assert (np.abs(found - times) <= 200 * EPS * np.abs(w * by_weight)).all()  # as if w were rounded as often
    coefficients = rng.normal(size=found.size)
    spikes.times.backward(torch.from_numpy(coefficients))
    scale = 1e-12 * np.abs(by_weight).sum()
    assert float(layer.weight.grad) == pytest.approx(coefficients @ by_weight, rel=0, abs=scale)
    # more weight at more threshold changes nothing, and a later input delays every spike by as much
    assert float(layer.v_threshold.grad) == pytest.approx(-w * float(layer.weight.grad), rel=0, abs=w * scale)
    assert float(leaf.grad) == pytest.approx(coefficients.sum(), rel=0, abs=1e-12 * found.size)
    moved = torch.func.jvp(
        lambda weight: torch.func.functional_call(layer, {"weight": weight}, (inputs.detach(),), {"t_end": 2.6}).times,
        (layer.weight.detach(),),
        (torch.ones(1, 1, dtype=torch.float64),),
    )[1]
    np.testing.assert_allclose(moved.detach().numpy(), by_weight, rtol=1e-11)


@EITHER_KERNEL
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_burst_of_ten_thousand_spikes_is_complete(dtype, as_graph):
    w, t_end = 1.5e4, 2.0
    layer = lif([[w]], tau_mem=1.0, tau_syn=1.0, as_graph=as_graph).to(dtype)
    found = layer(Spikes.from_latencies([[0.0]]), t_end=t_end).times
    assert bool((found.diff() > 0).all())
    # the finite-T law: w Q = theta n + V(T) + beta int V, and V lies between 0 and theta throughout
    charge = -w * np.expm1(-t_end)
    assert charge - 1.0 - t_end <= len(found) <= charge
    assert len(found) > 10_000


# --- many and strong arrivals at one instant ---


def assert_same_spikes(one, other):
    """To the bit."""
    assert one.times.tolist() == other.times.tolist()
    assert one.units.tolist() == other.units.tolist()


@EITHER_KERNEL
@pytest.mark.parametrize("strong", [1e8, 1e15])
@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["+-", "-+"])
def test_strong_excitation_and_inhibition_at_one_instant_leave_their_sum(strong, order, as_graph):
    # which of the two has the lower number, and which is stored first, is all one: the sum is exact
    weight = np.array([[strong, 4.0 - strong]])[:, order]
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "as_graph": as_graph}
    layer, leaf, _, spikes = one_unit(weight, [0.25, 0.25], 5.0, sources=order, **constants)
    alone, leaf_alone, _, wanted = one_unit([[4.0]], [0.25], 5.0, **constants)
    assert_same_spikes(spikes, wanted)
    assert spikes.n_spikes == 1
    spikes.times.sum().backward()
    wanted.times.sum().backward()
    assert layer.weight.grad.tolist() == [[float(alone.weight.grad)] * 2]
    assert layer.v_threshold.grad.tolist() == alone.v_threshold.grad.tolist()
    # moving one of them apart from the other moves the spike by strong / slope, up or down; both together by 1
    assert np.abs(leaf.grad.numpy()) == pytest.approx(strong, rel=10.0)
    assert float(leaf.grad.sum()) == pytest.approx(float(leaf_alone.grad), abs=strong * EPS)


def test_strong_excitation_and_inhibition_by_twins_leave_their_sum():
    # hidden twins fire at one instant, and reach one unit of the next layer, or of their own
    twins, strong = [[6.0], [6.0]], 1e8
    for weights in ([strong, 4.0 - strong], [4.0 - strong, strong]):
        chain = Sequential(*(lif(w, tau_mem=1.0, tau_syn=0.5) for w in (twins, [weights])))
        alone = Sequential(*(lif(w, tau_mem=1.0, tau_syn=0.5) for w in ([[6.0]], [[4.0]])))
        inputs = Spikes.from_latencies([[0.25]])
        assert_same_spikes(chain(inputs, t_end=5.0), alone(inputs, t_end=5.0))
        layer = LIF(1, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
        layer.weight.data.copy_(torch.tensor([[6.0], [6.0], [0.0]]))
        layer.recurrent_weight.data.zero_()
        layer.recurrent_weight.data[2, :2] = torch.tensor(weights, dtype=torch.float64)
        spikes = layer(inputs, t_end=5.0)
        assert spikes.times[spikes.units == 2].tolist() == alone(inputs, t_end=5.0).times.tolist()
        spikes.times.sum().backward()
        assert bool(torch.isfinite(layer.recurrent_weight.grad).all())


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["+-", "-+"])
def test_strong_excitation_and_inhibition_of_two_currents_act_each_at_its_pace(order):
    # I = 1e8 (exp(-t / 2) - exp(-t)) > 0 at all times one way round, and < 0 the other
    tau_syn = [2.0, 1.0]
    for sign in (1.0, -1.0):
        weight = sign * np.array([[1e8, -1e8]])[:, order]
        constants = {"tau_mem": 1.0, "tau_syn": [tau_syn[k] for k in order]}
        layer, leaf, _, spikes = one_unit(weight, [0.25, 0.25], 0.25 + 2.5e-4, sources=[0, 1], **constants)
        if sign < 0.0:
            assert spikes.n_spikes == 0
            continue
        # V = 1e8 (t^2 / 4 + O(t^3)) is 1 at 2e-4, to that 2e-4 squared and what 1e8 eps says of it
        assert spikes.times.tolist() == [pytest.approx(0.25 + 2e-4, abs=1e-7)]
        spikes.times.sum().backward()
        assert bool(torch.isfinite(layer.weight.grad).all())
        assert float(leaf.grad.sum()) == pytest.approx(1.0, rel=1e-8)


@EITHER_KERNEL
def test_thousands_of_simultaneous_inputs_are_one_input_of_their_sum(rng, as_graph):
    # multiples of 2^-18: their sum is exact in any order
    n = 5000
    weight = rng.integers(-(2**10), 2**11, (3, n)) * 2.0**-18
    order = rng.permutation(n)
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "as_graph": as_graph}
    layer, leaf, _, spikes = one_unit(weight, [0.25] * n, 5.0, sources=order, **constants)
    alone, leaf_alone, _, wanted = one_unit(weight.sum(axis=1, keepdims=True), [0.25], 5.0, **constants)
    assert spikes.n_spikes > 5
    assert_same_spikes(spikes, wanted)
    spikes.times.sum().backward()
    wanted.times.sum().backward()
    assert bool((layer.weight.grad == alone.weight.grad).all())
    assert float(leaf.grad.sum()) == pytest.approx(float(leaf_alone.grad), rel=1e-12)


@EITHER_KERNEL
def test_the_storage_of_simultaneous_inputs_changes_no_bit(rng, as_graph):
    n = 2000
    times, order = np.repeat([0.25, 0.5], n // 2), rng.permutation(n)
    weight, sources = rng.normal(0.01, 0.1, (2, n)), rng.permutation(n)
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "as_graph": as_graph}
    layer, _, _, spikes = one_unit(weight, times, 5.0, sources=sources, **constants)
    other, _, _, again = one_unit(weight, times[order], 5.0, sources=sources[order], **constants)
    assert spikes.n_spikes > 5
    assert_same_spikes(spikes, again)
    spikes.times.sum().backward()
    again.times.sum().backward()
    assert torch.equal(layer.weight.grad, other.weight.grad)


def test_a_thousand_twins_that_reach_one_another_fire_as_one():
    # a thousand synapses of 2^-10 from units that all fire at once are one self-loop of 1000 / 1024
    n = 1000
    twins = LIF(1, n, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    alone = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    for layer, weight in ((twins, 2.0**-10), (alone, n * 2.0**-10)):
        layer.weight.data.fill_(8.0)
        layer.recurrent_weight.data.fill_(weight)
    inputs = Spikes.from_latencies([[0.25]])
    found, wanted = twins(inputs, t_end=1.0), alone(inputs, t_end=1.0)
    assert wanted.n_spikes >= 2
    assert found.times.reshape(-1, n).unique(dim=1).flatten().tolist() == wanted.times.tolist()
    found.times.sum().backward()
    wanted.times.sum().backward()
    assert float(twins.weight.grad.sum()) == pytest.approx(n * float(alone.weight.grad), rel=1e-12)
    assert float(twins.recurrent_weight.grad.sum()) == pytest.approx(
        n**2 * float(alone.recurrent_weight.grad), rel=1e-12
    )


# --- weights and times at the ends of what float64 holds ---


@EITHER_KERNEL
@pytest.mark.parametrize("tiny", [5e-324, 1e-310, -1e-310, 2e-308])
def test_subnormal_weights_change_nothing_and_have_their_gradient(tiny, as_graph):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "as_graph": as_graph}
    found = []
    for w in (tiny, 0.0):
        layer, leaf, _, spikes = one_unit([[w, 6.0, w]], [0.0, 0.1, 0.2], 5.0, sources=[0, 1, 2], **constants)
        spikes.times.sum().backward()
        found.append((spikes.times.tolist(), layer.weight.grad.tolist()))
        assert bool((leaf.grad[[0, 2]].abs() <= 1e-300).all())
    assert found[0] == found[1]
    silent, leaf, _, spikes = one_unit([[tiny]], [0.0], 5.0, **constants)
    assert spikes.n_spikes == 0
    spikes.times.sum().backward()
    assert silent.weight.grad.tolist() == [[0.0]]


@EITHER_KERNEL
@pytest.mark.parametrize("unit", [1e-300, 2.0**-1000, 2.0**300])
def test_potentials_of_any_size_fire_alike(unit, as_graph):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "as_graph": as_graph}
    _, _, _, wanted = one_unit([[6.0, -2.0, 9.0]], [0.0, 0.1, 0.2], 5.0, sources=[0, 1, 2], **constants)
    scaled = unit * np.array([[6.0, -2.0, 9.0]])
    layer, leaf, _, spikes = one_unit(scaled, [0.0, 0.1, 0.2], 5.0, sources=[0, 1, 2], v_threshold=unit, **constants)
    np.testing.assert_allclose(spikes.times.tolist(), wanted.times.tolist(), rtol=32 * EPS)
    spikes.times.sum().backward()
    assert bool(torch.isfinite(layer.weight.grad).all())
    assert float(leaf.grad.sum()) == pytest.approx(spikes.n_spikes, rel=1e-13)


@EITHER_KERNEL
def test_weights_of_1e8_near_time_0_are_exact(as_graph):
    w, n = 1e8, 2000
    times, by_weight = burst(w, 1.0, 0.5, n)
    layer, leaf, _, spikes = one_unit([[w]], [0.0], 1e-4, tau_mem=1.0, tau_syn=0.5, as_graph=as_graph)
    assert spikes.n_spikes == 9999
    np.testing.assert_allclose(spikes.times[:n].tolist(), times, rtol=200 * EPS)
    spikes.times[:n].sum().backward()
    assert float(layer.weight.grad) == pytest.approx(by_weight.sum(), rel=1e-12)
    assert float(leaf.grad) == pytest.approx(n, rel=1e-12)


@EITHER_KERNEL
def test_weights_of_1e100_near_time_0_fire_on_a_grid(as_graph):
    # V = w t, as good as: spike n comes at n / w
    _, leaf, _, spikes = one_unit([[1e100]], [0.0], 1e-96, tau_mem=1.0, tau_syn=0.5, as_graph=as_graph)
    np.testing.assert_allclose(spikes.times.detach().numpy(), np.arange(1, spikes.n_spikes + 1) * 1e-100, rtol=1e-12)
    assert spikes.n_spikes in (9999, 10_000)
    spikes.times.sum().backward()
    assert float(leaf.grad) == pytest.approx(spikes.n_spikes, rel=1e-12)


@EITHER_KERNEL
@pytest.mark.parametrize("t", [1e5, 1e6, 1e7, 1e8, 1e9])
def test_weights_of_1e8_at_large_times_raise_with_their_place(t, as_graph):
    # intervals of 1e-8, 700 ulps at 1e5 and less than one at 1e8: from one per mille on rounding is no longer small
    layer = lif([[1.0], [1e8]], tau_mem=1.0, tau_syn=0.5, as_graph=as_graph)
    inputs = Spikes.from_latencies([[np.inf], [t]])
    with pytest.raises(
        TimeResolutionError, match=r"sample 1, layer 0, unit 1, t = \d+\.\d+: the next spike of this unit"
    ):
        layer(inputs, t_end=t + 1.0, max_spikes=1000)


@EITHER_KERNEL
@pytest.mark.parametrize("t", [1.0, 1e2, 1e4])
def test_a_burst_far_from_time_0_is_complete_wherever_it_does_not_raise(t, as_graph):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "as_graph": as_graph}
    near = one_unit([[1e8]], [0.0], 2.0**-14, **constants)[-1]
    far = one_unit([[1e8]], [t], t + 2.0**-14, **constants)[-1]
    # rounding changes an interval by 2^-10 of itself at most; here by 2^-13
    assert abs(far.n_spikes - near.n_spikes) <= 2.0**-13 * near.n_spikes + 1
    with torch.no_grad():
        found, wanted = far.times[:1000] - t, near.times[:1000]
        assert float((found / wanted - 1).abs().max()) < 2.0**-10


@EITHER_KERNEL
def test_a_horizon_of_1e9_time_constants_holds_the_same_spikes_wherever_they_come(rng, as_graph):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "as_graph": as_graph}
    net = Sequential(lif(rng.uniform(2.0, 5.0, (4, 3)), **constants), lif(rng.uniform(1.0, 3.0, (2, 4)), **constants))
    near = np.array([0.0, 0.25, 0.5, 0.75])
    starts = [0.0, 2.0**20, 2.0**29, 2.0**30 - 60.0]
    times, sources = np.concatenate([start + near for start in starts]), [0, 1, 2, 0] * len(starts)
    leaf, inputs = inputs_of(times, sources, 3)
    spikes = net(inputs, t_end=2.0**30)
    parts = [(spikes.times >= start) & (spikes.times < start + 60.0) for start in starts]
    assert sum(int(part.sum()) for part in parts) == spikes.n_spikes
    first = spikes.times[parts[0]]
    (grad,) = torch.autograd.grad(first.sum(), leaf, retain_graph=True)
    assert len(first) >= 4
    for k, (part, start) in enumerate(zip(parts, starts, strict=True)):
        assert spikes.units[part].tolist() == spikes.units[parts[0]].tolist()
        sensitivity = 100  # of these spikes to the rounding of those before, at most
        ulp = np.spacing(start)
        np.testing.assert_allclose(
            (spikes.times[part] - start).tolist(), first.tolist(), rtol=0, atol=sensitivity * ulp + 1e-12
        )
        (there,) = torch.autograd.grad(spikes.times[part].sum(), leaf, retain_graph=True)
        np.testing.assert_allclose(
            there[4 * k : 4 * k + 4].numpy(), grad[:4].numpy(), rtol=0, atol=1e-5 * float(grad.abs().max())
        )
        assert float(there.sum()) == pytest.approx(len(first), rel=1e-5)


@pytest.mark.slow
@pytest.mark.evidence
def test_ten_million_inputs_of_one_sample_are_simulated_and_differentiated_in_120_bytes_each():
    """In a process of its own, whose peak memory beyond what it had before is that of this sample."""
    answer = subprocess.run([sys.executable, "-c", TEN_MILLION], capture_output=True, text=True, check=True).stdout
    found = json.loads(answer)
    n, step, alpha, beta = 10_000_000, mpf(2) ** -14, mpf(2), mpf(1)
    # a geometric series of small inputs brings V and I to rest, and a strong one at the last of them brings a spike
    w, kick = mpf(2) ** -14, mpf(4)
    a, b = mpmath.exp(-alpha * step), mpmath.exp(-beta * step)
    i, v = w / (1 - a), w * (1 / (1 - a) - 1 / (1 - b)) / (beta - alpha)
    state = exact.State(v, {alpha: i - w + kick}, beta)
    gap = exact.crossing(state, mpf(1), mpf(1))
    slope = exact.slope(exact.after(state, gap))
    kick_v = exact.after(exact.State(mpf(0), {alpha: mpf(1)}, beta), gap).v
    assert found["times"] == [pytest.approx(float(n * step + gap), abs=1e-11)]
    # 2^14 inputs per tau_mem, each rounding V: as much as eps of each
    assert found["gradient"][1] == pytest.approx(float(-kick_v / slope), rel=1e-10)
    small = (exact.after(state._replace(currents={alpha: i - w}), gap).v) / w
    assert found["gradient"][0] == pytest.approx(float(-small / slope), rel=1e-10)
    assert found["bytes"] < 120 * n  # 96 on Linux


TEN_MILLION = """
import json, resource, sys
import torch
from fireprop import Spikes
from fireprop.nn import LIF

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
layer.weight.data.copy_(torch.tensor([[2.0**-14, 4.0]]))
layer(Spikes.from_latencies([[0.0, 0.1]]), t_end=1.0).times.sum().backward()  # loads the kernels
layer.weight.grad = None
before, n = peak(), 10_000_000
units = torch.zeros(n, dtype=torch.int64)
units[-1] = 1
times = torch.arange(1, n + 1, dtype=torch.float64) * 2.0**-14
spikes = layer(Spikes(times, units, [0, n], 2), t_end=n * 2.0**-14 + 1.0)
spikes.times.sum().backward()
answer = {"times": spikes.times.tolist(), "gradient": layer.weight.grad[0].tolist(), "bytes": peak() - before}
sys.stdout.write(json.dumps(answer))
"""


# --- what never ends: an error by name, in time ---


def loop_of(weight, n_units=2, tau_syn=0.5, **constants):
    """Units that excite one another, and themselves, by the same weight, each a little differently driven."""
    layer = LIF(1, n_units, tau_mem=1.0, tau_syn=tau_syn, recurrent=True, dtype=torch.float64, **constants)
    layer.weight.data.copy_(torch.linspace(5.0, 8.0, n_units)[:, None])
    layer.recurrent_weight.data.fill_(weight)
    return layer


PLACE = r"sample 1, layer 0, unit \d, t = (\d+\.\d+): "


@pytest.mark.parametrize("tau_syn", [0.5, torch.tensor([[0.5], [1.0]])], ids=["one tau_syn", "two"])
@pytest.mark.parametrize("max_spikes", [1, 100, 20_000])
def test_an_excitatory_loop_ends_in_the_spike_limit_that_was_asked_for(max_spikes, tau_syn):
    layer = loop_of(8.0, tau_syn=tau_syn)
    inputs = Spikes.from_latencies([[np.inf], [0.125]])
    text = f"{PLACE}more than max_spikes={max_spikes} spikes of this layer in one sample. Raise max_spikes"
    with pytest.raises(SpikeLimitError, match=text) as raised:
        layer(inputs, t_end=50.0, max_spikes=max_spikes)
    t = float(re.search(PLACE, str(raised.value))[1])
    assert 0.125 < t < 5.0  # the rate grows exponentially
    # up to that moment the same network runs, with one spike more allowed
    spikes = layer(inputs, t_end=t, max_spikes=max_spikes)
    assert spikes.n_spikes <= max_spikes
    spikes.times.sum().backward()
    assert bool(torch.isfinite(layer.recurrent_weight.grad).all())


@pytest.mark.slow
def test_an_excitatory_loop_ends_in_seconds_by_default():
    text = "sample 0, layer 0, unit 0, t = .*: more than max_spikes=1000000 spikes"
    with pytest.raises(SpikeLimitError, match=text):
        loop_of(8.0, n_units=1)(Spikes.from_latencies([[0.125]]), t_end=1e9)


def test_a_loop_of_populations_names_the_population_in_every_road():
    net = Network(1, dtype=torch.float64)
    net.add("here", 2, tau_mem=1.0)
    net.add("there", 1, tau_mem=1.0)
    for pre, post, w in (("input", "here", 6.0), ("here", "there", 9.0), ("there", "here", 9.0)):
        net.connect(pre, post, tau_syn=0.5)
        net.connections[f"{pre}->{post}"].weight.data.fill_(w)
    inputs = Spikes.from_latencies([[0.125]])
    text = r"sample 0, population (here|there), unit \d, t = \d+\.\d+: more than max_spikes=50 spikes"
    for options in ({}, {"gradient": "forward"}, {"on_graze": "zero"}):
        for run in (net, net.record):
            with pytest.raises(SpikeLimitError, match=text):
                run(inputs, t_end=50.0, max_spikes=50, **options)


FAR, CLOSE = SpikeLimitError, TimeResolutionError


@pytest.mark.parametrize(
    ("weight", "t", "error"),
    [
        (8.0, 0.0, FAR), (8.0, 1.0, FAR), (8.0, 1e6, FAR), (8.0, 1e9, CLOSE),
        (1e6, 0.0, FAR), (1e6, 1.0, FAR), (1e6, 1e6, CLOSE), (1e6, 1e9, CLOSE),
        (1e12, 0.0, CLOSE), (1e12, 1.0, CLOSE), (1e12, 1e6, CLOSE), (1e12, 1e9, CLOSE),
    ],
)  # fmt: skip
def test_an_excitatory_loop_ends_in_one_of_two_errors_at_any_weight_and_time(weight, t, error):
    # its rate grows until there are as many spikes as are allowed, or float64 does not resolve them
    inputs = Spikes.from_latencies([[np.inf], [t]])
    with pytest.raises(error, match=PLACE):
        loop_of(weight)(inputs, t_end=t + 50.0, max_spikes=20_000)


@pytest.mark.parametrize("weight", [8.0, 1e6, 1e12])
def test_a_hold_bounds_the_rate_of_any_loop(weight):
    layer = loop_of(weight, t_ref=0.01)
    spikes = layer(Spikes.from_latencies([[0.125]]), t_end=10.0)
    assert 1000 < spikes.n_spikes <= 2 * (10.0 - 0.125) / 0.01
    for u in range(2):
        # the sum of a time and t_ref, and the time of the next spike, each rounded
        assert float(spikes.times[spikes.units == u].detach().diff().min()) >= 0.01 - 2 * np.spacing(10.0)
    spikes.times.sum().backward()
    assert bool(torch.isfinite(layer.recurrent_weight.grad).all())


@EITHER_KERNEL
def test_spikes_closer_than_float64_resolves_raise_also_far_below_an_ulp(as_graph):
    for w in (1e9, 1e12, 1e18, 1e100):
        layer = lif([[1.0], [w]], tau_mem=1.0, tau_syn=0.5, as_graph=as_graph)
        with pytest.raises(TimeResolutionError, match=r"sample 1, layer 0, unit 1, t = 1000000\.0"):
            layer(Spikes.from_latencies([[np.inf], [1e6]]), t_end=1e6 + 1.0, max_spikes=1000)
