"""The oracle of the test-suite: chains of LIF layers, naive and slow, from the closed form of the potential.

It imports nothing of fireprop and takes another road. The library carries a state from event to event; here the
potential at any moment is one sum over spikes (Lee et al. 2023, Theorem 1), a spike is found by bisection down to
neighbouring doubles, and a gradient is the solution of the dense explicit system (docs/design.md, 3). Conventions
are those of `design.md`, section 3: what arrives exactly at t does not act on V(t-); spikes at t >= t_end do not
exist; V is held at 0 for t_ref after a spike while the current goes on. Thresholds are positive.

A layer is a dict with `weight` (out, in), `tau_mem` (scalar or (out,)), `tau_syn` (scalar or (out, 1)), `v_threshold`
(scalar or (out,)) and `t_ref` (scalar or (out,), 0 where it is left out). Two arrays `times, units` are a spike train.
"""

from itertools import pairwise
from math import exp, fsum, isfinite, sinh

import mpmath
import numpy as np

GUARD_DIGITS = 20  # carried beyond the digits that are asked for


# ---------------------------------------------------------------------------------------------------------------------
# One neuron


def response(gap, alpha, beta):
    """h(gap) = (exp(-alpha gap) - exp(-beta gap)) / (beta - alpha), through alpha = beta."""
    half = (beta - alpha) * gap / 2
    # Apart, the two exponentials differ by a factor e^2 or more and nothing cancels. Near one another their difference
    # is a sinh around the mean rate.
    if abs(half) > 1:
        return (exp(-alpha * gap) - exp(-beta * gap)) / (beta - alpha)
    return gap * exp(-(alpha + beta) / 2 * gap) * (sinh(half) / half if half else 1.0)


def response_slope(gap, alpha, beta):
    """h'(gap): what the current gives less what leaks."""
    return exp(-alpha * gap) - beta * response(gap, alpha, beta)


def superpose(arrivals, own, *, theta):
    """Theorem 1, t_ref = 0: every arrival adds w h(t - s), every own spike takes theta exp(-beta (t - f)).

    arrivals are pairs (time, weight). Returns pairs (origin, height) for the kernel h and for exp(-beta gap).
    """
    return list(arrivals), [(f, -theta) for f in own]


def restart(arrivals, own, *, tau_syn, t_ref):
    """The same for any t_ref: V starts anew from 0 where the last hold ends, with the current that is left there."""
    if not own:
        return list(arrivals), []
    end_of_hold = own[-1] + t_ref
    return [
        (s, w) if s >= end_of_hold else (end_of_hold, w * exp(-(end_of_hold - s) / tau_syn)) for s, w in arrivals
    ], []


def _kernels(arrivals, own, *, tau_syn, theta, t_ref):
    if t_ref == 0:
        return superpose(arrivals, own, theta=theta)
    return restart(arrivals, own, tau_syn=tau_syn, t_ref=t_ref)


def _sum_potential(t, kernels, *, tau_mem, tau_syn):
    synaptic, resets = kernels
    alpha, beta = 1 / tau_syn, 1 / tau_mem
    return fsum([w * response(t - s, alpha, beta) for s, w in synaptic] + [w * exp(-beta * (t - s)) for s, w in resets])


def _sum_slope(t, kernels, *, tau_mem, tau_syn):
    synaptic, resets = kernels
    alpha, beta = 1 / tau_syn, 1 / tau_mem
    return fsum(
        [w * response_slope(t - s, alpha, beta) for s, w in synaptic]
        + [-beta * w * exp(-beta * (t - s)) for s, w in resets]
    )


def _before(t, arrivals, weights, own_spikes):
    acting = [(float(s), float(w)) for s, w in zip(arrivals, weights, strict=True) if s < t]
    return acting, sorted(float(f) for f in own_spikes if f < t)


def potential(t, arrivals, weights, own_spikes, *, tau_mem, tau_syn, theta, t_ref):
    """V(t-) of one neuron that received `weights` at the times `arrivals` and fired at `own_spikes`."""
    acting, own = _before(t, arrivals, weights, own_spikes)
    if own and t <= own[-1] + t_ref:
        return 0.0
    kernels = _kernels(acting, own, tau_syn=tau_syn, theta=theta, t_ref=t_ref)
    return _sum_potential(t, kernels, tau_mem=tau_mem, tau_syn=tau_syn)


def slope(t, arrivals, weights, own_spikes, *, tau_mem, tau_syn, theta, t_ref):
    """V'(t-) of the same neuron."""
    acting, own = _before(t, arrivals, weights, own_spikes)
    if own and t <= own[-1] + t_ref:
        return 0.0
    kernels = _kernels(acting, own, tau_syn=tau_syn, theta=theta, t_ref=t_ref)
    return _sum_slope(t, kernels, tau_mem=tau_mem, tau_syn=tau_syn)


def neuron_spikes(arrival_times, arrival_weights, *, tau_mem, tau_syn, theta, t_ref, t_end):
    """All spikes of one neuron before t_end: each the first double at which V has reached theta.

    Raises ValueError unless theta > 0, t_ref >= 0 and t_end is finite.
    """
    if not (theta > 0 and t_ref >= 0 and isfinite(t_end)):
        raise ValueError(f"theta = {theta}, t_ref = {t_ref}, t_end = {t_end}: want theta > 0, t_ref >= 0, t_end finite")
    arrivals = [(float(s), float(w)) for s, w in zip(arrival_times, arrival_weights, strict=True) if s < t_end]
    spikes = []
    start = min((s for s, _ in arrivals), default=t_end)
    while start < t_end:
        stop = min((s for s, _ in arrivals if s > start), default=t_end)
        # From start+ to stop- the same arrivals and own spikes act, so V and V' are smooth there.
        acting = [(s, w) for s, w in arrivals if s <= start]
        kernels = _kernels(acting, spikes, tau_syn=tau_syn, theta=theta, t_ref=t_ref)
        f = _first_crossing(
            lambda t, kernels=kernels: _sum_potential(t, kernels, tau_mem=tau_mem, tau_syn=tau_syn),
            lambda t, kernels=kernels: _sum_slope(t, kernels, tau_mem=tau_mem, tau_syn=tau_syn),
            start,
            stop,
            theta,
        )
        if f is None:
            start = stop
        elif f < t_end:
            spikes.append(f)
            start = f + t_ref
        else:
            break
    return np.array(spikes)


def _first_crossing(v, dv, start, stop, theta):
    """The first t in [start, stop] with v(t) >= theta, or None. v turns at most once there (design 3)."""
    if v(start) >= theta:
        return start
    edges = [start, stop]
    rises = dv(start) > 0
    if rises != (dv(stop) > 0):
        edges.insert(1, _bisect(lambda t: (dv(t) > 0) != rises, start, stop))
    for left, right in pairwise(edges):
        if v(right) >= theta:
            return _bisect(lambda t: v(t) >= theta, left, right)
    return None


def _bisect(holds, lo, hi):
    """The first number at which `holds` is true, given that it is not at lo and is at hi. Works for floats and mpf."""
    while lo < (mid := lo + (hi - lo) / 2) < hi:
        lo, hi = (lo, mid) if holds(mid) else (mid, hi)
    return hi


# ---------------------------------------------------------------------------------------------------------------------
# A chain of layers


def simulate_chain(layers, times, units, t_end):
    """The spikes of every layer: a list of (times, units), each in order of (time, unit)."""
    train = np.asarray(times, dtype=float), np.asarray(units, dtype=int)
    spikes_per_layer = []
    for layer in layers:
        train = _simulate_layer(layer, *train, t_end)
        spikes_per_layer.append(train)
    return spikes_per_layer


def _simulate_layer(layer, times, units, t_end):
    weight = np.asarray(layer["weight"], dtype=float)
    trains = [
        neuron_spikes(times, weight[unit, units], **constants, t_end=t_end)
        for unit, constants in enumerate(_constants(layer, len(weight)))
    ]
    fired = np.concatenate([np.empty(0), *trains])
    who = np.repeat(np.arange(len(trains)), [len(train) for train in trains])
    order = np.lexsort((who, fired))
    return fired[order], who[order]


def _constants(layer, n_units):
    """tau_mem, tau_syn, theta and t_ref of each unit of a layer."""
    if np.ndim(layer["tau_syn"]) and np.shape(layer["tau_syn"]) != (n_units, 1):
        raise ValueError(f"tau_syn has shape {np.shape(layer['tau_syn'])}: the oracle knows a scalar or (out, 1)")
    columns = [
        np.broadcast_to(np.asarray(value, dtype=float), (n_units,)).tolist()
        for value in (layer["tau_mem"], np.ravel(layer["tau_syn"]), layer["v_threshold"], layer.get("t_ref", 0.0))
    ]
    return [dict(zip(("tau_mem", "tau_syn", "theta", "t_ref"), row, strict=True)) for row in zip(*columns, strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# The explicit system G_k = V(f_k-) - theta = 0, one equation per spike


def chain_system(layers, times, units, t_end, spikes_per_layer):
    """All partial derivatives of G, in the form that holds for any t_ref (design 3, "The explicit system").

    The equations are numbered layer by layer, in time order within a layer. Returns a dict of arrays:

    firing       (n, n) by firing time, lower triangular, the slopes V'(f_k-) on its diagonal
    weight       a list of (n, out, in)
    v_threshold  a list of (n, out)
    t_ref        a list of (n, out)
    times        (n, n_inputs) by input time, in the order in which the inputs are given
    """
    n = sum(len(fired) for fired, _ in spikes_per_layer)
    shapes = [np.shape(layer["weight"]) for layer in layers]
    system = {
        "firing": np.zeros((n, n)),
        "weight": [np.zeros((n, *shape)) for shape in shapes],
        "v_threshold": [np.zeros((n, shape[0])) for shape in shapes],
        "t_ref": [np.zeros((n, shape[0])) for shape in shapes],
        "times": np.zeros((n, len(times))),
    }
    # A source is (time, unit, the column of `by_source` that its time owns).
    sources = [(float(s), int(j), m) for m, (s, j) in enumerate(zip(times, units, strict=True)) if s < t_end]
    by_source, first = system["times"], 0
    for index, (layer, (fired, who)) in enumerate(zip(layers, spikes_per_layer, strict=True)):
        blocks = {name: system[name][index] for name in ("weight", "v_threshold", "t_ref")}
        spikes = [(float(f), int(i), first + k) for k, (f, i) in enumerate(zip(fired, who, strict=True))]
        constants = _constants(layer, len(layer["weight"]))
        for f, i, k in spikes:
            own = [(t, m) for t, unit, m in spikes if unit == i and t < f]
            _fill_row(k, f, i, own, sources, layer["weight"], constants[i], by_source, system["firing"], blocks)
        sources, by_source, first = spikes, system["firing"], first + len(spikes)
    return system


def _fill_row(k, f, i, own, sources, weight, constants, by_source, firing, blocks):
    alpha, beta = 1 / constants["tau_syn"], 1 / constants["tau_mem"]
    last, last_column = max(own, default=(None, None))
    end_of_hold = -np.inf if last is None else last + constants["t_ref"]
    current_left = 0.0
    for s, j, m in sources:
        if s >= f:
            continue
        w = float(weight[i][j])
        if s < end_of_hold:
            left = exp(-alpha * (end_of_hold - s))
            kernel = left * response(f - end_of_hold, alpha, beta)
            current_left += w * left
            firing[k, k] += w * left * response_slope(f - end_of_hold, alpha, beta)
            by_source[k, m] += alpha * w * kernel
        else:
            kernel = response(f - s, alpha, beta)
            firing[k, k] += w * response_slope(f - s, alpha, beta)
            by_source[k, m] -= w * response_slope(f - s, alpha, beta)
        blocks["weight"][k, i, j] += kernel
    blocks["v_threshold"][k, i] = -1.0
    if last is not None:
        by_end_of_hold = -current_left * exp(-beta * (f - end_of_hold))
        firing[k, last_column] += by_end_of_hold
        blocks["t_ref"][k, i] += by_end_of_hold


def chain_gradient(layers, times, units, t_end, spikes_per_layer, grad_times_per_layer):
    """The exact gradient of a loss with derivatives `grad_times_per_layer` by the spikes of each layer.

    Solves firing^T mu = dL/dF; the gradient by a parameter p is -mu dG/dp. An entry None stands for zeros. Returns a
    dict: lists over layers `weight` (out, in), `v_threshold` (out,), `t_ref` (out,), and `times` (n_inputs,).
    """
    system = chain_system(layers, times, units, t_end, spikes_per_layer)
    grad_firing = np.concatenate(
        [np.empty(0)]
        + [
            np.zeros(len(fired)) if grad is None else np.asarray(grad, dtype=float)
            for (fired, _), grad in zip(spikes_per_layer, grad_times_per_layer, strict=True)
        ]
    )
    mu = np.linalg.solve(system["firing"].T, grad_firing)
    return {
        **{
            name: [-np.tensordot(mu, block, axes=1) for block in system[name]]
            for name in ("weight", "v_threshold", "t_ref")
        },
        "times": -mu @ system["times"],
    }


def central_difference(f, x, step=None):
    """df/dx by central differences, one element of x at a time: shape of f(x) + shape of x.

    The step of an element is `step` (eps^(1/3), where truncation and rounding balance) times max(1, |x|).
    Raises ValueError where f changes its shape, that is where a spike appears or vanishes within a step.
    """
    x = np.array(x, dtype=float)
    step = np.finfo(float).eps ** (1 / 3) if step is None else step
    columns = []
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step * max(1.0, abs(x[index]))
        down[index] -= step * max(1.0, abs(x[index]))
        above, below = np.asarray(f(up), dtype=float), np.asarray(f(down), dtype=float)
        if above.shape != below.shape:
            raise ValueError(f"f has shape {above.shape} above x{list(index)} = {x[index]} and {below.shape} below")
        columns.append((above - below) / (up[index] - down[index]))
    if not columns:
        return np.zeros(np.shape(f(x)) + x.shape)
    return np.stack(columns, axis=-1).reshape(columns[0].shape + x.shape)


# ---------------------------------------------------------------------------------------------------------------------
# Many digits


def exact_response(gap, alpha, beta, digits=60):
    """h(gap) as an mpf, right to `digits` digits for the given rates (floats are taken as they are stored)."""
    with mpmath.workdps(digits + GUARD_DIGITS):
        gap, alpha, beta = mpmath.mpf(gap), mpmath.mpf(alpha), mpmath.mpf(beta)
        if alpha == beta:
            return gap * mpmath.exp(-alpha * gap)
        return -mpmath.exp(-alpha * gap) * mpmath.expm1(-(beta - alpha) * gap) / (beta - alpha)


def exact_first_spike(arrival_times, arrival_weights, *, alpha, beta, theta, t_end, digits=60):
    """The first spike of a neuron as an mpf, or None if V stays below theta before t_end.

    Takes rates, not taus, as `exact_response` does: 1 / tau need not be a double.
    """
    with mpmath.workdps(digits + GUARD_DIGITS):
        alpha, beta, theta = mpmath.mpf(alpha), mpmath.mpf(beta), mpmath.mpf(theta)
        arrivals = [(mpmath.mpf(s), mpmath.mpf(w)) for s, w in zip(arrival_times, arrival_weights, strict=True)]
        edges = sorted({s for s, _ in arrivals if s < t_end} | {mpmath.mpf(t_end)})
        for start, stop in pairwise(edges):
            acting = [(s, w) for s, w in arrivals if s <= start]

            def v(t, acting=acting):
                return mpmath.fsum(w * exact_response(t - s, alpha, beta, digits) for s, w in acting)

            def dv(t, acting=acting, v=v):
                return mpmath.fsum(w * mpmath.exp(-alpha * (t - s)) for s, w in acting) - beta * v(t)

            f = _first_crossing(v, dv, start, stop, theta)
            if f is not None:
                return f if f < t_end else None
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Random chains

# How far, in units of tau_mem and theta, a random chain keeps from whatever makes its derivative one-sided or wild: a
# central difference moves a spike by 6e-6 times its sensitivity, and its error grows like slope^-5. As it is, default
# differences agree with `chain_gradient` to 1e-6 of the largest component on 319 of 320 chains (median 1e-8).
MIN_SLOPE = 0.3
MIN_GAP = 2e-3
MIN_CLEARANCE = 2e-3
MAX_SENSITIVITY = 10.0  # of any spike to any input time


def random_chain(rng, sizes, *, t_ref=False, equal_tau=False, n_input_spikes=3, t_end=4.0):
    """A random chain whose hidden units fire twice or more and whose outputs fire: (layers, times, units, t_end).

    `sizes` are (inputs, hidden..., outputs). Every input fires `n_input_spikes` times in the first half of the time.
    Thresholds are drawn per unit, taus per layer, tau_mem == tau_syn where `equal_tau`, a hold per unit where
    `t_ref`. A unit with two sources or more has weights of both signs. Grazes, coincidences of a spike or an end of
    hold with an arrival, and spikes near t_end are avoided, so that gradients can be compared with differences.
    """
    times = rng.uniform(0.0, t_end / 2, size=sizes[0] * n_input_spikes)
    units = np.repeat(np.arange(sizes[0]), n_input_spikes)
    order = np.lexsort((units, times))
    times, units = times[order], units[order]
    layers, trains, by_inputs = [], [(times, units)], np.eye(len(times))
    for depth, n_out in enumerate(sizes[1:], start=1):
        tau_mem = rng.uniform(0.7, 1.6)
        layer = {
            "tau_mem": tau_mem,
            "tau_syn": tau_mem if equal_tau else tau_mem * rng.choice([rng.uniform(0.3, 0.8), rng.uniform(1.25, 1.6)]),
            "v_threshold": rng.uniform(0.5, 1.5, size=n_out),
            "t_ref": rng.uniform(0.05, 0.3, size=n_out) if t_ref else np.zeros(n_out),
        }
        fewest = 2 if depth < len(sizes) - 1 else 1
        layer["weight"] = np.array(
            [
                _random_row(rng, sizes[depth - 1], *trains[-1], t_end, by_inputs, fewest, constants)
                for constants in _constants(layer, n_out)
            ]
        )
        layers.append(layer)
        trains.append(_simulate_layer(layer, *trains[-1], t_end))
        system = chain_system(layers, times, units, t_end, trains[1:])
        by_inputs = -np.linalg.solve(system["firing"], system["times"])[-len(trains[-1][0]) :]
    return layers, times, units, t_end


def _random_row(rng, n_in, times, units, t_end, by_inputs, fewest, constants):
    """Weights with which a neuron fires `fewest` times or a few more, all at a clear distance from trouble.

    `by_inputs` is the derivative of its arrivals by the inputs of the chain.
    """
    for _ in range(1000):
        row = rng.uniform(0.2, 1.0, size=n_in) * 4 * constants["theta"] / len(times)
        if n_in > 1:
            row[rng.choice(n_in, size=max(1, n_in // 4), replace=False)] *= -1
        target = fewest + rng.integers(0, 3)
        for _ in range(30):
            spikes = neuron_spikes(times, row[units], **constants, t_end=t_end)
            if len(spikes) >= target:
                break
            row *= 1.2
        if target <= len(spikes) <= target + 3 and _is_clear(row, times, units, t_end, by_inputs, spikes, constants):
            return row
    raise AssertionError("no row of weights found in 1000 trials; give more input spikes or a later t_end")


def _is_clear(row, times, units, t_end, by_inputs, spikes, constants):
    tau, theta = constants["tau_mem"], constants["theta"]
    layer = {**constants, "v_threshold": theta, "weight": row[None]}
    system = chain_system([layer], times, units, t_end, [(spikes, np.zeros(len(spikes), dtype=int))])
    if np.diag(system["firing"]).min() * tau < MIN_SLOPE * theta:
        return False
    if np.abs(np.linalg.solve(system["firing"], system["times"]) @ by_inputs).max() > MAX_SENSITIVITY:
        return False
    moments = np.concatenate([spikes, spikes + constants["t_ref"]])
    if np.abs(moments[:, None] - np.append(times, t_end)).min() < MIN_GAP * tau:
        return False
    return all(
        len(neuron_spikes(times, row[units], **{**constants, "theta": theta * factor}, t_end=t_end)) == len(spikes)
        for factor in (1 - MIN_CLEARANCE, 1 + MIN_CLEARANCE)
    )
