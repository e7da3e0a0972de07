"""The oracle for arbitrary networks: one flat population, any recurrence, any constants, from sums over spikes.

It imports nothing of fireprop and carries no state from event to event. The potential at any moment is a sum over the
spikes so far, each with the time constant of its own synapse (Lee et al. 2023, Theorem 1; with a hold the sum
starts anew where the hold ends); a spike is found by bisection of that sum down to neighbouring doubles; a gradient is
the solution of the dense explicit system (docs/design.md, 3). `reference.py` knows chains only and one
tau_syn a unit; what it knows of a kernel is imported from there.

A network is a dict of arrays for N units that hear n_in inputs and one another without delay:

weight            (N, n_in), recurrent_weight (N, N): to the row, from the column
mask              (N, n_in), recurrent_mask (N, N): bool, False where there is no synapse
tau_mem           (N,) > 0
tau_syn           (N, n_in), tau_syn_rec (N, N) > 0, of every synapse
v_threshold       (N,) > 0
t_ref             (N,) >= 0

It may have more, which is 0 if it is left out:

delay             (N, n_in), delay_rec (N, N) >= 0, from a spike to its arrival
bias              (N,), a constant current, from t_start on
v_start, i_start  (N,) V and the current of the units' first tau_syn there
t_start           the time from which these act, before any input

`times, units` are the input spikes in any order. The order at one instant is that of design.md 3: spikes (all that
cross at the same double fire before any of them is delivered), ends of hold, arrivals.
"""

from bisect import insort
from itertools import pairwise
from math import exp, fsum, inf, isfinite, nextafter
from typing import NamedTuple

import numpy as np

from reference import _bisect, response, response_slope

STEP = 2e-5  # truncation of the fourth order is then far below the rounding, eps / STEP = 1e-11 times the sensitivity
FEWEST, MOST = 5, 60  # spikes of a random network

# How far a clear network keeps from whatever makes its derivative one-sided or wild: the two steps of a difference
# move a spike by 2 * STEP * MAX_SENSITIVITY = 1.2e-3 at most along one parameter, by a fraction of it as a rule.
MIN_RELATIVE_SLOPE = 0.1  # of beta theta
MAX_SENSITIVITY = 30.0  # of any spike to any parameter or input time
MIN_GAP = 1e-3
MIN_CLEARANCE = 1e-3  # of theta
PARAMETERS = ("weight", "recurrent_weight", "v_threshold", "t_ref")
CONSTANTS = ("tau_mem", "tau_syn", "tau_syn_rec", "delay", "delay_rec", "bias", "v_start", "i_start")


class TooManySpikes(Exception):
    """A simulation fired more often than its caller allows."""


# ---------------------------------------------------------------------------------------------------------------------
# The potential as a sum over spikes


class Membrane(NamedTuple):
    """V of one unit as a sum over what it has heard and fired, valid until it hears or fires again.

    synaptic  (origin, height, alpha) of every kernel height * h(t - origin)
    resets    (origin, height) of every height * exp(-beta (t - origin))
    """

    synaptic: list
    resets: list
    beta: float

    def potential(self, t):
        beta = self.beta
        return fsum(
            [w * response(t - s, alpha, beta) for s, w, alpha in self.synaptic]
            + [w * exp(-beta * (t - s)) for s, w in self.resets]
        )

    def slope(self, t):
        beta = self.beta
        return fsum(
            [w * response_slope(t - s, alpha, beta) for s, w, alpha in self.synaptic]
            + [-beta * w * exp(-beta * (t - s)) for s, w in self.resets]
        )

    def currents(self, t):
        """The current at t in each channel: a dict from alpha to I."""
        terms = {}
        for s, w, alpha in self.synaptic:
            terms.setdefault(alpha, []).append(w * exp(-alpha * (t - s)))
        return {alpha: fsum(heights) for alpha, heights in terms.items()}


def superpose(arrivals, own, *, beta, theta, start=()):
    """Theorem 1, t_ref = 0: every arrival adds w h(t - s), every own spike takes theta exp(-beta (t - f)).

    start  (t_start, v_start) of what else decays, if anything
    """
    return Membrane(arrivals, [*start, *((f, -theta) for f in own)], beta)


def restart(arrivals, own, *, beta, t_ref, start=()):
    """The same for any t_ref: V starts anew from 0 where the last hold ends, with the currents that are left there."""
    if not own:
        return Membrane(arrivals, [*start], beta)
    end_of_hold = own[-1] + t_ref
    return Membrane(
        [
            (s, w, alpha) if s >= end_of_hold else (end_of_hold, w * exp(-alpha * (end_of_hold - s)), alpha)
            for s, w, alpha in arrivals
        ],
        [],
        beta,
    )


def _membrane(network, unit, arrivals, own):
    beta, t_ref = 1 / float(network["tau_mem"][unit]), float(network["t_ref"][unit])
    start = [(network["t_start"], float(network["v_start"][unit]))] if "v_start" in network else []
    if t_ref == 0:
        return superpose(arrivals, own, beta=beta, theta=float(network["v_threshold"][unit]), start=start)
    return restart(arrivals, own, beta=beta, t_ref=t_ref, start=start)


def _columns(network):
    """Who hears whom: for inputs and for units, a list over sources of all their (unit, weight, alpha, delay)."""
    return [
        [
            [
                (
                    int(i),
                    float(network[weight][i, j]),
                    1 / float(network[tau][i, j]),
                    float(network[delay][i, j]) if delay in network else 0.0,
                )
                for i in np.flatnonzero(network[mask][:, j])
            ]
            for j in range(np.shape(network[mask])[1])
        ]
        for weight, mask, tau, delay in (
            ("weight", "mask", "tau_syn", "delay"),
            ("recurrent_weight", "recurrent_mask", "tau_syn_rec", "delay_rec"),
        )
    ]


def _at_start(network):
    """What acts on the units at t_start: (unit, weight, alpha) of biases, which do not decay, and initial currents."""
    n = len(network["tau_mem"])
    found = [(i, float(network["bias"][i]), 0.0) for i in range(n)] if "bias" in network else []
    if "i_start" in network:
        found += [(i, float(network["i_start"][i]), 1 / float(network["tau_syn"][i, 0])) for i in range(n)]
    return found


def _before(network, unit, t, input_times, input_units, spike_times, spike_units):
    """All (time, weight, alpha) that `unit` heard and all that it fired strictly before t."""
    arrivals = [
        (float(s) + delay, weight, alpha)
        for sources, times, units in zip(
            _columns(network), (input_times, spike_times), (input_units, spike_units), strict=True
        )
        for s, j in zip(times, units, strict=True)
        for i, weight, alpha, delay in sources[j]
        if i == unit and s + delay < t
    ]
    arrivals += [(network["t_start"], weight, alpha) for i, weight, alpha in _at_start(network) if i == unit]
    own = sorted(float(f) for f, i in zip(spike_times, spike_units, strict=True) if i == unit and f < t)
    return arrivals, own


def potential(network, unit, t, input_times, input_units, spike_times, spike_units):
    """V(t-) of a unit from the spikes of the inputs and of the whole network."""
    arrivals, own = _before(network, unit, t, input_times, input_units, spike_times, spike_units)
    if own and t <= own[-1] + network["t_ref"][unit]:
        return 0.0
    return _membrane(network, unit, arrivals, own).potential(t)


def slope(network, unit, t, input_times, input_units, spike_times, spike_units):
    """V'(t-) of a unit."""
    arrivals, own = _before(network, unit, t, input_times, input_units, spike_times, spike_units)
    if own and t <= own[-1] + network["t_ref"][unit]:
        return 0.0
    return _membrane(network, unit, arrivals, own).slope(t)


def current(network, unit, t, input_times, input_units, spike_times, spike_units):
    """I(t-) of a unit, all channels together: a hold does not touch it."""
    arrivals, _ = _before(network, unit, t, input_times, input_units, spike_times, spike_units)
    return fsum(w * exp(-alpha * (t - s)) for s, w, alpha in arrivals)


# ---------------------------------------------------------------------------------------------------------------------
# The first crossing between two events


def first_crossing(membrane, start, stop, theta, nearest=inf):
    """The first t in [start, stop] at which the sum has reached theta, or None.

    The answer may also be None if the crossing comes after `nearest`: another unit has fired by then.
    """
    v, currents = membrane.potential(start), membrane.currents(start)
    if v >= theta:
        return start
    if _bound(v, currents, membrane.beta, min(stop, nearest) - start) < 0.999 * theta:  # rounding is far below
        return None
    state = v, currents, membrane.beta
    for left, right in pairwise([start, *turning_points(*state, start, stop), stop]):
        if membrane.potential(right) >= theta:
            guess = _bisect(lambda t: _propagate(*state, t - start) >= theta, left, right)
            return _first_near(lambda t: membrane.potential(t) >= theta, guess, left, right)
    return None


def _bound(v, currents, beta, d):
    """More than V can reach within d: h(d) is below d and, as a smoothed exponential, below 1 / its faster rate."""
    return max(0.0, v) + sum(i * min(d, 1 / max(alpha, beta)) for alpha, i in currents.items() if i > 0)


def _propagate(v, currents, beta, d):
    return v * exp(-beta * d) + sum([i * response(d, alpha, beta) for alpha, i in currents.items()])


def turning_points(v, currents, beta, start, stop):
    """The zeros of V' in (start, stop) in order, given V and the current of each channel at start.

    exp(beta t) V' has the derivative exp(beta t) I', so that V' has at most one zero between two zeros of I'.
    """
    slow = min(beta, *currents)

    def rises(t):
        # V' times exp(slow (t - start)), which does not underflow at a far horizon
        d = t - start
        return sum(
            [
                i * (exp((slow - alpha) * d) - beta * response(d, alpha - slow, beta - slow))
                for alpha, i in currents.items()
            ]
        ) > beta * v * exp((slow - beta) * d)

    return _sign_changes(
        rises, [start, *zeros_of_exponentials({a: -a * i for a, i in currents.items()}, start, stop), stop]
    )


def zeros_of_exponentials(heights, start, stop):
    """The zeros in (start, stop), in order, of the sum of heights[a] * exp(-a (t - start)) over the rates a.

    Divided by its slowest exponential, the sum has a derivative with one exponential less, whose zeros separate those
    of the sum. A double zero is no change of sign and may be left out.
    """
    heights = {a: height for a, height in heights.items() if height}
    if not heights or min(heights.values()) > 0 or max(heights.values()) < 0:
        return []
    slow = min(heights)
    separators = zeros_of_exponentials(
        {a: (slow - a) * height for a, height in heights.items() if a != slow}, start, stop
    )
    terms = [(slow - a, height) for a, height in heights.items()]
    return _sign_changes(
        lambda t: sum([height * exp(a * (t - start)) for a, height in terms]) > 0, [start, *separators, stop]
    )


def _sign_changes(positive, points):
    """Where `positive` changes, given that it does at most once between neighbouring points."""
    return [
        _bisect(lambda t, before=before: positive(t) != before, left, right)
        for left, right in pairwise(points)
        if (before := positive(left)) != positive(right)
    ]


def _first_near(holds, guess, lo, hi):
    """As `_bisect`, where the change is expected within some doubles of the guess."""
    reach = 4 * (nextafter(guess, inf) - guess)
    while True:
        left, right = max(lo, guess - reach), min(hi, guess + reach)
        if (left == lo or not holds(left)) and (right == hi or holds(right)):
            return _bisect(holds, left, right)
        reach *= 4


# ---------------------------------------------------------------------------------------------------------------------
# The whole network


def simulate(network, times, units, t_end, max_spikes=10_000):
    """All spikes before t_end: (times, units) in order of (time, unit).

    Raises ValueError unless thresholds are > 0, holds >= 0 and t_end finite, TooManySpikes beyond `max_spikes`.
    """
    theta, t_ref = np.asarray(network["v_threshold"]).tolist(), np.asarray(network["t_ref"]).tolist()
    if not (min(theta) > 0 and min(t_ref) >= 0 and isfinite(t_end)):
        raise ValueError(f"v_threshold = {theta}, t_ref = {t_ref}, t_end = {t_end}: want > 0, >= 0, finite")
    from_inputs, from_units = _columns(network)
    waiting, arrivals, own = [], [[] for _ in theta], [[] for _ in theta]
    for s, j in zip(times, units, strict=True):
        _send(waiting, float(s), from_inputs[j], t_end)
    for i, weight, alpha in _at_start(network):
        arrivals[i].append((network["t_start"], weight, alpha))
    spikes, now = [], network.get("t_start", -inf)
    while True:
        stop = waiting[0][0] if waiting else t_end
        crossings, nearest = {}, stop
        for i in range(len(theta)):
            start = max(now, own[i][-1] + t_ref[i]) if own[i] else now
            if (arrivals[i] or "v_start" in network) and start <= nearest:
                f = first_crossing(_membrane(network, i, arrivals[i], own[i]), start, stop, theta[i], nearest)
                if f is not None:
                    crossings[i], nearest = f, min(f, nearest)
        fired = [i for i, f in crossings.items() if f == nearest and f < t_end]
        if fired:
            now = nearest
            for i in fired:
                own[i].append(now)
                spikes.append((now, i))
            if len(spikes) > max_spikes:
                raise TooManySpikes(f"more than {max_spikes} spikes at t = {now}")
            for j in fired:
                _send(waiting, now, from_units[j], t_end)
        elif waiting:
            now = stop
            while waiting and waiting[0][0] == now:
                _, i, weight, alpha = waiting.pop(0)
                arrivals[i].append((now, weight, alpha))
        else:
            break
    spikes.sort()
    return np.array([f for f, _ in spikes], dtype=float), np.array([i for _, i in spikes], dtype=int)


def _send(waiting, now, column, t_end):
    """Put what a spike sends among what is on its way, in order of time."""
    for i, weight, alpha, delay in column:
        if now + delay < t_end:
            insort(waiting, (now + delay, i, weight, alpha))


# ---------------------------------------------------------------------------------------------------------------------
# The explicit system G_k = V(f_k-) - theta = 0, one equation per spike


def explicit_system(network, times, units, spike_times, spike_units):
    """All partial derivatives of G in the form that holds for any t_ref (design 3, "The explicit system").

    The equations are those of the spikes in the order given, which must be that of time. Returns a dict of arrays:

    firing            (F, F) by firing time, lower triangular, the slopes V'(f_k-) on its diagonal
    weight            (F, N, n_in)
    recurrent_weight  (F, N, N)
    v_threshold       (F, N)
    t_ref             (F, N)
    times             (F, n_inputs) by input time, in the order in which the inputs are given
    """
    system = _no_system(network, times, spike_times)
    for k, f, i, own in _equations(spike_times, spike_units):
        system["v_threshold"][k, i] = -1.0
        last, column = max(own, default=(-inf, None))
        end_of_hold = last + network["t_ref"][i]
        current_left = _fill_arrivals(system, network, k, f, i, end_of_hold, times, units, spike_times, spike_units)
        if own:
            by_end_of_hold = -current_left * exp(-(f - end_of_hold) / network["tau_mem"][i])
            system["firing"][k, column] += by_end_of_hold
            system["t_ref"][k, i] += by_end_of_hold
    return system


def paper_system(network, times, units, spike_times, spike_units):
    """The same in the paper's own form, where every earlier spike of a neuron enters: t_ref = 0 only.

    Raises ValueError if a t_ref is not 0.
    """
    if np.any(network["t_ref"]):
        raise ValueError(f"t_ref = {network['t_ref']}: the paper's form knows no hold; use explicit_system")
    system = _no_system(network, times, spike_times)
    for k, f, i, own in _equations(spike_times, spike_units):
        theta, beta = network["v_threshold"][i], 1 / network["tau_mem"][i]
        system["v_threshold"][k, i] = -1.0
        _fill_arrivals(system, network, k, f, i, -inf, times, units, spike_times, spike_units)
        for earlier, m in own:
            left = exp(-beta * (f - earlier))
            system["firing"][k, k] += theta * beta * left
            system["firing"][k, m] -= theta * beta * left
            system["v_threshold"][k, i] -= left
    return system


def _no_system(network, times, spike_times):
    n, n_units, n_in = len(spike_times), *np.shape(network["weight"])
    shapes = {
        "firing": (n,),
        "weight": (n_units, n_in),
        "recurrent_weight": (n_units, n_units),
        "v_threshold": (n_units,),
        "t_ref": (n_units,),
        "times": (len(times),),
    }
    return {name: np.zeros((n, *shape)) for name, shape in shapes.items()}


def _equations(spike_times, spike_units):
    """For every spike: its number, time and unit, and the (time, number) of all earlier ones of its unit."""
    spikes = [(float(f), int(i)) for f, i in zip(spike_times, spike_units, strict=True)]
    for k, (f, i) in enumerate(spikes):
        yield k, f, i, [(earlier, m) for m, (earlier, who) in enumerate(spikes) if who == i and earlier < f]


def _fill_arrivals(system, network, k, f, i, end_of_hold, times, units, spike_times, spike_units):
    """Adds to row k what the arrivals before f contribute. Returns the current that is left at the end of the hold."""
    beta, current_left = 1 / float(network["tau_mem"][i]), 0.0
    for trains, name, mask, tau, by_source in (
        ((times, units), "weight", "mask", "tau_syn", "times"),
        ((spike_times, spike_units), "recurrent_weight", "recurrent_mask", "tau_syn_rec", "firing"),
    ):
        weights, alphas = np.asarray(network[name])[i].tolist(), (1 / np.asarray(network[tau])[i]).tolist()
        exists = np.asarray(network[mask])[i].tolist()
        for m, (s, j) in enumerate(zip(*trains, strict=True)):
            if s >= f or not exists[j]:
                continue
            s, w, alpha = float(s), weights[j], alphas[j]
            if s < end_of_hold:
                left = exp(-alpha * (end_of_hold - s))
                kernel = left * response(f - end_of_hold, alpha, beta)
                rise = w * left * response_slope(f - end_of_hold, alpha, beta)
                current_left += w * left
                system[by_source][k, m] += alpha * w * kernel
            else:
                kernel = response(f - s, alpha, beta)
                rise = w * response_slope(f - s, alpha, beta)
                system[by_source][k, m] -= rise
            system["firing"][k, k] += rise
            system[name][k, i, j] += kernel
    return current_left


def gradient(network, times, units, spike_times, spike_units, grad_times):
    """The exact gradient of a loss with derivatives `grad_times` (F,) by the spikes.

    Solves firing^T mu = dL/dF; the gradient by a parameter p is -mu dG/dp. Returns a dict of arrays: weight (N, n_in),
    recurrent_weight (N, N), v_threshold (N,), t_ref (N,), times (n_inputs,).
    """
    return solve_transposed(explicit_system(network, times, units, spike_times, spike_units), grad_times)


def solve_transposed(system, grad_times):
    """The same from a system that is at hand, for one loss (F,)."""
    mu = np.linalg.solve(system["firing"].T, np.asarray(grad_times, dtype=float))
    return {name: -np.tensordot(mu, block, axes=1) for name, block in system.items() if name != "firing"}


def relative_slopes(network, system, spike_units):
    """V'(f-) of every spike in units of beta theta, (F,): a derivative's rounding grows like one over its square."""
    return np.diag(system["firing"]) * np.asarray(network["tau_mem"] / network["v_threshold"])[spike_units]


# ---------------------------------------------------------------------------------------------------------------------
# Central differences


def by_unit(spike_times, spike_units):
    """The permutation that sorts spikes by (unit, time): spikes of unconnected units may change places in time."""
    return np.lexsort((spike_times, spike_units))


def directional_difference(network, times, units, t_end, spikes, grad_times, direction, step=STEP):
    """d(loss)/d(step) along `direction`, a dict of arrays by "times" and names of the network, all moved together.

    The loss is linear, with derivatives `grad_times` (F,) by `spikes`, which are those of `simulate`. Fourth order.
    Raises ValueError if a spike appears or vanishes within the steps.
    """
    order = by_unit(*spikes)
    grad_times, who = np.asarray(grad_times, dtype=float)[order], spikes[1][order].tolist()

    def loss(moved):
        varied = {
            name: value + moved * direction[name] if name in direction else value for name, value in network.items()
        }
        fired = simulate(varied, np.asarray(times) + moved * direction.get("times", 0.0), units, t_end)
        order = by_unit(*fired)
        if fired[1][order].tolist() != who:
            raise ValueError(f"a step of {moved} along {', '.join(direction)} changes the spikes")
        return grad_times @ fired[0][order]

    near, far = loss(step) - loss(-step), loss(2 * step) - loss(-2 * step)
    return (8 * near - far) / (12 * step)


# ---------------------------------------------------------------------------------------------------------------------
# Random networks


def random_network(
    rng,
    *,
    n_in=3,
    n_units=4,
    density=0.6,
    several_tau_syn=True,
    t_ref=True,
    inhibition=True,
    self_loops=True,
    twins=False,
    clear=False,
    n_input_spikes=3,
    t_end=4.0,
):
    """A network whose units fire twice or more, `FEWEST` to `MOST` times in all: (network, times, units, t_end).

    Every input fires `n_input_spikes` times in the first half of the time. A unit hears each input with probability
    (1 + density) / 2, at least one of them, and each other unit with probability `density`. Constants are drawn per
    unit. With `several_tau_syn` every synapse takes its own from a handful, in half of the networks by source alone;
    else a unit has one. In one unit of four on average, tau_syn == tau_mem at one synapse (at all, where it has one).
    `inhibition` makes some weights of inputs and half of the recurrent ones negative; with `self_loops` unit 0 hears
    itself at least, otherwise no unit does. `twins` makes unit 1 a copy of unit 0: they fire together.
    With `clear`, differences of the spike times are safe: see `is_clear`.
    """
    shape = {"density": density, "several_tau_syn": several_tau_syn, "inhibition": inhibition, "self_loops": self_loops}
    for _ in range(2000):
        times = np.sort(rng.uniform(0.0, t_end / 2, size=n_in * n_input_spikes))
        units = rng.permutation(np.repeat(np.arange(n_in), n_input_spikes))
        network = _random_constants(rng, n_in, n_units, t_ref=t_ref, **shape)
        if twins:
            copy_unit(network)
        if inhibition and min(network["weight"].min(), network["recurrent_weight"].min()) >= 0:
            continue
        spikes = _excite(network, times, units, t_end)
        if spikes is not None and (not clear or is_clear(network, times, units, t_end, *spikes)):
            return network, times, units, t_end
    raise AssertionError("no network found in 2000 trials; give more input spikes or a later t_end")


def _random_constants(rng, n_in, n_units, *, t_ref, density, several_tau_syn, inhibition, self_loops):
    mask = rng.random((n_units, n_in)) < (1 + density) / 2
    mask[np.arange(n_units), rng.integers(n_in, size=n_units)] = True
    recurrent_mask = rng.random((n_units, n_units)) < density
    recurrent_mask[0, 0] = True
    np.fill_diagonal(recurrent_mask, np.diag(recurrent_mask) & self_loops)
    tau_mem, theta = rng.uniform(0.7, 1.6, size=n_units), rng.uniform(0.5, 1.5, size=n_units)
    tau_syn = _random_tau_syn(rng, tau_mem, n_in + n_units, several_tau_syn)
    weight = rng.uniform(0.2, 1.0, size=(n_units, n_in)) * theta[:, None]
    recurrent_weight = rng.uniform(0.2, 1.0, size=(n_units, n_units)) * theta[:, None]
    if inhibition:
        # one synapse of an input at least excites
        weight *= np.where((rng.random(weight.shape) < 0.3) & (np.cumsum(mask, axis=1) > 1), -1, 1)
        recurrent_weight *= rng.choice([-1, 1], size=recurrent_weight.shape)
    return {
        "weight": 2.2 * weight * mask,
        "recurrent_weight": (0.8 if inhibition else 0.35) * recurrent_weight * recurrent_mask,
        "mask": mask,
        "recurrent_mask": recurrent_mask,
        "tau_mem": tau_mem,
        "tau_syn": tau_syn[:, :n_in],
        "tau_syn_rec": tau_syn[:, n_in:],
        "v_threshold": theta,
        "t_ref": rng.uniform(0.05, 0.3, size=n_units) if t_ref else np.zeros(n_units),
    }


def _random_tau_syn(rng, tau_mem, n_sources, several):
    n_units = len(tau_mem)
    confluent = rng.random(n_units) < 0.25
    if not several:
        apart = tau_mem * rng.choice([rng.uniform(0.3, 0.8), rng.uniform(1.25, 1.6)], size=n_units)
        return np.repeat(np.where(confluent, tau_mem, apart)[:, None], n_sources, axis=1)
    handful = rng.uniform(0.3, 2.0, size=3)
    by_source = rng.random() < 0.5
    tau_syn = np.tile(
        rng.choice(handful, size=(1 if by_source else n_units, n_sources)), (n_units if by_source else 1, 1)
    )
    tau_syn[confluent, rng.integers(n_sources, size=confluent.sum())] = tau_mem[confluent]
    return tau_syn


def copy_unit(arrays):
    """Makes unit 1 a copy of unit 0: the same constants and rows, and nobody hears a difference between them.

    `arrays` is a network, or a direction along which its twins stay twins.
    """
    for name, values in arrays.items():
        if name in ("recurrent_weight", "recurrent_mask", "tau_syn_rec"):
            values[:, 1] = values[:, 0]
        if name != "times":
            values[1] = values[0]


def _excite(network, times, units, t_end):
    """Raises the input weights of silent units until all fire twice: the spikes then, None if they become too many."""
    for _ in range(12):
        try:
            spikes = simulate(network, times, units, t_end, max_spikes=MOST)
        except TooManySpikes:
            return None
        few = np.bincount(spikes[1], minlength=len(network["weight"])) < 2
        if not few.any() and len(spikes[0]) >= FEWEST:
            return spikes
        network["weight"][few if few.any() else slice(None)] *= 1.4
    return None


def is_clear(network, times, units, t_end, spike_times, spike_units):
    """Whether nothing is near at which a derivative is one-sided or wild.

    No graze, no arrival at a spike or an end of hold of a unit that hears it, no spike near t_end, no spike that comes
    or goes with a small change of the thresholds, and no spike that moves much with a weight or an input.
    """
    system = explicit_system(network, times, units, spike_times, spike_units)
    if relative_slopes(network, system, spike_units).min() < MIN_RELATIVE_SLOPE:
        return False
    by_all = np.linalg.solve(
        system["firing"], np.hstack([system[name].reshape(len(spike_times), -1) for name in (*PARAMETERS, "times")])
    )
    if np.abs(by_all).max() > MAX_SENSITIVITY:
        return False
    arrivals, hears = np.concatenate([times, spike_times]), np.hstack([network["mask"], network["recurrent_mask"]])
    sources = np.concatenate([units, len(network["mask"][0]) + spike_units]).astype(int)
    for moments in (spike_times, spike_times + network["t_ref"][spike_units]):
        gaps = np.abs(moments[:, None] - arrivals)
        gaps[~hears[spike_units][:, sources] | (gaps == 0)] = inf
        if min(gaps.min(), np.abs(moments - t_end).min()) < MIN_GAP:
            return False
    return all(
        np.sort(simulate({**network, "v_threshold": network["v_threshold"] * factor}, times, units, t_end)[1]).tolist()
        == np.sort(spike_units).tolist()
        for factor in (1 - MIN_CLEARANCE, 1 + MIN_CLEARANCE)
    )
