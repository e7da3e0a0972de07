"""Networks of every kind with input spikes, as plain arrays, for hypothesis: what a test draws, transforms and builds.

Every number is drawn from a grid, coarse for constants and finer for times, so that examples shrink to simple ones.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from fireprop import SpikeLimitError, Spikes
from fireprop.ift import explicit_system
from fireprop.nn import LIF, Network, Sequential
from networks import KINDS

EPS = 2.0**-52
INPUT = -1
GRID = 2.0**-20  # of input times: it survives a shift by 10^6
T_END = 4.0
ALL_KINDS = (*KINDS, "chain", "chain with loops", "network")
MAX_SPIKES = 50  # of a population; enough for any network that does not excite itself for ever

# Extreme numbers, all of them allowed. Half of the draws have none of those that are beyond any use.
TINY = 5e-324
THRESHOLDS = [TINY, 1e-300, 1e-9, 1e9, 1e100]
HOLDS = [0.0, TINY, 1e-9, 1e3, 1e100]
HUGE_WEIGHTS = st.sampled_from([(), (1e30, 1e100)])
HUGE_TAUS = st.sampled_from([(), (1e-30, 1e30), (1e-100, 1e100)])
HUGE_TIMES = st.sampled_from([(), (1e6, 1e12), (1e150, 1e300)])

# What makes a draw degenerate: nothing that a property states holds to rounding near a graze or a change of order.
MIN_GAP = 1e-6  # between an arrival, a spike, an end of hold and the horizon
MIN_CLEARANCE = 1e-6  # of the threshold: no spike comes or goes, and no two change places, when it moves by so much
MAX_SENSITIVITY = 100.0  # of a spike to a shift of all events before it


class Group(NamedTuple):
    """A population: its constants, (n,) float64 each."""

    tau_mem: np.ndarray
    v_threshold: np.ndarray
    t_ref: np.ndarray

    @property
    def size(self):
        return self.tau_mem.size


class Synapses(NamedTuple):
    """From group `pre`, or INPUT, to group `post`: weight, tau_syn (out, in) float64, mask (out, in) bool."""

    pre: int
    post: int
    weight: np.ndarray
    tau_syn: np.ndarray
    mask: np.ndarray


class Outcome(NamedTuple):
    """What one run gives, a list entry per group or connection: nothing but arrays, to be compared.

    grads  of the weights by connection, of the thresholds by group, then of the input times
    """

    times: list
    units: list
    slopes: list
    grads: list

    def everything(self):
        return [array for part in self for array in part]


@dataclass(frozen=True)
class Case:
    """A network, the input spikes of one sample in order of (time, unit), and the horizon."""

    kind: str
    n_in: int
    groups: tuple
    synapses: tuple
    times: np.ndarray
    units: np.ndarray
    t_end: float = T_END
    dtype: torch.dtype = torch.float64

    def module(self, as_network=None):
        """An ordinary fireprop module: one LIF, a Sequential, or a Network. The thresholds are trained."""
        if self.kind == "network" if as_network is None else as_network:
            return self._network()
        layers = [self._layer(number) for number in range(len(self.groups))]
        return layers[0] if len(layers) == 1 else Sequential(*layers)

    def _layer(self, number):
        group = self.groups[number]
        by_pre = {s.pre: s for s in self.synapses if s.post == number}
        feed, loop = by_pre[number - 1], by_pre.get(number)
        recurrent = {} if loop is None else {
            "recurrent": True, "tau_syn_rec": tensor(loop.tau_syn), "recurrent_mask": tensor(loop.mask),
        }  # fmt: skip
        layer = LIF(
            feed.weight.shape[1], group.size, tau_mem=number_or_tensor(group.tau_mem),
            tau_syn=number_or_tensor(feed.tau_syn), v_threshold=nn.Parameter(tensor(group.v_threshold)),
            t_ref=tensor(group.t_ref), mask=None if feed.mask.all() else tensor(feed.mask), dtype=self.dtype,
            **recurrent,
        )  # fmt: skip
        layer.weight.data.copy_(tensor(feed.weight))
        if loop is not None:
            layer.recurrent_weight.data.copy_(tensor(loop.weight))
        return layer

    def _network(self):
        net = Network(self.n_in, dtype=self.dtype)
        for number, group in enumerate(self.groups):
            constants = {"tau_mem": tensor(group.tau_mem), "t_ref": tensor(group.t_ref)}
            net.add(str(number), group.size, v_threshold=nn.Parameter(tensor(group.v_threshold)), **constants)
        for s in self.synapses:
            weight = tensor(s.weight).to(self.dtype)
            constants = {"tau_syn": tensor(s.tau_syn), "mask": tensor(s.mask), "weight": weight}
            net.connect("input" if s.pre == INPUT else str(s.pre), str(s.post), **constants)
        return net

    def inputs(self, times=None):
        times = tensor(self.times) if times is None else times
        return Spikes.from_events(times, torch.from_numpy(self.units), None, n_units=self.n_in)

    def run(self, as_network=None, **options):
        """Spikes of all groups, and the gradient of a loss that weighs every one of them."""
        module, leaf = self.module(as_network), tensor(self.times).requires_grad_()
        record = module.record(self.inputs(leaf), t_end=self.t_end, max_spikes=MAX_SPIKES, **options)
        loss_of(record).backward()
        grads = [p.grad for p in (*parameters_of(module), leaf)]
        return Outcome(
            [s.times.detach().numpy() for s in record],
            [s.units.numpy() for s in record],
            [slopes.numpy() for slopes in record.slopes],
            [grad.numpy() for grad in grads],
        )

    @cached_property
    def system(self):
        return explicit_system(self.module(), self.inputs(), t_end=self.t_end, form="restarted")

    @cached_property
    def _inverse(self):
        firing = self.system.dG_dF.to_dense().numpy()
        # A graze, slope 0 or less, is as sensitive as can be.
        return np.abs(np.linalg.inv(firing)) if self.system.solvable else np.full(firing.shape, np.inf)

    @cached_property
    def sensitivities(self):
        """By how much each spike moves at most, in order of time, if each event before it moves by up to 1."""
        causes = [np.abs(part.to_dense().numpy()).sum(1) for part in (self.system.dG_dF, self.system.dG_dinputs)]
        return self._inverse @ sum(causes)

    def rounding(self, ulp=EPS * T_END):
        """By how much rounding may move the spikes of each group, if times round to `ulp`."""
        n_events = len(self.system) + self.times.size
        potential = np.concatenate([g.v_threshold for g in self.groups])[self._global_units()]
        for s, entries in zip(self.synapses, self.system.dG_dW.values(), strict=True):
            potential = potential + np.abs(entries.to_dense().numpy() * s.weight).sum((1, 2))
        # A potential is reached in as many steps as there are events, and each rounds to a few ulp.
        bound = self.sensitivities * ulp + self._inverse @ potential * (4 * n_events * EPS)
        return [bound[self.system.layers.numpy() == number] for number in range(len(self.groups))]

    def gradient_rounding(self):
        """By what part of its largest component rounding may move a gradient: it moves with the spikes, once more in
        proportion to the sensitivities of those, for every event."""
        return EPS * T_END * (len(self.system) + self.times.size) * self.sensitivities.max() ** 2

    def derivative_rounding(self):
        """By how much rounding may move the derivative of each spike, by group, along a shift of all events by 1."""
        bound = 8 * (len(self.system) + self.times.size) * EPS * self.sensitivities
        return [bound[self.system.layers.numpy() == number] for number in range(len(self.groups))]

    def _global_units(self):
        starts = np.cumsum([0, *(group.size for group in self.groups)])
        return starts[self.system.layers.numpy()] + self.system.units.numpy()

    def is_clear(self):
        """Whether nothing degenerate is near: no graze, no change of order, no spike that comes, goes or runs away."""
        if not fires(self) or self._closest() < MIN_GAP or self.sensitivities.max() > MAX_SENSITIVITY:
            return False
        found, *moved = [self._with_thresholds(f).units_fired() for f in (1.0, 1 - MIN_CLEARANCE, 1 + MIN_CLEARANCE)]
        return all(np.array_equal(a, b) for other in moved for a, b in zip(found, other, strict=True))

    def units_fired(self):
        """Which units fire, by group, in order of time."""
        with torch.no_grad():
            record = self.module().record(self.inputs(), t_end=self.t_end, max_spikes=MAX_SPIKES)
        return [spikes.units.numpy() for spikes in record]

    def _with_thresholds(self, factor):
        return replace(self, groups=tuple(g._replace(v_threshold=g.v_threshold * factor) for g in self.groups))

    def _closest(self):
        """The smallest gap between moments at which something happens.

        At one instant, to the bit, only units fire that are the same so far, and so they do under any rounding.
        """
        spikes = self.system.times.numpy()
        holds = np.concatenate([g.t_ref for g in self.groups])[self._global_units()]
        ends = (spikes + holds)[holds > 0.0]
        return np.diff(np.unique(np.concatenate([self.times, spikes, ends, [self.t_end]]))).min()


def tensor(values):
    return torch.from_numpy(np.array(values))


def number_or_tensor(values):
    """One number if they are all the same: only such a layer runs as part of a chain."""
    return float(values.flat[0]) if np.all(values == values.flat[0]) else tensor(values)


def parameters_of(module):
    """Weights of all connections, then thresholds of all groups, in the order of `Case`."""
    if isinstance(module, Network):
        return [*(c.weight for c in module.connections.values()), *(p.v_threshold for p in module.populations.values())]
    layers = [module] if isinstance(module, LIF) else list(module)
    weights = [w for layer in layers for w in (layer.weight, layer.recurrent_weight) if w is not None]
    return [*weights, *(layer.v_threshold for layer in layers)]


def loss_of(record):
    """Every spike of every group, weighed by its rank in time; spikes at one instant alike, whatever their order."""
    return sum(coefficients(spikes.times) @ spikes.times for spikes in record)


def coefficients(times):
    _, rank = np.unique(times.detach().numpy(), return_inverse=True)
    return torch.from_numpy(np.cos(1.0 + rank.reshape(-1)))


# ------------------------------------------------------------------------------------------------------ what is drawn


def fractions(*shape):
    """Arrays in [0, 1), of 16 bits each: one draw for all, which is much faster than one for each."""
    size = 2 * math.prod(shape)
    return st.binary(min_size=size, max_size=size).map(lambda raw: np.frombuffer(raw, "<u2").reshape(shape) / 2**16)


def uniform(low, high, *shape):
    return fractions(*shape).map(lambda x: low + (high - low) * x)


@st.composite
def groups(draw, size, *, hold, one_tau=False):
    """Constants of a population; of one tau_mem where it is to run as part of a chain."""
    tau_mem = draw(uniform(0.7, 1.6, 1 if one_tau else size)) * np.ones(size)
    t_ref = draw(uniform(0.05, 0.3, size)) if hold else np.zeros(size)
    return Group(tau_mem, draw(uniform(0.6, 1.4, size)), t_ref)


@st.composite
def synapses(draw, pre, post, n_in, group, *, drive, inhibition, several=False, density=1.0, one_tau=False):
    """Synapses onto a group; `drive` is the largest weight. One tau_syn in a few equals the tau_mem of unit 0."""
    shape = (group.size, n_in)
    weight = draw(uniform(0.3 * drive, drive, *shape))
    if inhibition:
        weight = weight * np.where(draw(fractions(*shape)) < 0.7, 1.0, -1.0)
    if several:
        handful = np.append(draw(uniform(0.3, 1.5, 3)), group.tau_mem[0])
        tau_syn = handful[(4.0 * draw(fractions(*shape))).astype(int)]
    else:
        tau_syn = draw(uniform(0.3, 1.5, 1 if one_tau else group.size, 1)) * np.ones(shape)
        if draw(st.booleans()):
            tau_syn[: None if one_tau else 1] = group.tau_mem[0]
    mask = draw(fractions(*shape)) < density if density < 1.0 else np.ones(shape, bool)
    return Synapses(pre, post, weight, tau_syn, mask)


@st.composite
def recurrent_layers(draw, kind, n_in):
    """One population that hears itself, as `reference_graph.random_network` makes them."""
    flags = KINDS[kind]
    several, inhibition, twins = flags["several_tau_syn"], flags["inhibition"], flags.get("twins", False)
    group = draw(groups(draw(st.integers(2 + twins, 4)), hold=flags["t_ref"]))
    options = {"several": several, "inhibition": inhibition}
    feed = draw(synapses(INPUT, 0, n_in, group, drive=2.6, **options))
    drive = 0.6 if inhibition else 0.2
    loop = draw(synapses(0, 0, group.size, group, drive=drive, density=0.6, **options))
    if not flags["self_loops"]:
        np.fill_diagonal(loop.mask, False)
    if not several:
        loop = loop._replace(tau_syn=np.repeat(feed.tau_syn[:, :1], group.size, axis=1))
    if twins:
        copy_unit(group, feed, loop)
    return (group,), (feed, loop)


def copy_unit(group, feed, loop):
    """Unit 1 becomes a copy of unit 0, and nobody hears a difference between them."""
    for values in loop[2:]:
        values[:, 1] = values[:, 0]
    for values in (*group, *feed[2:], *loop[2:]):
        values[1] = values[0]


@st.composite
def chains(draw, n_in, *, loops):
    """Two or three layers of one tau_mem and one tau_syn each; with `loops`, the second of three hears itself."""
    parts, all_synapses, n_before = [], [], n_in
    for number in range(3 if loops else draw(st.integers(2, 3))):
        group = draw(groups(draw(st.integers(2, 4)), hold=draw(st.booleans()), one_tau=True))
        options = {"inhibition": draw(st.booleans()), "one_tau": True}
        all_synapses.append(
            draw(
                synapses(number - 1, number, n_before, group, drive=(6.0 if number == 0 else 3.5) / n_before, **options)
            )
        )
        if loops and number == 1:
            all_synapses.append(draw(synapses(1, 1, group.size, group, drive=0.5, inhibition=True, density=0.6)))
        parts.append(group)
        n_before = group.size
    return tuple(parts), tuple(all_synapses)


@st.composite
def networks(draw, n_in):
    """Two populations that hear each other, the first also itself, and an output that hears both."""
    sizes = [draw(st.integers(2, 3)) for _ in range(3)]
    parts = [draw(groups(size, hold=draw(st.booleans()))) for size in sizes]
    wires = [(INPUT, 0, 2.6), (INPUT, 1, 2.4), (0, 0, 0.2), (0, 1, 0.3), (1, 0, 0.2), (0, 2, 2.5), (1, 2, 1.5)]
    widths = [*sizes, n_in]
    options = {"several": draw(st.booleans()), "inhibition": draw(st.booleans()), "density": 0.75}
    all_synapses = [
        draw(synapses(pre, post, widths[pre], parts[post], drive=drive, **options)) for pre, post, drive in wires
    ]
    return tuple(parts), tuple(all_synapses)


@st.composite
def trains(draw, n_in, distinct=False):
    """Input spikes of one sample in order of (time, unit), on the grid."""
    moments = st.integers(0, round(2.0 / GRID)).map(lambda k: k * GRID)
    times = draw(st.lists(moments, min_size=2 * n_in, max_size=4 * n_in, unique=distinct))
    units = np.floor(n_in * draw(fractions(len(times)))).astype(int)
    order = np.lexsort((units, times))
    return np.array(times)[order], units[order]


@st.composite
def any_cases(draw, kind, distinct=False):
    """A case of a kind; `distinct`: no two inputs at one instant."""
    n_in = draw(st.integers(2, 3))
    if kind in KINDS:
        parts = draw(recurrent_layers(kind, n_in))
    elif kind == "network":
        parts = draw(networks(n_in))
    else:
        parts = draw(chains(n_in, loops=kind == "chain with loops"))
    return Case(kind, n_in, *parts, *draw(trains(n_in, distinct)))


@st.composite
def extreme_cases(draw, kind):
    """A case of a kind, every number of which may be replaced by an extreme one that is allowed."""
    case = draw(any_cases(kind))

    def some(values, extremes, share):
        """`values`, some of them replaced."""
        chosen = draw(fractions(*values.shape)) < share
        drawn = np.array(extremes)[(len(extremes) * draw(fractions(*values.shape))).astype(int)]
        return np.where(chosen, drawn, values)

    share = draw(st.sampled_from([0.1, 0.3, 1.0]))
    signs = [1.0, -1.0]
    weights = [0.0, *(sign * size for sign in signs for size in (TINY, 1e-310, 1e-20, 1e4, 1e8, *draw(HUGE_WEIGHTS)))]
    taus = [1e-3, 1e-2, 1e2, 1e3, *draw(HUGE_TAUS)]
    moments = [sign * size for sign in signs for size in (0.0, TINY, 1e-300, 1e-9, *draw(HUGE_TIMES))]
    groups = []
    for group in case.groups:
        tau_mem = some(group.tau_mem, taus, share)
        if kind.startswith("chain"):
            tau_mem[:] = tau_mem[0]
        theta, t_ref = some(group.v_threshold, THRESHOLDS, share), some(group.t_ref, HOLDS, share)
        groups.append(Group(tau_mem, theta, t_ref))
    synapses = []
    for s in case.synapses:
        tau_syn = some(s.tau_syn, taus, share)
        if kind.startswith("chain"):
            tau_syn[:] = tau_syn[0, 0]
        synapses.append(s._replace(weight=some(s.weight, weights, share), tau_syn=tau_syn))
    times = some(case.times, moments, share)
    order = np.lexsort((case.units, times))
    t_end = draw(st.sampled_from([T_END, -1.0, 0.0, TINY, 1e3, 1e9, 1e200, 1e300]))
    return replace(
        case, groups=tuple(groups), synapses=tuple(synapses), times=times[order], units=case.units[order], t_end=t_end
    )


def fires(case):
    """Whether a case has a few spikes, and an end."""
    try:
        return sum(units.size for units in case.units_fired()) >= 3
    except SpikeLimitError:
        return False


def cases(kind, *, clear=False, distinct=False):
    """Cases of a kind that fire, for what holds to the bit; with `clear`, those where nothing degenerate is near, for
    what holds to rounding."""
    return any_cases(kind, distinct).filter(Case.is_clear if clear else fires)
