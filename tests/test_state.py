"""A run that is cut anywhere has the bits of the whole.

The oracle is the run without a cut. Networks are those of `frozen_networks.py`, as the engine gets them, and more of
each kind that a cut may spoil; each sample of a batch is cut at times of its own.
"""

import itertools
import re

import numpy as np
import pytest

import frozen_networks
from fireprop import Spikes, TimeResolutionError
from fireprop.engine import Stop, chain, graph
from fireprop.engine.graph import forward

pytestmark = pytest.mark.white_box

N_CUTS = 12  # of a batch; 50 or more for each kind
NETWORKS_EACH = 5


class Case:
    """A simulation, and the same one in parts.

    simulate, network  of an engine, and what it takes before the inputs
    starts             (batch,) t_start, or None
    """

    def __init__(self, simulate, network, times, units, offsets, t_end, t_start=None):
        self.simulate, self.network, self.t_end, self.t_start = simulate, network, t_end, t_start
        self.times, self.units, self.samples = times, units, np.repeat(np.arange(t_end.size), np.diff(offsets))
        self.begins = np.full(t_end.size, -np.inf) if t_start is None else t_start

    @property
    def is_graph(self):
        return len(self.network) == 3

    def run(self, begin, end, **options):
        """The inputs from `begin` on, up to `end`; both (batch,)."""
        kept = (self.times >= begin[self.samples]) & (self.times < end[self.samples])
        offsets = np.searchsorted(self.samples[kept], np.arange(end.size + 1))
        inputs = self.times[kept], self.units[kept], offsets
        return self.simulate(*self.network, *inputs, end, max_spikes=10_000, **options)

    @property
    def horizon(self):
        """The option by which a part seeks crossings as far as the whole does."""
        return {"horizon": self.t_end} if self.is_graph else {}

    def whole(self, **options):
        if self.t_start is not None:
            options["t_start"] = self.t_start
        return self.run(self.begins, self.t_end, **options)

    def parts(self, cuts, **options):
        """Runs up to each of the cuts, (n_cuts, batch), and to the end; options of the first."""
        if self.t_start is not None:
            options["t_start"] = self.t_start
        begin, runs = self.begins, []
        for end in [*cuts, self.t_end]:
            runs.append(self.run(begin, end, want_state=True, **options))
            begin, options = end, {"initial": runs[-1].state}
        return runs


def caught(monkeypatch, drawn):
    """The simulations that a run of a frozen network makes."""
    cases = []
    with monkeypatch.context() as patch:
        for module in (graph, chain):
            patch.setattr(module.Engine, "simulate", recorder(cases, module))
        inputs = Spikes.from_events(drawn.times, drawn.units, drawn.samples, n_units=frozen_networks.N_IN, batch_size=2)
        drawn.net.record(inputs, **{**drawn.options, "stop": None})
    return cases


def recorder(cases, module):
    right = module.Engine.simulate

    def recorded(self, *inputs, **options):
        network = (self.layers,) if module is chain else (self.structure, self.weights, self.thresholds)
        cases.append(Case(module.simulate, network, *map(np.copy, inputs), options.get("t_start")))
        return right(self, *inputs, **options)

    return recorded


def moments(rng, run, case):
    """Times of each sample at which a cut may go wrong, as (batch, many): most are random."""
    found = []
    for sample in range(case.t_end.size):
        own = case.times[case.samples == sample]
        first = max(case.begins[sample], -0.2)
        spikes = [own]
        for level in range(1, run.n_layers + 1):
            times, _, offsets = run.spikes(level)
            spikes.append(times[offsets[sample] : offsets[sample + 1]])
        fired = np.concatenate(spikes[1:])
        held = np.concatenate([fired + t_ref for t_ref in rng.choice(t_refs(run), 2)])
        near = np.concatenate([fired, np.nextafter(fired, np.inf), np.nextafter(fired, -np.inf), held, own])
        near = near[(near > first) & (near < case.t_end[sample])]
        near = rng.choice(near, N_CUTS // 2) if near.size else np.empty(0)
        random = rng.uniform(first, case.t_end[sample], N_CUTS - near.size)
        found.append(np.sort(np.concatenate([near, random])))
    return np.array(found).T


def t_refs(run):
    return run.graph.nodes["t_ref"] if hasattr(run, "graph") else run.chain.units["t_ref"]


def samples_of(run, level, sample):
    """Times, units, slopes and slopes after the refractory period of a level in a sample."""
    if hasattr(run, "graph"):
        events = run.log.events[run.members(level)]
        _, _, offsets = run.spikes(level)
    else:
        events, offsets = run.log.events[run.members(level)], run.spikes(level)[2]
    own = events[offsets[sample] : offsets[sample + 1]]
    return own["time"], own["unit"], own["slope"], own["restart_slope"]


def assert_same_bits(case, whole, parts, cuts):
    """Parts have the spikes of the whole, each its own, and slopes except those that a cut leaves open."""
    edges = [case.begins, *cuts, case.t_end]
    for sample in range(case.t_end.size):
        for level in range(1, whole.n_layers + 1):
            wanted = samples_of(whole, level, sample)
            found = [samples_of(part, level, sample) for part in parts]
            for k, (times, *_) in enumerate(found):
                assert ((times >= edges[k][sample]) & (times < edges[k + 1][sample])).all()
            found = [np.concatenate(columns) for columns in zip(*found, strict=True)]
            for one, other in zip(found[:3], wanted[:3], strict=True):
                assert one.tobytes() == other.tobytes()
            # A graph that keeps no state does not log the slope after a refractory period that nothing follows.
            open_ = (found[3] == 0.0) | (case.is_graph & (wanted[3] == 0.0))
            assert ((found[3] == wanted[3]) | open_).all()
            if not case.is_graph:
                assert_restarts_are_kept(whole, level, found, wanted, [edge[sample] for edge in edges[1:]])
        if case.is_graph:
            assert arrivals(parts, sample) == arrivals([whole], sample)


def assert_restarts_are_kept(whole, level, found, wanted, ends):
    """Slopes after a refractory period are those of the whole where it ends before the next cut."""
    times, units = wanted[:2]
    layer = whole.chain.layers[level - 1]
    held = times + whole.chain.units["t_ref"][layer["start"] + units]
    kept = held < np.array(ends)[np.searchsorted(ends, times, side="right")]
    assert (found[3] == wanted[3])[kept].all()


def arrivals(runs, sample):
    """All that comes from outside and along lines: times and sources."""
    parts = [run.log.events[slice(*run.log.offsets[0, sample : sample + 2])] for run in runs]
    return [(event["time"].item(), int(event["unit"])) for part in parts for event in part]


def assert_same_state(one, other):
    """All arrays are equal; a state is made of them, of tuples of them, and of constants."""
    for name, value in vars(one).items():
        values = value if isinstance(value, tuple) else [value]
        others = getattr(other, name) if isinstance(value, tuple) else [getattr(other, name)]
        for a, b in zip(values, others, strict=True):
            assert np.array_equal(a, b), name


def assert_cuts_change_nothing(rng, case):
    """A cut run has the bits of the whole, and its final state. Returns the number of spikes."""
    whole = case.whole()
    cuts = moments(rng, whole, case)
    parts = case.parts(cuts, **case.horizon)
    assert_same_bits(case, whole, parts, cuts)
    assert_same_state(parts[-1].state, case.whole(want_state=True, **case.horizon).state)
    return sum(whole.times(level).size for level in range(1, whole.n_layers + 1))


@pytest.fixture(scope="module")
def frozen():
    return frozen_networks.frozen()


@pytest.mark.parametrize("kind", frozen_networks.KINDS)
def test_a_run_that_is_cut_has_the_bits_of_the_whole(rng, monkeypatch, frozen, kind):
    n_spikes = 0
    for seed, *_ in frozen[kind][:NETWORKS_EACH]:
        for case in caught(monkeypatch, frozen_networks.draw(kind, seed)):
            n_spikes += assert_cuts_change_nothing(rng, case)
    assert n_spikes > 20 * NETWORKS_EACH


def random_chain(rng, dtype, t_ref, *, recurrent, grid=0.0, n_taus=1):
    """Three layers, the first of several blocks of SIMD lanes, and a batch of three.

    grid  all times are on it; n_taus  distinct time constants of each kind in a layer
    """
    layers, widths = [], [6, 90, 70, 3]
    for n_in, n_out in itertools.pairwise(widths):
        drive = 6.0 if n_in == 6 else 0.5
        weight = rng.normal(drive / n_in, 6.0 / n_in, (n_out, n_in)).astype(dtype)
        own = rng.normal(-1.0 / n_out, 2.0 / n_out, (n_out, n_out)).astype(dtype)
        constants = rng.uniform(0.8, 1.2, n_out), np.full(n_out, t_ref)
        taus = rng.uniform(0.5, 2.0, n_taus), rng.uniform(0.2, 1.0, n_taus)
        taus = [float(tau[0]) if n_taus == 1 else rng.choice(tau, n_out) for tau in taus]
        layers.append(chain.Layer(weight, *taus, *constants, own if recurrent and n_out > 3 else None))
    t_end = np.array([2.0, 1.5, 2.5])
    times = np.sort(rng.uniform(0.0, 2.0, (3, 40)), axis=1)
    times = np.round(times / grid) * grid if grid else times
    return Case(chain.simulate, (layers,), times.ravel(), rng.integers(6, size=120), np.arange(4) * 40, t_end)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("t_ref", [0.0, 0.7], ids=["no t_ref", "t_ref longer than parts"])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("grid", [0.0, 0.125], ids=["apart", "ties"])
@pytest.mark.parametrize("n_taus", [1, 2, 50], ids=["uniform", "few taus", "many taus"])
def test_a_wide_chain_that_is_cut_has_the_bits_of_the_whole(rng, dtype, t_ref, recurrent, grid, n_taus):
    case = random_chain(rng, dtype, t_ref, recurrent=recurrent, grid=grid, n_taus=n_taus)
    assert assert_cuts_change_nothing(rng, case) > 400


@pytest.mark.parametrize("kind", ["recurrent chain", "network with delays"])
def test_a_log_that_is_too_small_changes_no_bit_of_a_cut_run(rng, monkeypatch, frozen, kind):
    monkeypatch.setattr(chain.forward, "FIRST_CAPACITY", 1)
    monkeypatch.setattr(chain.forward, "FIRST_ROOM", 0)
    monkeypatch.setattr(forward, "FIRST_CAPACITY", 1)
    for seed, *_ in frozen[kind][:NETWORKS_EACH]:
        (case,) = caught(monkeypatch, frozen_networks.draw(kind, seed))
        assert assert_cuts_change_nothing(rng, case)


@pytest.mark.parametrize("kind", ["several tau_syn", "several tau_syn with ties", "network", "network with delays"])
def test_without_a_horizon_parts_have_the_bits_of_a_whole_that_returns_its_state(rng, monkeypatch, frozen, kind):
    for seed, *_ in frozen[kind][:NETWORKS_EACH]:
        (case,) = caught(monkeypatch, frozen_networks.draw(kind, seed))
        whole = case.whole(want_state=True)
        cuts = moments(rng, whole, case)
        assert_same_bits(case, whole, case.parts(cuts), cuts)
        for level in range(1, whole.n_layers + 1):  # and the spikes of a run without a state, but for roundings
            np.testing.assert_allclose(whole.times(level), case.whole().times(level), rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.fixture
def cases(rng, monkeypatch, frozen):
    """A chain and a network with delays, and the state of each at t = 0.5."""
    (network,) = caught(monkeypatch, frozen_networks.draw("network with delays", frozen["network with delays"][0][0]))
    found = {"chain": random_chain(rng, np.float64, 0.0, recurrent=True), "network": network}
    begun = {
        name: case.run(case.begins, np.full(case.t_end.size, 0.5), want_state=True) for name, case in found.items()
    }
    return found, {name: run.state for name, run in begun.items()}


@pytest.mark.parametrize("kind", ["chain", "network"])
def test_a_run_that_does_not_continue_its_state_is_refused(cases, kind):
    case, state = cases[0][kind], cases[1][kind]
    late, inputs = np.full(case.t_end.size, 0.5), (np.array([0.1]), np.array([0]))
    offsets = np.minimum(np.arange(case.t_end.size + 1), 1)
    with pytest.raises(
        ValueError, match=re.escape("times[0] = 0.1 comes before the initial state of sample 0, at 0.5")
    ):
        case.simulate(*case.network, *inputs, offsets, case.t_end, max_spikes=9, initial=state)
    with pytest.raises(ValueError, match=re.escape("t_end[0] = 0.25 comes before the initial state, at 0.5")):
        case.run(late, late / 2, initial=state)
    one = np.zeros(0), np.zeros(0, int), np.zeros(2, int), np.ones(1)
    with pytest.raises(ValueError, match=f"the state has {case.t_end.size} samples, the inputs 1: give as many"):
        case.simulate(*case.network, *one, max_spikes=9, initial=state)


@pytest.mark.parametrize("kind", ["chain", "network"])
def test_an_early_stop_is_refused_where_a_run_has_a_state(cases, kind):
    case, state = cases[0][kind], cases[1][kind]
    stop = {"stop": Stop(0)}
    for options in ({"want_state": True}, {"initial": state}):
        with pytest.raises(ValueError, match="an early stop needs a run from rest that returns no state"):
            case.run(case.begins, case.t_end, **stop, **options)


def test_a_state_of_another_network_is_refused(cases, monkeypatch, frozen, rng):
    (found, states), nothing = cases, np.full(3, 1.0)
    float32 = random_chain(rng, np.float32, 0.0, recurrent=True)
    with pytest.raises(ValueError, match=r"layers of 90, 70, 3 units in float64, these are layers of .* in float32"):
        float32.run(nothing, nothing, initial=states["chain"])
    smaller = Case(chain.simulate, (float32.network[0][:2],), np.zeros(0), np.zeros(0, int), np.zeros(4, int), nothing)
    with pytest.raises(ValueError, match="these are layers of 90, 70 units in float32"):
        smaller.run(nothing, nothing, initial=states["chain"])
    (other,) = caught(monkeypatch, frozen_networks.draw("network", frozen["network"][0][0]))
    with pytest.raises(ValueError, match=r"is of a network with \d+ units, \d+ synaptic currents and float64 weights"):
        other.run(nothing[:2], nothing[:2], initial=states["network"])
    for kind, state in (("chain", states["network"]), ("network", states["chain"])):
        with pytest.raises(TypeError, match=r"state is a fireprop\.engine\..*State: give the state of a run"):
            found[kind].run(nothing, nothing, initial=state)


def test_a_horizon_that_comes_too_early_or_twice_is_refused(cases):
    case, state = cases[0]["network"], cases[1]["network"]
    with pytest.raises(ValueError, match=r"horizon = .*: give .batch,. times, none before its t_end"):
        case.run(case.begins, case.t_end, horizon=case.t_end - 1.0)
    with pytest.raises(ValueError, match="leave horizon out: the initial state has one"):
        case.run(np.full(2, 0.5), case.t_end, initial=state, horizon=case.t_end)
    begun = case.run(case.begins, np.full(2, 0.5), horizon=np.full(2, 0.75), want_state=True)
    with pytest.raises(
        ValueError, match=re.escape("t_end[0] = 1.0 comes after the horizon of the initial state, 0.75")
    ):
        case.run(np.full(2, 0.5), np.ones(2), initial=begun.state)


def test_a_graph_with_a_bias_has_the_bits_of_the_whole_without_a_horizon(rng, monkeypatch, frozen):
    kind = "network with a bias and an initial state"
    for seed, *_ in frozen[kind][:NETWORKS_EACH]:
        (case,) = caught(monkeypatch, frozen_networks.draw(kind, seed))
        whole = case.whole(want_state=True)
        cuts = moments(rng, whole, case)
        assert_same_bits(case, whole, case.parts(cuts), cuts)
        for level in range(1, whole.n_layers + 1):
            np.testing.assert_allclose(whole.times(level), case.whole().times(level), rtol=0, atol=1e-12)


def test_a_start_is_refused_where_the_state_is_past_it(monkeypatch, frozen):
    kind = "bias and initial state"
    (case,) = caught(monkeypatch, frozen_networks.draw(kind, frozen[kind][0][0]))
    begun = case.run(case.begins, np.full(2, 0.5), t_start=case.t_start, want_state=True, **case.horizon)
    with pytest.raises(ValueError, match="leave t_start out: the initial state is past the start"):
        case.run(np.full(2, 0.5), case.t_end, t_start=case.t_start, initial=begun.state)


@pytest.mark.parametrize("kind", ["chain", "network"])
def test_a_run_that_continues_another_has_no_tangents_and_no_potentials(cases, kind):
    case, state = cases[0][kind], cases[1][kind]
    run = case.run(np.full(case.t_end.size, 0.5), case.t_end, initial=state)
    nothing = [None] * run.n_layers
    weights = [None] * (len(case.network[1]) if case.is_graph else 5)
    asked = [
        lambda: run.tangent(weights, nothing, None),
        lambda: run.trace(0, 0, 0, np.ones(1)),
    ]
    if case.is_graph:
        columns = graph.columns(run, times=True, weights=[False] * len(weights), thresholds=[False] * run.n_layers)
        asked.append(lambda: graph.margins(run, case.t_end, weights, nothing))
        asked.append(lambda: graph.forward_propagation(run, columns))
    for ask in asked:
        with pytest.raises(ValueError, match="continues an earlier one, whose spikes its log does not have"):
            ask()


# -------------------------------------------------------------------------------------------- what a cut must not hide


def one_unit(*, as_graph, weight):
    """A unit without a refractory period, and an input at t = 1."""
    inputs, ones = (np.ones(1), np.zeros(1, int), np.array([0, 1]), np.full(1, 2.0)), np.ones(1)
    if not as_graph:
        return Case(chain.simulate, ([chain.Layer(np.full((1, 1), weight), 1.0, 0.5, ones, np.zeros(1))],), *inputs)
    feed = graph.Connection("units: weight", graph.INPUT, 0, np.full((1, 1), 0.5), np.ones((1, 1), bool))
    structure = graph.lay_out(1, [graph.Population("units", ones, np.zeros(1))], [feed])
    return Case(graph.simulate, (structure, [np.full((1, 1), weight)], [ones]), *inputs)


@pytest.mark.parametrize("as_graph", [False, True])
def test_spikes_that_float64_does_not_resolve_are_found_across_a_cut(as_graph):
    case = one_unit(as_graph=as_graph, weight=1e14)
    with pytest.raises(TimeResolutionError, match="is closer to this one than float64 resolves"):
        case.whole()
    cut = np.full(1, np.nextafter(1.0 + 1e-14, 2.0))
    begun = case.run(case.begins, cut, want_state=True)
    assert begun.times(1).size == 1
    with pytest.raises(TimeResolutionError, match="is closer to this one than float64 resolves"):
        case.run(cut, case.t_end, initial=begun.state)


@pytest.mark.parametrize("as_graph", [False, True])
def test_the_limit_of_spikes_counts_those_of_a_part_alone(as_graph):
    case = one_unit(as_graph=as_graph, weight=20.0)
    whole = case.whole()
    n, cut = whole.times(1).size, np.array([whole.times(1)[-1]])
    begun = case.run(case.begins, cut, want_state=True)
    assert begun.times(1).size == n - 1 > 2
    inputs = np.zeros(0), np.zeros(0, int), np.zeros(2, int), case.t_end
    rest = case.simulate(*case.network, *inputs, max_spikes=1, initial=begun.state)
    assert rest.times(1).tolist() == cut.tolist()
