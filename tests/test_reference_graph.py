"""The oracle for arbitrary networks against polynomials, integration, the oracle for chains, and differences."""

from itertools import pairwise

import numpy as np
import pytest

import reference
import reference_graph as graph

EPS = np.finfo(float).eps
KINDS = {
    "plain": {"several_tau_syn": False, "t_ref": False, "self_loops": False},
    "holds": {"several_tau_syn": False, "t_ref": True, "self_loops": True},
    "several-tau": {"several_tau_syn": True, "t_ref": False, "self_loops": True},
    "all": {"several_tau_syn": True, "t_ref": True, "self_loops": True},
    "excitation": {"several_tau_syn": True, "t_ref": True, "self_loops": True, "inhibition": False},
    "twins": {"several_tau_syn": True, "t_ref": True, "self_loops": False, "twins": True},
    "twins-that-hear-one-another": {"several_tau_syn": True, "t_ref": False, "self_loops": True, "twins": True},
}
of_every_kind = pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in KINDS.items()])


def small_network(weight, recurrent_weight, **constants):
    """A network with all synapses, and constants 1 (t_ref 0) where none are given."""
    weight, recurrent_weight = np.array(weight, dtype=float), np.array(recurrent_weight, dtype=float)
    n = len(weight)
    return {
        "weight": weight,
        "recurrent_weight": recurrent_weight,
        "mask": np.ones(weight.shape, dtype=bool),
        "recurrent_mask": np.ones((n, n), dtype=bool),
        "tau_mem": np.ones(n),
        "tau_syn": np.ones(weight.shape),
        "tau_syn_rec": np.ones((n, n)),
        "v_threshold": np.ones(n),
        "t_ref": np.zeros(n),
        **{name: np.array(value) for name, value in constants.items()},
    }


def random_currents(rng, n):
    return dict(zip(1 / rng.uniform(0.2, 3.0, size=n), rng.normal(0.0, 3.0, size=n), strict=True))


def random_direction(rng, network, times, exact):
    """A direction with a part of length one by every kind of parameter, along existing synapses."""
    direction = {name: rng.normal(size=np.shape(values)) for name, values in exact.items()}
    direction["weight"] *= network["mask"]
    direction["recurrent_weight"] *= network["recurrent_mask"]
    if not network["t_ref"].any():
        del direction["t_ref"]  # a hold cannot be shorter than none
    return {name: values / np.linalg.norm(values) for name, values in direction.items() if values.any()}


# --- certified crossings ---


@pytest.mark.parametrize(
    "roots", [[0.7], [0.5, 0.9], [0.3, 0.31, 0.8], [0.2, 0.4, 0.6, 0.95], [0.3, 0.5, 0.501]], ids=str
)
def test_zeros_of_exponentials_are_the_roots_of_their_polynomial(roots):
    # with integer rates, a sum of exponentials is a polynomial in exp(-t)
    heights = dict(enumerate(np.polynomial.polynomial.polyfromroots(roots).tolist()))
    found = graph.zeros_of_exponentials(heights, 2.0, 2.0 - np.log(0.1))
    # coefficients near 1 round by eps; the flattest root has a slope of some 1e-3 there
    np.testing.assert_allclose(found, 2.0 - np.log(roots)[::-1], rtol=0, atol=1e-11)


def test_zeros_of_exponentials_lie_in_the_stretch_that_is_asked_for():
    heights = dict(enumerate(np.polynomial.polynomial.polyfromroots([0.2, 0.5, 0.8]).tolist()))
    assert len(graph.zeros_of_exponentials(heights, 0.0, -np.log(0.4))) == 2
    assert graph.zeros_of_exponentials({1.0: 2.0, 3.0: 4.0}, 0.0, 1.0) == []
    assert graph.zeros_of_exponentials({}, 0.0, 1.0) == []


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_no_turn_of_the_potential_is_missed(rng, n):
    for _ in range(40):
        v, beta, currents = rng.normal(), 1 / rng.uniform(0.3, 2.0), random_currents(rng, n)
        turns = graph.turning_points(v, currents, beta, 0.0, 12.0)
        assert len(turns) <= n
        membrane = graph.Membrane([(0.0, i, alpha) for alpha, i in currents.items()], [(0.0, v)], beta)
        t = np.linspace(0.0, 12.0, 400)
        rises = np.array([membrane.slope(moment) > 0 for moment in t])
        crude = t[1:][rises[1:] != rises[:-1]]
        assert len(turns) >= len(crude)
        for moment in crude:
            assert min(abs(moment - turn) for turn in turns) <= t[1] - t[0]


@pytest.mark.parametrize("alpha", [1.0, 1.0 + 1e-12, 0.5])
def test_a_far_horizon_hides_no_turn(alpha):
    # I = -exp(-alpha t) + 3 exp(-5 t): V rises, falls and returns to 0 from below; exp(-1e5) is 0
    near = graph.turning_points(0.0, {alpha: -1.0, 5.0: 3.0}, 1.0, 0.0, 30.0)
    assert len(near) == 2
    assert graph.turning_points(0.0, {alpha: -1.0, 5.0: 3.0}, 1.0, 0.0, 1e5) == pytest.approx(near, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_crossing_is_found_if_there_is_one(rng, n):
    n_found = 0
    for _ in range(150):
        v, beta, currents = -abs(rng.normal()), 1 / rng.uniform(0.3, 2.0), random_currents(rng, n)
        membrane = graph.Membrane([(0.0, i, alpha) for alpha, i in currents.items()], [(0.0, v)], beta)
        theta = rng.uniform(0.05, 0.5)
        found = graph.first_crossing(membrane, 0.0, 8.0, theta)
        above = [t for t in np.linspace(0.0, 8.0, 200) if membrane.potential(t) >= theta]
        assert found is not None or not above
        if found is not None:
            n_found += 1
            assert membrane.potential(np.nextafter(found, -1)) < theta <= membrane.potential(found)
            assert not above or found <= above[0]
    assert n_found > 15


def test_a_crossing_after_the_nearest_one_may_be_left_out_but_none_before_it():
    membrane = graph.Membrane([(0.0, 4.0, 1.0)], [], 1.0)
    f = graph.first_crossing(membrane, 0.0, 8.0, 1.0)
    assert graph.first_crossing(membrane, 0.0, 8.0, 1.0, nearest=f) == f
    assert graph.first_crossing(membrane, 0.0, 8.0, 1.0, nearest=f / 2) is None


# --- the potential ---


def integrate(network, t_end, times, units, spike_times, spike_units, n_steps=200):
    """V and I of all units at t_end by Runge-Kutta 4 between events, as design 3 words them; one current a synapse."""
    ends = spike_times + network["t_ref"][spike_units]
    n_in = len(network["mask"][0])
    tau = np.hstack([network["tau_syn"], network["tau_syn_rec"]])
    weight = np.hstack([network["weight"], network["recurrent_weight"]])
    sources = [*zip(times, units, strict=True), *zip(spike_times, n_in + spike_units, strict=True)]
    edges = sorted({t_end, *(t for t in (*times, *spike_times, *ends) if t < t_end)})
    v, i, held = np.zeros(len(tau)), np.zeros(tau.shape), np.zeros(len(tau), dtype=bool)
    for left, right in pairwise(edges):
        held = np.array(
            [np.any((spike_units == unit) & (spike_times <= left) & (left < ends)) for unit in range(len(v))]
        )
        v[spike_units[spike_times == left]] = 0.0
        for source in [source for t, source in sources if t == left]:
            i[:, source] += weight[:, source]

        def rate(v, i, held=held):
            return np.where(held, 0.0, i.sum(axis=1) - v / network["tau_mem"]), -i / tau

        step = (right - left) / n_steps
        for _ in range(n_steps):
            v1, i1 = rate(v, i)
            v2, i2 = rate(v + step / 2 * v1, i + step / 2 * i1)
            v3, i3 = rate(v + step / 2 * v2, i + step / 2 * i2)
            v4, i4 = rate(v + step * v3, i + step * i3)
            v, i = v + step / 6 * (v1 + 2 * v2 + 2 * v3 + v4), i + step / 6 * (i1 + 2 * i2 + 2 * i3 + i4)
    return v, i.sum(axis=1)


@of_every_kind
def test_potential_and_current_solve_the_differential_equations(rng, kind):
    network, times, units, t_end = graph.random_network(rng, **kind)
    spikes = graph.simulate(network, times, units, t_end)
    for t in rng.uniform(0.5, t_end, size=2):
        v, i = integrate(network, t, times, units, *spikes)
        for unit in range(len(v)):
            # steps of some 1/2000 to the fourth power, times weights near ten; Theorem 1 adds ulps at each own spike
            assert graph.potential(network, unit, t, times, units, *spikes) == pytest.approx(v[unit], abs=1e-10)
            assert graph.current(network, unit, t, times, units, *spikes) == pytest.approx(i[unit], abs=1e-10)


@of_every_kind
def test_slope_is_the_derivative_of_the_potential(rng, kind):
    network, times, units, t_end = graph.random_network(rng, **kind)
    spikes = graph.simulate(network, times, units, t_end)
    events = np.concatenate([times, spikes[0], spikes[0] + network["t_ref"][spikes[1]]])
    moments = [t for t in rng.uniform(0.0, t_end, size=20) if np.abs(events - t).min() > 1e-4]
    assert moments
    for t in moments:
        for unit in range(len(network["weight"])):
            difference = reference.central_difference(
                lambda x, unit=unit: graph.potential(network, unit, float(x), times, units, *spikes), t
            )
            # eps^(2/3) of truncation and of rounding, each times weights near ten
            assert graph.slope(network, unit, t, times, units, *spikes) == pytest.approx(float(difference), abs=1e-8)


def test_what_happens_at_t_does_not_act_on_the_potential_at_t():
    network = small_network([[2.0]], [[5.0]])
    alone = graph.potential(network, 0, 0.5, [0.0], [0], [], [])
    assert graph.potential(network, 0, 0.5, [0.0, 0.5], [0, 0], [0.5], [0]) == alone > 0
    assert graph.current(network, 0, 0.5, [0.0, 0.5], [0, 0], [0.5], [0]) == 2 * np.exp(-0.5)


def test_a_unit_in_its_hold_has_a_current_but_no_potential():
    network = small_network([[2.0]], [[5.0]], t_ref=[0.4])
    assert graph.potential(network, 0, 0.6, [0.0], [0], [0.3], [0]) == 0.0
    assert graph.slope(network, 0, 0.6, [0.0], [0], [0.3], [0]) == 0.0
    assert graph.current(network, 0, 0.6, [0.0], [0], [0.3], [0]) == pytest.approx(2 * np.exp(-0.6) + 5 * np.exp(-0.3))


# --- the spikes ---


@of_every_kind
def test_each_spike_is_the_first_double_at_which_the_potential_has_reached_theta(rng, kind):
    network, times, units, t_end = graph.random_network(rng, **kind)
    spikes = graph.simulate(network, times, units, t_end)
    for f, i in zip(*spikes, strict=True):
        theta = network["v_threshold"][i]
        now = graph.potential(network, i, f, times, units, *spikes)
        assert graph.potential(network, i, np.nextafter(f, -1), times, units, *spikes) < theta <= now
        rise = graph.slope(network, i, f, times, units, *spikes) * np.spacing(f)
        # one ulp of time, and the rounding of sums of some twenty terms up to ten times theta
        assert now - theta <= rise + 16 * np.spacing(10 * theta)


@of_every_kind
def test_no_crossing_lies_between_the_spikes(rng, kind):
    network, times, units, t_end = graph.random_network(rng, **kind)
    spikes = graph.simulate(network, times, units, t_end)
    for i, theta in enumerate(network["v_threshold"]):
        for t in np.linspace(0.0, t_end, 150):
            assert graph.potential(network, i, t, times, units, *spikes) < theta


def as_one_population(layers, t_end):
    """A chain as a flat network: layer by layer, each unit hears the layer before."""
    sizes = [len(layer["weight"]) for layer in layers]
    n, n_in, first = sum(sizes), layers[0]["weight"].shape[1], 0
    network = small_network(np.zeros((n, n_in)), np.zeros((n, n)))
    network["mask"][:], network["recurrent_mask"][:] = False, False
    for depth, (layer, size) in enumerate(zip(layers, sizes, strict=True)):
        rows = slice(first, first + size)
        columns = slice(first - sizes[depth - 1], first) if depth else slice(None)
        weight, mask, tau = (
            ("recurrent_weight", "recurrent_mask", "tau_syn_rec") if depth else ("weight", "mask", "tau_syn")
        )
        network[weight][rows, columns], network[mask][rows, columns] = layer["weight"], True
        network[tau][rows] = layer["tau_syn"]
        for name in ("tau_mem", "v_threshold", "t_ref"):
            network[name][rows] = layer[name]
        first += size
    return network


@pytest.mark.parametrize("t_ref", [False, True])
@pytest.mark.parametrize("equal_tau", [False, True])
def test_a_chain_is_what_the_oracle_for_chains_says(rng, t_ref, equal_tau):
    layers, times, units, t_end = reference.random_chain(rng, (3, 4, 2), t_ref=t_ref, equal_tau=equal_tau)
    network = as_one_population(layers, t_end)
    fired, who = graph.simulate(network, times, units, t_end)
    chain = reference.simulate_chain(layers, times, units, t_end)
    grad_times = rng.normal(size=len(fired))
    for (times_there, units_there), first, last in zip(chain, (0, 4), (4, 6), strict=True):
        here = (first <= who) & (who < last)
        assert (who[here] - first).tolist() == units_there.tolist()
        # both are first doubles, of sums that round by a few ulp of theta over the slope and hand it on
        np.testing.assert_allclose(fired[here], times_there, rtol=0, atol=1e-13)
    expected = reference.chain_gradient(layers, times, units, t_end, chain, [grad_times[who < 4], grad_times[who >= 4]])
    exact = graph.gradient(network, times, units, fired, who, grad_times)
    for mine, theirs in (
        (exact["weight"][:4], expected["weight"][0]),
        (exact["recurrent_weight"][4:, :4], expected["weight"][1]),
        (exact["v_threshold"], np.concatenate(expected["v_threshold"])),
        (exact["t_ref"], np.concatenate(expected["t_ref"])),
        (exact["times"], expected["times"]),
    ):
        # rounding of the spikes, amplified by the slopes and sensitivities that random_chain allows
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-11 * max(1.0, np.abs(theirs).max()))


@pytest.mark.parametrize("w", [-50.0, 0.5])
def test_all_units_that_cross_at_one_instant_fire_before_any_is_delivered(w):
    # were the first spike delivered before the second unit is asked, inhibition would lose the second
    network = small_network([[4.0], [4.0], [4.5]], np.zeros((3, 3)))
    network["recurrent_weight"][:2, :2] = w
    fired, who = graph.simulate(network, [0.0], [0], 2.0)
    alone, _ = graph.simulate(small_network([[4.0]], [[2 * w]]), [0.0], [0], 2.0)
    assert fired[who == 0].tolist() == fired[who == 1].tolist()
    # two spikes of weight w and one of weight 2 w round alike; bisection ends at the same double
    assert fired[who == 0].tolist() == alone.tolist()
    assert len(alone) == (1 if w < 0 else len(alone)) > 0


@pytest.mark.parametrize("name", ["twins", "twins-that-hear-one-another"])
def test_twins_fire_together(rng, name):
    for _ in range(5):
        network, times, units, t_end = graph.random_network(rng, **KINDS[name])
        fired, who = graph.simulate(network, times, units, t_end)
        assert fired[who == 0].tolist() == fired[who == 1].tolist()
        assert len(fired[who == 0]) >= 2


def test_what_arrives_at_the_instant_of_a_spike_comes_after_it():
    network = small_network([[4.0, -100.0]], [[0.0]])
    f = graph.simulate(network, [0.0], [0], 1.0)[0][0]
    assert graph.simulate(network, [0.0, f], [0, 1], 1.0)[0].tolist() == [f]
    assert graph.simulate(network, [0.0, np.nextafter(f, 0)], [0, 1], 1.0)[0].tolist() == []


def test_a_self_loop_without_delay_acts_after_its_own_spike():
    free, looped = (graph.simulate(small_network([[4.0]], [[w]]), [0.0], [0], 3.0)[0] for w in (0.0, 2.0))
    assert looped[0] == free[0]
    # as an input of that weight at that time would
    later = graph.simulate(small_network([[4.0, 2.0]], [[0.0]]), [0.0, free[0]], [0, 1], 3.0)[0]
    assert looped[1] == later[1] < free[1]


def test_a_synapse_that_is_masked_does_not_exist():
    network = small_network([[4.0, 9.0], [5.0, 9.0]], [[1.0, 0.0], [0.0, 9.0]])
    without = {**network, "weight": network["weight"] * [1, 0], "recurrent_weight": np.diag([1.0, 0.0])}
    masked = {**network, "mask": np.array([[True, False]] * 2), "recurrent_mask": np.diag([True, False])}
    expected = graph.simulate(without, [0.0, 0.1], [0, 1], 3.0)
    spikes = graph.simulate(masked, [0.0, 0.1], [0, 1], 3.0)
    assert spikes[0].tolist() == expected[0].tolist()
    exact = graph.gradient(masked, [0.0, 0.1], [0, 1], *spikes, np.ones(len(spikes[0])))
    assert not exact["weight"][:, 1].any()
    assert not exact["recurrent_weight"][~masked["recurrent_mask"]].any()
    assert exact["weight"][:, 0].all()
    assert exact["times"][1] == 0.0


def test_spikes_and_inputs_from_t_end_on_do_not_exist():
    network = small_network([[4.0]], [[0.0]])
    f = graph.simulate(network, [0.0], [0], 5.0)[0][0]
    assert graph.simulate(network, [0.0], [0], f)[0].size == 0
    assert graph.simulate(network, [0.0], [0], np.nextafter(f, 9))[0].tolist() == [f]
    assert graph.simulate(network, [5.0], [0], 5.0)[0].size == 0
    spikes = graph.simulate(network, [0.0, 5.0], [0, 0], 5.0)
    assert graph.gradient(network, [0.0, 5.0], [0, 0], *spikes, np.ones(len(spikes[0])))["times"][1] == 0.0


def test_without_input_nothing_happens():
    network = small_network([[4.0]], [[9.0]])
    spikes = graph.simulate(network, [], [], 1.0)
    assert [len(part) for part in spikes] == [0, 0]
    exact = graph.gradient(network, [], [], *spikes, [])
    assert exact["weight"].tolist() == [[0.0]]
    assert exact["times"].shape == (0,)


def test_the_order_of_the_inputs_does_not_matter(rng):
    network, times, units, t_end = graph.random_network(rng)
    spikes = graph.simulate(network, times, units, t_end)
    order = rng.permutation(len(times))
    mixed = graph.simulate(network, times[order], units[order], t_end)
    assert [part.tolist() for part in mixed] == [part.tolist() for part in spikes]
    grad_times = rng.normal(size=len(spikes[0]))
    np.testing.assert_allclose(
        graph.gradient(network, times[order], units[order], *mixed, grad_times)["times"],
        graph.gradient(network, times, units, *spikes, grad_times)["times"][order],
        rtol=1e-10,  # the same sums in another order
    )


def test_a_loop_that_feeds_itself_is_stopped():
    with pytest.raises(graph.TooManySpikes, match="more than 50 spikes at t = "):
        graph.simulate(small_network([[4.0]], [[4.0]]), [0.0], [0], 1e3, max_spikes=50)


@pytest.mark.parametrize("bad", [{"v_threshold": [0.0]}, {"t_ref": [-1.0]}])
def test_constants_that_the_search_cannot_serve_are_refused(bad):
    with pytest.raises(ValueError, match="want > 0, >= 0, finite"):
        graph.simulate(small_network([[1.0]], [[0.0]], **bad), [0.0], [0], 1.0)


# --- the explicit system ---


@of_every_kind
@pytest.mark.parametrize("part", range(3))
def test_the_explicit_gradient_is_the_central_difference(rng, kind, part):
    for n_units in (2, 3, 4, 4, 5):
        network, times, units, t_end = graph.random_network(rng, n_units=n_units, clear=True, **kind)
        spikes = graph.simulate(network, times, units, t_end)
        grad_times = rng.normal(size=len(spikes[0]))
        exact = graph.gradient(network, times, units, *spikes, grad_times)
        direction = random_direction(rng, network, times, exact)
        if kind.get("twins"):
            graph.copy_unit(direction)
        difference = graph.directional_difference(network, times, units, t_end, spikes, grad_times, direction)
        along = sum((exact[name] * values).sum() for name, values in direction.items())
        # Rounding is eps / STEP = 1e-11 times a sensitivity, and 280 other networks stay below 1e-8; a missing term
        # shows in percents.
        largest = max(1.0, *(np.abs(values).max() for values in exact.values()))
        assert difference == pytest.approx(along, rel=0, abs=1e-7 * largest)


@of_every_kind
def test_the_system_is_lower_triangular_with_the_slopes_on_its_diagonal(rng, kind):
    network, times, units, t_end = graph.random_network(rng, **kind)
    spikes = graph.simulate(network, times, units, t_end)
    system = graph.explicit_system(network, times, units, *spikes)
    slopes = [graph.slope(network, i, f, times, units, *spikes) for f, i in zip(*spikes, strict=True)]
    assert not np.triu(system["firing"], 1).any()
    # with t_ref = 0 the two forms of the slope differ by slope * ulp at each earlier spike
    np.testing.assert_allclose(np.diag(system["firing"]), slopes, rtol=1e-11)
    beta_theta = (network["v_threshold"] / network["tau_mem"])[spikes[1]]
    np.testing.assert_allclose(graph.relative_slopes(network, system, spikes[1]) * beta_theta, slopes, rtol=1e-11)


@of_every_kind
def test_a_shift_of_all_inputs_shifts_every_spike_by_as_much(rng, kind):
    network, times, units, t_end = graph.random_network(rng, clear=True, **kind)
    system = graph.explicit_system(network, times, units, *graph.simulate(network, times, units, t_end))
    by_inputs = -np.linalg.solve(system["firing"], system["times"])
    # rounding only, amplified by the condition of a triangular system of some thirty spikes
    np.testing.assert_allclose(by_inputs.sum(axis=1), 1.0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["plain", "several-tau", "twins-that-hear-one-another"])
def test_the_paper_s_form_and_the_restarted_form_give_the_same_derivatives(rng, name):
    for _ in range(3):
        network, times, units, t_end = graph.random_network(rng, clear=True, **KINDS[name])
        spikes = graph.simulate(network, times, units, t_end)
        ours, theirs = (form(network, times, units, *spikes) for form in (graph.explicit_system, graph.paper_system))
        assert not np.allclose(ours["firing"], theirs["firing"])
        for kind in ("weight", "recurrent_weight", "v_threshold", "times"):
            here, there = (
                np.linalg.solve(system["firing"], system[kind].reshape(len(spikes[0]), -1)) for system in (ours, theirs)
            )
            # V(f_m) = theta holds to slope * ulp at each earlier spike; conditions as above
            np.testing.assert_allclose(here, there, rtol=0, atol=1e-10 * np.abs(there).max())


def test_the_paper_s_form_refuses_a_hold():
    with pytest.raises(ValueError, match=r"t_ref = \[0.1\]: the paper's form knows no hold"):
        graph.paper_system(small_network([[1.0]], [[0.0]], t_ref=[0.1]), [0.0], [0], [0.5], [0])


def test_holds_may_be_zero_in_some_units_only(rng):
    network, times, units, t_end = graph.random_network(rng, clear=True)
    network["t_ref"][0] = 0.0
    spikes = graph.simulate(network, times, units, t_end)
    grad_times = rng.normal(size=len(spikes[0]))
    exact = graph.gradient(network, times, units, *spikes, grad_times)
    direction = random_direction(rng, network, times, exact)
    direction["t_ref"][0] = 0.0
    difference = graph.directional_difference(network, times, units, t_end, spikes, grad_times, direction)
    along = sum((exact[name] * values).sum() for name, values in direction.items())
    assert difference == pytest.approx(along, rel=1e-6)


# --- differences and random networks ---


def test_a_spike_that_vanishes_within_the_step_is_reported():
    network = small_network([[np.e]], [[0.0]])  # tau_mem = tau_syn = theta = 1: a graze
    network["weight"] *= 1 + 1e-9
    spikes = graph.simulate(network, [0.0], [0], 3.0)
    assert len(spikes[0]) == 1
    with pytest.raises(ValueError, match="a step of -2e-05 along weight changes the spikes"):
        graph.directional_difference(network, [0.0], [0], 3.0, spikes, [1.0], {"weight": np.ones((1, 1))})


@of_every_kind
def test_a_random_network_is_what_it_promises(rng, kind):
    network, times, units, t_end = graph.random_network(rng, n_in=2, n_units=5, **kind)
    _, who = graph.simulate(network, times, units, t_end)
    assert network["weight"].shape == (5, 2)
    assert np.bincount(units).tolist() == [3, 3]
    assert np.bincount(who, minlength=5).min() >= 2
    assert 10 <= len(who) <= graph.MOST
    assert (network["t_ref"] > 0).all() == kind["t_ref"]
    assert np.diag(network["recurrent_mask"]).any() == kind["self_loops"]
    weights = np.hstack([network["weight"], network["recurrent_weight"]])
    assert (weights.min() < 0) == kind.get("inhibition", True)
    assert not weights[~np.hstack([network["mask"], network["recurrent_mask"]])].any()
    tau_syn = np.hstack([network["tau_syn"], network["tau_syn_rec"]])
    assert (tau_syn != tau_syn[:, :1]).any() == kind["several_tau_syn"]


def test_random_networks_differ_only_by_their_generator():
    here, there, other = (graph.random_network(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert here[1].tolist() == there[1].tolist() != other[1].tolist()
    assert here[0]["weight"].tolist() == there[0]["weight"].tolist()


def test_some_synapses_have_the_time_constant_of_their_membrane(rng):
    networks = [graph.random_network(rng)[0] for _ in range(5)]
    assert any((network["tau_syn"] == network["tau_mem"][:, None]).any() for network in networks)
