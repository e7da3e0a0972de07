"""Read-outs of leaky integrators: against sums over all spikes in NumPy and in many digits, and against differences."""

import itertools
import math
import re

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf

import reference
from fireprop import Spikes
from fireprop.kernels import readout
from fireprop.losses import Weighting
from fireprop.nn import LI, LIF, Sequential

STOPPED = 'after an early stop (stop="first_spikes"): run the network without stop'
RATES = [0.0, 0.3, 1.0, 1.0 + 1e-12, 1.0 + 1e-5, 2.0, 7.0, 1e3]
GAPS = [0.0, 1e-9, 1e-3, 0.2, 1.0, 5.0, 60.0]
T_END = 3.0


# ---------------------------------------------------------------------------------------------------------- formulas


def exact_response(d, alpha, beta):
    """h in many digits; equal rates are moved apart by far less than any float64 shows."""
    if alpha == beta:
        beta = beta + mpf(10) ** -50
    return (mpmath.exp(-alpha * d) - mpmath.exp(-beta * d)) / (beta - alpha)


def exact_sum(d, alpha, beta):
    """H likewise, as a partial fraction."""
    alpha, beta = (rate if rate > 0 else mpf(10) ** -55 for rate in (alpha, beta))
    if alpha == beta:
        beta = beta + mpf(10) ** -50
    return ((1 - mpmath.exp(-alpha * d)) / alpha - (1 - mpmath.exp(-beta * d)) / beta) / (beta - alpha)


def exact_derivatives(function, d, alpha, beta):
    """The value and the differences over steps that nobody can see, by d, alpha and beta."""
    at, step = [mpf(d), mpf(alpha), mpf(beta)], mpf(10) ** -35
    found = [function(*at)]
    for k in range(3):
        up, down = list(at), list(at)
        up[k] += step
        down[k] -= step
        found.append((function(*up) - function(*down)) / (2 * step))
    return found


@pytest.mark.white_box
@pytest.mark.parametrize(
    ("kernel", "function"),
    [(readout.responses, exact_response), (readout.sums_of_response, exact_sum)],
    ids=["response", "sum"],
)
def test_a_response_its_sum_and_their_derivatives_hold_in_many_digits(kernel, function):
    cases = [c for c in itertools.product(GAPS, RATES, RATES) if c[1] + c[2] > 0.0]
    if function is exact_sum:
        cases = [c for c in cases if c[1] > 0.0 and c[2] > 0.0]  # no rate of a potential is 0
    out = np.empty((4, len(cases)))
    kernel(*(np.array(column) for column in zip(*cases, strict=True)), out)
    with mpmath.workdps(130):
        wanted = np.array([[float(x) for x in exact_derivatives(function, *case)] for case in cases]).T
    gaps, alphas, betas = np.array(cases).T
    # An exponential of x has a relative error of x ulp. The slope h' falls through 0 at the peak, where its two terms,
    # of at most 1, cancel.
    ulps = 2.0**-52 * (8.0 + np.minimum(alphas, betas) * gaps)
    for row in (0, 2, 3):
        np.testing.assert_array_less(np.abs(out[row] - wanted[row]), 4 * ulps * np.abs(wanted[row]) + 1e-300)
    np.testing.assert_array_less(np.abs(out[1] - wanted[1]), 4 * ulps * np.maximum(np.abs(wanted[1]), 2.0**-2) + 1e-300)


# ------------------------------------------------------------------------------------------------------------ oracles


def naive_potential(t, times, weights, tau_mem, tau_syn):
    """V(t) of one unit: the sum over all spikes before t, by the difference of two exponentials, or d exp(-d)."""
    total = 0.0
    for s, w in zip(times, weights, strict=True):
        if s < t:
            d = t - s
            if tau_mem == tau_syn:
                total += w * d * math.exp(-d / tau_mem)
            else:
                scale = tau_mem * tau_syn / (tau_mem - tau_syn)
                total += w * scale * (math.exp(-d / tau_mem) - math.exp(-d / tau_syn))
    return total


def naive(readout_, spikes, f):
    """f(potential, times of the sample) for every sample and unit, (batch, units); potential a function of t."""
    weight = readout_.weight.detach().double().numpy()
    n_out = readout_.out_features
    tau_mem = readout_.tau_mem.detach().expand(n_out).tolist()
    tau_syn = readout_.tau_syn.detach().reshape(-1).expand(n_out).tolist()
    rows = []
    for b in range(len(spikes)):
        part = slice(*spikes.offsets[b : b + 2].tolist())
        times, units = spikes.times[part].tolist(), spikes.units[part].numpy()

        def unit(o, times=times, units=units):
            return lambda t: naive_potential(t, times, weight[o, units], tau_mem[o], tau_syn[o])

        rows.append([f(unit(o), times) for o in range(n_out)])
    return np.array(rows)


def naive_integral(potential, times, start, end, weight=lambda t: 1.0, edges=()):
    """By 12-point Gauss-Legendre on pieces of at most .1 between arrivals and edges."""
    nodes, factors = np.polynomial.legendre.leggauss(12)
    cuts = sorted({start, end, *(t for t in (*times, *edges) if start < t < end)})
    total = 0.0
    for a, b in itertools.pairwise(cuts):
        pieces = np.linspace(a, b, 2 + int((b - a) / 0.1))
        for low, high in itertools.pairwise(pieces):
            points = (low + high) / 2 + (high - low) / 2 * nodes
            total += (high - low) / 2 * sum(f * potential(t) * weight(t) for f, t in zip(factors, points, strict=True))
    return total


def naive_maximum(potential, times, start, end):
    """On a fine grid of every gap, and by golden section around its best point."""
    cuts = sorted({start, end, *(t for t in times if start < t < end)})
    best = max(potential(t) for t in cuts)
    for a, b in itertools.pairwise(cuts):
        grid = np.linspace(a, b, 60)
        k = int(np.argmax([potential(t) for t in grid]))
        low, high = grid[max(k - 1, 0)], grid[min(k + 1, 59)]
        for _ in range(80):
            left, right = high - (high - low) / 1.618033988749895, low + (high - low) / 1.618033988749895
            low, high = (left, high) if potential(left) < potential(right) else (low, right)
        best = max(best, potential((low + high) / 2))
    return best


# --------------------------------------------------------------------------------------------------------- read-outs


TAUS = {
    "numbers": (1.0, 0.5),
    "equal": (0.7, 0.7),
    "slow synapses": (0.4, 1.1),
    "per unit": (
        torch.tensor([1.0, 0.6, 0.8], dtype=torch.float64),
        torch.tensor([[0.5], [0.6], [1.3]], dtype=torch.float64),
    ),
}


@pytest.fixture(params=TAUS)
def taus(request):
    return TAUS[request.param]


def parameter(value):
    return torch.nn.Parameter(torch.as_tensor(value, dtype=torch.float64).clone())


def make(rng, taus, *, trained=True, n_in=4, n_out=3):
    wrap = parameter if trained else lambda value: value
    layer = LI(n_in, n_out, tau_mem=wrap(taus[0]), tau_syn=wrap(taus[1]), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(rng.normal(0.0, 1.0, (n_out, n_in))))
    return layer


def make_inputs(rng, batch=3, n_in=4):
    """Up to three spikes of each unit, one sample without any."""
    trains = [[sorted(rng.uniform(0.0, 2.5, rng.integers(0, 4))) for _ in range(n_in)] for _ in range(batch - 1)]
    return Spikes.from_lists([*trains, [[] for _ in range(n_in)]], n_units=n_in)


MOMENTS = torch.tensor([0.0, 0.4, 1.3, 2.9, 2.9], dtype=torch.float64)
HUMP = Weighting([-0.5, 0.4, 1.7, math.inf], [1.0, -0.5, 2.0], [math.inf, 0.7, 3.0])
QUESTIONS = {
    "potential": lambda trace: trace.potential(MOMENTS),
    "maximum": lambda trace: trace.maximum(0.2, 2.4).potential,
    "integral": lambda trace: trace.integral(0.3, 2.2),
    "weighted": lambda trace: trace.integral(-1.0, 2.2, weighting=HUMP),
    "mean": lambda trace: trace.mean(torch.tensor([0.0, 0.3, 0.1]), torch.tensor([1.0, 2.6, 2.0])),
}


def test_potentials_are_the_sum_over_all_spikes(rng, taus):
    layer, inputs = make(rng, taus), make_inputs(rng)
    found = layer(inputs).potential(MOMENTS).detach().numpy()
    wanted = naive(layer, inputs, lambda v, _: [v(t) for t in MOMENTS.tolist()])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)
    assert np.abs(wanted).max() > 0.1


def test_times_may_differ_between_samples(rng):
    layer, inputs = make(rng, TAUS["numbers"]), make_inputs(rng)
    moments = torch.from_numpy(rng.uniform(0.0, 3.0, (3, 2)))
    found = layer(inputs).potential(moments)
    for b in range(3):
        assert torch.equal(found[b], layer(inputs).potential(moments[b])[b])


def test_the_maximum_is_that_of_a_fine_search(rng, taus):
    layer, inputs = make(rng, taus), make_inputs(rng, batch=6)
    start = torch.from_numpy(rng.uniform(0.0, 1.0, 6))
    found = layer(inputs).maximum(start, 2.0)
    for b in range(6):
        wanted = naive(layer, inputs[b], lambda v, times, b=b: naive_maximum(v, times, float(start[b]), 2.0))
        np.testing.assert_allclose(found.potential[b].detach().numpy(), wanted[0], rtol=0, atol=1e-13)
    at_peak = torch.stack([layer(inputs).potential(found.time[:, o : o + 1])[:, o, 0] for o in range(3)], dim=1)
    np.testing.assert_allclose(at_peak.detach().numpy(), found.potential.detach().numpy(), rtol=0, atol=1e-14)


def test_integrals_are_those_of_a_quadrature(rng, taus):
    layer, inputs = make(rng, taus), make_inputs(rng)
    trace = layer(inputs)
    plain = naive(layer, inputs, lambda v, times: naive_integral(v, times, 0.3, 2.2))
    np.testing.assert_allclose(trace.integral(0.3, 2.2).detach().numpy(), plain, rtol=0, atol=1e-13)
    np.testing.assert_allclose(trace.mean(0.3, 2.2).detach().numpy(), plain / 1.9, rtol=0, atol=1e-13)

    def hump(t):
        return 1.0 if t < 0.4 else -0.5 * math.exp(-(t - 0.4) / 0.7) if t < 1.7 else 2.0 * math.exp(-(t - 1.7) / 3.0)

    weighted = naive(layer, inputs, lambda v, times: naive_integral(v, times, -0.5, 2.2, hump, HUMP.edges))
    found = trace.integral(-1.0, 2.2, weighting=HUMP).detach().numpy()
    np.testing.assert_allclose(found, weighted, rtol=0, atol=1e-13)


def assert_is_the_difference(tensor, loss, atol=3e-8):
    """The gradient of a tensor, against central differences of a loss that reads it."""

    def moved(x):
        kept = tensor.detach().clone()
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(x))
            value = loss().item()
            tensor.copy_(kept)
        return value

    difference = reference.central_difference(moved, tensor.detach().numpy().copy())
    np.testing.assert_allclose(tensor.grad.numpy(), difference, rtol=0, atol=atol)
    assert np.abs(difference).max() > 1e-2


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_answer_has_the_gradient_of_its_difference(rng, taus, question):
    layer, data = make(rng, taus), make_inputs(rng)
    mix = None

    def loss(times):
        nonlocal mix
        answer = QUESTIONS[question](layer(Spikes._trusted(times, data.units, data.offsets, 4)))
        mix = torch.from_numpy(rng.normal(size=tuple(answer.shape))) if mix is None else mix
        return (answer * mix).sum()

    times = data.times.clone().requires_grad_()
    loss(times).backward()
    parameters = dict(layer.named_parameters())
    assert set(parameters) == {"weight", "tau_mem", "tau_syn"}
    for tensor in (times, *parameters.values()):
        assert_is_the_difference(tensor, lambda: loss(times))


@pytest.mark.parametrize("question", QUESTIONS)
def test_forward_mode_agrees_with_reverse_mode(rng, taus, question):
    layer, data = make(rng, taus), make_inputs(rng)[[2, 0, 1]]  # no spikes in the first
    names = ["weight", "tau_mem", "tau_syn"]
    values = [data.times, *(getattr(layer, name).detach() for name in names)]

    def ask(times, *constants):
        inputs = Spikes._trusted(times, data.units, data.offsets, 4)
        return torch.func.functional_call(layer, dict(zip(names, constants, strict=True)), (inputs,))

    def answer(*at):
        return QUESTIONS[question](ask(*at))

    tangents = [torch.from_numpy(rng.normal(size=tuple(x.shape))) for x in values]
    _, along = torch.func.jvp(answer, tuple(values), tuple(tangents))
    mix = torch.from_numpy(rng.normal(size=tuple(along.shape)))
    leaves = [x.clone().requires_grad_() for x in values]
    grads = torch.autograd.grad((answer(*leaves) * mix).sum(), leaves)
    reverse = sum((g * d).sum() for g, d in zip(grads, tangents, strict=True))
    assert float((along * mix).sum()) == pytest.approx(float(reverse), rel=1e-11)


def test_gradients_pass_smoothly_through_equal_time_constants(rng):
    inputs = make_inputs(rng)
    weight = torch.from_numpy(rng.normal(size=(3, 4)))

    def gradients(tau):
        layer = LI(4, 3, tau_mem=parameter(1.0), tau_syn=parameter(tau), dtype=torch.float64)
        layer.weight = torch.nn.Parameter(weight.clone())
        trace = layer(inputs)
        (trace.integral(0.0, 2.0).sum() + trace.potential(MOMENTS).square().sum()).backward()
        return np.array([layer.tau_mem.grad.item(), layer.tau_syn.grad.item(), *layer.weight.grad.flatten().tolist()])

    there = gradients(1.0)
    for step in (1e-15, 1e-12, 1e-9, 1e-6):
        for tau in (1.0 - step, 1.0 + step):
            np.testing.assert_allclose(gradients(tau), there, rtol=0, atol=1e-12 + 30 * step)


def test_only_gaps_count(rng):
    layer = make(rng, TAUS["numbers"])
    trains = np.sort(rng.integers(0, 2000, (2, 4, 3))) / 1024.0
    answers = []
    for shift in (0.0, 2.0**20):
        inputs = Spikes.from_padded_trains(trains + shift)
        times = inputs.times.clone().requires_grad_()
        trace = layer(Spikes._trusted(times, inputs.units, inputs.offsets, 4))
        weighting = Weighting.exponential(0.5, t_start=shift)
        values = torch.cat([
            trace.potential(shift + torch.tensor([0.5, 1.0])).flatten(),
            trace.maximum(shift, shift + 2.0).potential.flatten(),
            trace.integral(shift + 0.25, shift + 1.5, weighting=weighting).flatten(),
        ])  # fmt: skip
        answers.append([values, *torch.autograd.grad(values.sum(), [times, *layer.parameters()])])
    for near, far in zip(*answers, strict=True):
        assert torch.equal(near, far)


def test_a_batch_is_its_samples(rng):
    layer, inputs = make(rng, TAUS["per unit"]), make_inputs(rng, batch=5)
    whole = layer(inputs)
    for b in range(5):
        alone = layer(inputs[b])
        assert torch.equal(whole.potential(MOMENTS)[b], alone.potential(MOMENTS)[0])
        assert torch.equal(whole.maximum(0.0, 2.0).potential[b], alone.maximum(0.0, 2.0).potential[0])
        assert torch.equal(whole.integral(0.0, 2.0)[b], alone.integral(0.0, 2.0)[0])


def test_spikes_at_one_instant_add_up(rng):
    layer = make(rng, TAUS["numbers"], n_in=2)
    both = layer(Spikes.from_lists([[[0.5], [0.5]]])).potential(MOMENTS)
    apart = [layer(Spikes.from_lists([trains])).potential(MOMENTS) for trains in ([[0.5], []], [[], [0.5]])]
    np.testing.assert_allclose(both.detach(), sum(apart).detach(), rtol=1e-14, atol=1e-16)


def test_at_an_arrival_the_arrival_does_not_count_yet():
    layer = LI(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    torch.nn.init.constant_(layer.weight, 2.0)
    times = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    trace = layer(Spikes._trusted(times, torch.tensor([0]), torch.tensor([0, 1]), 1))
    value = trace.potential(torch.tensor([0.5], dtype=torch.float64))
    assert value.item() == 0.0
    value.sum().backward()
    assert times.grad.tolist() == [0.0]


def test_a_peak_in_a_kink_moves_with_the_inhibition_that_makes_it():
    layer = LI(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data = torch.tensor([[1.0, -9.0]], dtype=torch.float64)

    def highest(times):
        trace = layer(Spikes._trusted(times, torch.tensor([0, 1]), torch.tensor([0, 2]), 2))
        return trace.maximum(0.0, 2.0)

    times = torch.tensor([0.0, 0.2], dtype=torch.float64, requires_grad=True)
    value, time = highest(times)
    assert time.item() == 0.2
    value.sum().backward()
    difference = reference.central_difference(
        lambda x: highest(torch.from_numpy(x))[0].item(), times.detach().numpy().copy()
    )
    np.testing.assert_allclose(times.grad.numpy(), difference, rtol=0, atol=1e-9)
    assert difference[1] > 0.1


@pytest.mark.parametrize(("start", "end"), [(0.5, 2.0), (0.0, 0.5)], ids=["at the start", "at the end"])
def test_an_arrival_at_an_end_of_the_window_does_not_move_a_maximum_there(start, end):
    layer = LI(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data = torch.tensor([[1.0, -9.0]], dtype=torch.float64)
    times = torch.tensor([0.1, 0.5], dtype=torch.float64, requires_grad=True)
    trace = layer(Spikes._trusted(times, torch.tensor([0, 1]), torch.tensor([0, 2]), 2))
    value, time = trace.maximum(start, end)
    assert time.item() == 0.5
    value.sum().backward(retain_graph=True)
    at_end = trace.potential(torch.tensor([0.5], dtype=torch.float64))
    assert value.item() == at_end.item()
    assert times.grad[1].item() == 0.0
    assert times.grad[0].item() == pytest.approx(torch.autograd.grad(at_end.sum(), times)[0][0].item(), rel=1e-12)


def test_a_window_after_the_last_arrival_does_not_see_what_was_before():
    layer = LI(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    torch.nn.init.constant_(layer.weight, 1.0)
    trace = layer(Spikes.from_lists([[[0.0]], [[0.0, 0.1]]]))
    value, time = trace.maximum(2.0, 3.0)
    assert time.tolist() == [[2.0], [2.0]]
    assert torch.equal(value, trace.potential(torch.tensor([2.0], dtype=torch.float64))[..., 0])


def test_of_equal_maxima_the_first_is_found():
    layer = LI(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    torch.nn.init.constant_(layer.weight, 1.0)
    # After 2000 nothing is left of the first, to the bit.
    trace = layer(Spikes.from_lists([[[0.0, 2000.0]]]))
    value, time = trace.maximum(0.0, 4000.0)
    assert value.item() == pytest.approx(0.25, rel=1e-15)
    assert time.item() == pytest.approx(math.log(2.0), rel=1e-14)


def test_silence_is_at_rest_and_flat():
    layer = LI(2, 3, tau_mem=parameter(1.0), tau_syn=parameter(0.5), dtype=torch.float64)
    trace = layer(Spikes.from_lists([[[], []]] * 2))
    total = trace.potential(MOMENTS).sum() + trace.integral(0.0, 1.0).sum() + trace.maximum(0.5, 1.0).potential.sum()
    assert total.item() == 0.0
    assert trace.maximum(0.5, 1.0).time.tolist() == [[0.5] * 3] * 2
    total.backward()
    assert all(not p.grad.any() for p in layer.parameters())


def test_an_empty_batch_has_no_potentials():
    nothing = torch.zeros(0, dtype=torch.float64)
    trace = LI(2, 3, tau_mem=1.0, tau_syn=0.5)(Spikes(nothing, nothing.long(), torch.zeros(1).long(), 2))
    assert trace.potential(MOMENTS).shape == (0, 3, 5)
    assert trace.maximum(0.0, 1.0).potential.shape == trace.integral(0.0, 1.0).shape == (0, 3)


def test_a_window_without_duration_has_a_maximum_and_no_integral(rng):
    trace = make(rng, TAUS["numbers"])(make_inputs(rng))
    assert torch.equal(trace.maximum(1.0, 1.0).potential, trace.potential(torch.tensor([1.0]))[..., 0])
    assert not trace.integral(1.0, 1.0).any()


def test_weights_in_float32_get_gradients_in_float32_and_constants_stay_exact(rng):
    layer = LI(4, 3, tau_mem=parameter(1.0 / 3.0), tau_syn=0.1).float()
    assert layer.weight.dtype == torch.float32
    assert layer.tau_mem.item() == 1.0 / 3.0
    assert layer.tau_syn.item() == 0.1
    value = layer(make_inputs(rng)).integral(0.0, 2.0).sum()
    value.backward()
    assert value.dtype == layer.tau_mem.grad.dtype == torch.float64
    assert layer.weight.grad.dtype == torch.float32


def test_a_positive_time_constant_by_parametrization_is_trained(rng):
    class Exp(torch.nn.Module):
        def forward(self, x):
            return x.exp()

    layer = make(rng, TAUS["numbers"])
    torch.nn.utils.parametrize.register_parametrization(layer, "tau_mem", Exp(), unsafe=True)
    layer(make_inputs(rng)).integral(0.0, 2.0).sum().backward()
    assert layer.parametrizations.tau_mem.original.grad.abs() > 1e-3


def test_a_readout_ends_a_network_and_reaches_its_weights(rng):
    hidden, layer = LIF(4, 6, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64), make(rng, TAUS["numbers"], n_in=6)
    with torch.no_grad():
        hidden.weight.copy_(torch.from_numpy(rng.normal(2.0, 0.5, (6, 4))))
    net = Sequential(hidden, layer)
    inputs = Spikes.from_latencies(rng.uniform(0.0, 1.0, (3, 4)))

    def loss():
        trace = net(inputs, t_end=T_END)
        return trace.maximum(0.0, T_END).potential.sum() + trace.integral(0.0, T_END).square().sum()

    loss().backward()
    assert_is_the_difference(hidden.weight, loss, atol=1e-7)


def test_what_an_early_stop_leaves_unknown_is_refused(rng):
    hidden = LIF(4, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    torch.nn.init.constant_(hidden.weight, 3.0)
    net = Sequential(hidden, LI(1, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64))
    trace = net(Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4]]), t_end=T_END, stop="first_spikes")
    known = float(trace.inputs.t_known[0])
    assert trace.potential(torch.tensor([known], dtype=torch.float64)).shape == (1, 2, 1)
    for ask in (lambda: trace.potential(MOMENTS), lambda: trace.maximum(0.0, 1.0), lambda: trace.integral(0.0, 1.0)):
        with pytest.raises(ValueError, match=re.escape(STOPPED)):
            ask()


def test_second_derivatives_are_refused(rng):
    layer = make(rng, TAUS["numbers"])
    value = layer(make_inputs(rng)).potential(MOMENTS).square().sum()
    (first,) = torch.autograd.grad(value, [layer.tau_mem], create_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        first.backward()


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda t: t.potential(torch.zeros(2, 2)), "times has shape (2, 2): give (n_times,) or (3, n_times)"),
        (lambda t: t.potential(torch.tensor([0.0, math.nan])), "times[1] = nan: give finite numbers"),
        (lambda t: t.maximum(1.0, 0.5), "t_end = 0.5 is before t_start = 1.0 in sample 0"),
        (lambda t: t.maximum(torch.zeros(2), 0.5), "t_start has shape (2,): give a number or (3,)"),
        (lambda t: t.mean(1.0, 1.0), "t_end = 1.0 equals t_start in sample 0: a mean needs t_end > t_start"),
    ],
)
def test_questions_that_have_no_answer_are_refused(rng, ask, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        ask(make(rng, TAUS["numbers"])(make_inputs(rng)))


def test_times_with_a_gradient_and_weightings_of_another_kind_are_refused(rng):
    trace = make(rng, TAUS["numbers"])(make_inputs(rng))
    text = "times requires a gradient, but fireprop computes none for it: pass times.detach()"
    with pytest.raises(TypeError, match=re.escape(text)):
        trace.potential(MOMENTS.clone().requires_grad_())
    with pytest.raises(TypeError, match=re.escape("weighting = 2.0: give a fireprop.losses.Weighting")):
        trace.integral(0.0, 1.0, weighting=2.0)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"tau_mem": 0.0, "tau_syn": 1.0}, ValueError, "tau_mem = 0.0: give a finite number > 0"),
        ({"tau_mem": 1.0, "tau_syn": torch.ones(4)}, ValueError, "tau_syn has shape (4,): give () or (3, 1)"),
        (
            {"tau_mem": torch.nn.Parameter(torch.tensor(1.0)), "tau_syn": 1.0},
            TypeError,
            "tau_mem is a torch.float32 Parameter: constants are float64, give nn.Parameter(x.double())",
        ),
        (
            {"tau_mem": torch.ones((), dtype=torch.float64, requires_grad=True), "tau_syn": 1.0},
            TypeError,
            "tau_mem requires a gradient, but fireprop computes none for it: pass an nn.Parameter",
        ),
    ],
)
def test_time_constants_out_of_range_are_refused(options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        LI(4, 3, **options)


def test_a_time_constant_that_training_made_negative_is_refused(rng):
    layer = make(rng, TAUS["numbers"])
    layer.tau_mem.data.fill_(-0.1)
    with pytest.raises(ValueError, match=re.escape("tau_mem = -0.1: give a finite number > 0")):
        layer(make_inputs(rng))


# -------------------------------------------------------------------------------------------------------- weightings


def test_a_weighting_has_its_values():
    times = torch.tensor([-1.0, 0.0, 0.4, 1.0, 1.7, 9.0], dtype=torch.float64)
    late = math.exp(-(9.0 - 1.7) / 3.0)
    wanted = [0.0, 1.0, -0.5, -0.5 * math.exp(-0.6 / 0.7), 2.0, 2.0 * late]
    np.testing.assert_allclose(HUMP.at(times).numpy(), wanted, rtol=1e-15, atol=0)
    np.testing.assert_allclose(Weighting.exponential(2.0, t_start=1.0, scale=3.0).at(2.0), 3.0 * math.exp(-0.5))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            ([0.0, 1.0], [1.0, 2.0]),
            "2 edges, 2 values, 2 taus: give one value and one tau per piece, and one more edge",
        ),
        (([0.0, 0.0], [1.0]), "edges[1] = 0.0: give a number above edges[0] = 0.0"),
        (([0.0, 1.0], [1.0], [0.0]), "taus[0] = 0.0: give a number > 0, inf for a constant piece"),
        (([math.inf, 1.0], [1.0]), "edges[0] = inf: give a finite number"),
        (([0.0, 1.0], [math.nan]), "values[0] = nan: give a finite number"),
        (([[0.0, 1.0]], [1.0]), "edges has shape (1, 2): give a list of numbers"),
    ],
)
def test_weightings_that_are_none_are_refused(given, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        Weighting(*given)
