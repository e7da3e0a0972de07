"""Other programs' spikes and gradients, frozen: fireprop agrees with each, and the check notices if it does not."""

import copy
import dataclasses
import doctest
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fireprop.evidence.parity import check, check_all, check_fixture, fixture_names, load_fixture
from fireprop.evidence.parity.check import ParityRow

HOUSE = Path(__file__).parents[1]
DATA = HOUSE / "src/fireprop/evidence/parity/data"
SOURCES = {"mpmath", "jaxsnn", "eventax", "nest", "brian2"}
OF_SYNAPSES = ("weight", "tau_syn", "delay")
KINDS = (*OF_SYNAPSES, "v_threshold", "tau_mem", "t_ref", "input_times")
WITH_GRADIENTS = {"mpmath", "jaxsnn", "eventax"}


@pytest.fixture
def make_mpmath(monkeypatch):
    """The script that made the fixtures of 40 digits, as a module."""
    monkeypatch.syspath_prepend(HOUSE / "parity")
    import make_mpmath

    yield make_mpmath
    for name in ("cases", "fixture", "make_mpmath", "mp_reference"):
        del sys.modules[name]


def moved(fixture, unit_and_time, by):
    """The fixture with one firing time of its first population moved by a part of itself."""
    name = next(iter(fixture.spikes))
    trains = [[float(t) for t in train] for train in fixture.spikes[name]]
    unit, k = unit_and_time
    trains[unit][k] *= 1.0 + by
    return dataclasses.replace(fixture, spikes={**fixture.spikes, name: trains})


def some_spike(fixture):
    trains = next(iter(fixture.spikes.values()))
    unit = next(unit for unit, train in enumerate(trains) if train)
    return unit, len(trains[unit]) - 1


@pytest.mark.parametrize("name", fixture_names())
def test_fireprop_agrees_with_every_fixture(name):
    row = check_fixture(load_fixture(name))
    assert row.spikes > 0
    assert (row.gradient_error is not None) == (row.source in WITH_GRADIENTS)
    assert row.passed, row


def test_every_source_has_several_networks():
    names = [load_fixture(name).source for name in fixture_names()]
    assert set(names) == SOURCES
    assert all(names.count(source) >= 3 for source in SOURCES)


@pytest.mark.parametrize("name", ["mpmath_per_unit", "jaxsnn_recurrent", "nest_two_layers_hold", "brian2_per_unit"])
def test_a_time_moved_by_ten_tolerances_fails(name):
    fixture = load_fixture(name)
    row = check_fixture(moved(fixture, some_spike(fixture), 10 * fixture.tolerance["times"]))
    assert not row.passed
    assert 9 * row.time_tolerance < row.time_error < 11.1 * row.time_tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_moved_by_ten_tolerances_fails(kind):
    fixture = load_fixture("mpmath_delayed_recurrent")
    values = fixture.gradients[kind]
    by_name = {"": values} if kind == "input_times" else values
    by_name = {name: np.array(part, float) for name, part in by_name.items()}
    largest = max(np.abs(part).max() for part in by_name.values())
    next(iter(by_name.values())).flat[0] += 10 * fixture.tolerance["gradients"] * largest
    moved = {name: part.tolist() for name, part in by_name.items()}
    gradients = {**fixture.gradients, kind: moved[""] if kind == "input_times" else moved}
    row = check_fixture(dataclasses.replace(fixture, gradients=gradients))
    assert row.time_error <= row.time_tolerance
    assert not row.passed


def test_a_network_with_delays_is_found_in_every_source_that_has_them():
    fixtures = [load_fixture(name) for name in fixture_names()]
    delayed = [fixture for fixture in fixtures if all("delay" in c for c in fixture.network["connections"])]
    assert {fixture.source for fixture in delayed} == {"mpmath", "nest", "brian2"}
    for source in ("mpmath", "nest", "brian2"):
        cyclic = [
            f for f in delayed if f.source == source and any(c["pre"] == c["post"] for c in f.network["connections"])
        ]
        assert len(cyclic) >= 2
    # every 40-digit network has gradients to every constant, on both sides of tau_mem = tau_syn and on it
    for fixture in fixtures:
        assert fixture.source != "mpmath" or {"weight", "tau_syn", "tau_mem", "v_threshold"} <= set(fixture.gradients)
        assert "delay" in (fixture.gradients or {}) or fixture not in delayed or fixture.source != "mpmath"


def test_constants_of_a_fixture_are_trained_where_it_has_their_gradients():
    fixture = load_fixture("mpmath_delayed_two_layers")
    plain, plain_chain, trained, trained_chain = (
        {name for name, _ in net.named_parameters()}
        for constants in (False, True)
        for net in fixture.modules(constants=constants)
    )
    assert plain_chain == {"0.weight", "0.v_threshold", "1.weight", "1.v_threshold"}
    assert len(plain) == 4
    assert trained_chain == {f"{k}.{kind}" for k in (0, 1) for kind in KINDS if kind != "input_times"}
    assert len(trained) == len(trained_chain)
    *_, recurrent = load_fixture("mpmath_delayed_recurrent").modules(constants=True)
    own = {name for name, _ in recurrent.named_parameters()}
    assert own >= {"0.recurrent_weight", "0.tau_syn_rec", "0.delay_rec"}
    assert len(own) == 9


def test_a_gradient_of_an_unknown_kind_is_told():
    fixture = load_fixture("mpmath_near_graze")
    bad = dataclasses.replace(fixture, gradients={"tau": {}})
    with pytest.raises(ValueError, match=re.escape("fixture mpmath_near_graze: gradients['tau'], give some of ")):
        check_fixture(bad)


@pytest.mark.parametrize("name", ["mpmath_near_graze", "nest_two_layers_hold"])
def test_another_number_of_spikes_is_an_infinite_error(name):
    fixture = load_fixture(name)
    spikes = {population: [[*train, 2.9] for train in trains] for population, trains in fixture.spikes.items()}
    row = check_fixture(dataclasses.replace(fixture, spikes=spikes))
    assert row.time_error == np.inf
    assert row.gradient_error == (None if fixture.gradients is None else np.inf)
    assert not row.passed


@pytest.mark.parametrize("name", ["mpmath_two_layers", "nest_two_layers_hold"])
def test_a_time_that_is_nan_fails(name):
    fixture = load_fixture(name)
    row = check_fixture(moved(fixture, some_spike(fixture), np.nan))
    assert np.isnan(row.time_error)
    assert not row.passed


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_nan_in_one_place_fails(kind):
    fixture = load_fixture("mpmath_delayed_two_layers")
    values = copy.deepcopy(fixture.gradients[kind])
    last = values[list(values)[-1]] if kind != "input_times" else values
    if kind in OF_SYNAPSES:
        last = last[-1]
    last[-1] = np.nan
    row = check_fixture(dataclasses.replace(fixture, gradients={**fixture.gradients, kind: values}))
    assert row.time_error <= row.time_tolerance
    assert np.isnan(row.gradient_error)
    assert not row.passed


def test_a_gradient_of_zero_that_is_not_zero_fails():
    fixture = load_fixture("mpmath_near_graze")
    zeros = {"v_threshold": {name: [0.0] * len(grad) for name, grad in fixture.gradients["v_threshold"].items()}}
    assert check_fixture(dataclasses.replace(fixture, gradients=zeros)).gradient_error == np.inf


def test_a_row_of_spikes_alone_passes_by_its_times():
    row = ParityRow("nest", "case", 3, time_error=2.0, gradient_error=None, time_tolerance=3.0, gradient_tolerance=None)
    assert row.passed
    assert not dataclasses.replace(row, time_error=4.0).passed
    assert not dataclasses.replace(row, gradient_error=1.0, gradient_tolerance=0.5).passed


def test_all_fixtures_make_a_row_each(monkeypatch):
    monkeypatch.setattr(check, "fixture_names", lambda: ("jaxsnn_recurrent", "mpmath_recurrent"))
    assert [(row.source, row.case) for row in check_all()] == [("jaxsnn", "recurrent"), ("mpmath", "recurrent")]


def test_a_name_that_is_not_there_and_a_missing_tolerance_are_told():
    with pytest.raises(
        ValueError, match=re.escape("name = 'neuron_two_layers': the fixtures are brian2_delayed_populations,")
    ):
        load_fixture("neuron_two_layers")
    bad = dataclasses.replace(load_fixture("mpmath_near_graze"), tolerance={"times": None, "gradients": None})
    with pytest.raises(ValueError, match=re.escape("fixture mpmath_near_graze: tolerance['times'] is missing")):
        check_fixture(bad)


@pytest.mark.parametrize("case", ["near_graze", "ratio_1_plus_1e-12", "delayed_recurrent", "slow_adaptation"])
def test_the_script_makes_the_same_digits_again(make_mpmath, case):
    stored = json.loads((DATA / f"mpmath_{case}.json").read_text())
    # The near-graze is confirmed by central differences too; of the others, which take longer, the digits.
    made = make_mpmath.make(case, confirm=case == "near_graze")
    assert {**made, "version": stored["version"]} == stored


@pytest.mark.parametrize("kind", ["tau_syn", "input_times"])
def test_the_script_stops_where_gradients_are_not_confirmed(make_mpmath, monkeypatch, kind):
    exact = make_mpmath.reference.gradients

    def without_a_digit(*arguments):
        found = exact(*arguments)
        largest = max(found[kind], key=lambda key: abs(found[kind][key]))
        return {**found, kind: {**found[kind], largest: found[kind][largest] * (1 + make_mpmath.mp.mpf(10) ** -24)}}

    monkeypatch.setattr(make_mpmath.reference, "gradients", without_a_digit)
    with pytest.raises(ArithmeticError, match="near_graze: the explicit system and central differences differ by"):
        make_mpmath.make("near_graze")


def test_every_fixture_says_what_made_it_and_why_it_is_no_better():
    for name in fixture_names():
        fixture = load_fixture(name)
        assert name == f"{fixture.source}_{fixture.case}"
        assert (HOUSE / fixture.made_by).is_file()
        assert fixture.version
        assert fixture.settings
        assert len(fixture.why) > 60
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 300_000


def test_the_example_runs():
    results = doctest.testmod(check)
    assert results.attempted > 0
    assert results.failed == 0
