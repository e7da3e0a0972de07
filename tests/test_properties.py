"""Invariants of any network, over drawn networks, inputs and parameters: recurrent layers, chains, graphs.

What holds to the bit is stated of every draw that fires. What holds to rounding is stated of draws that are clear
(`strategies.Case.is_clear`): rounding then moves a spike by no more than `Case.rounding`, which follows from the
explicit system, and a gradient in proportion.
"""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.func import functional_call

from fireprop import GrazeError, SpikeLimitError, Spikes, TimeResolutionError
from fireprop.ift import INPUT_TIMES, forward_propagation
from strategies import (
    ALL_KINDS,
    EPS,
    INPUT,
    MAX_SPIKES,
    T_END,
    cases,
    coefficients,
    extreme_cases,
    loss_of,
    tensor,
    trains,
    uniform,
)

EVERY_KIND = pytest.mark.parametrize("kind", ALL_KINDS)
FEW = settings(max_examples=4, deadline=None, derandomize=True)  # of each kind
FAR = 1e6
SHIFT_RTOL = 1e-7  # of the largest component of a gradient (design 3)
DTYPES = st.sampled_from([torch.float64, torch.float32])
FACTORS = st.sampled_from([0.1, 1 / 3, 7.3, 1e-3, 1e5])


def assert_same(found, wanted):
    """Bit for bit."""
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_spikes_agree(found, wanted, bounds):
    """The units of each group to the letter, their times up to their bounds."""
    for units, expected in zip(found.units, wanted.units, strict=True):
        assert units.tolist() == expected.tolist()
    for times, expected, bound in zip(found.times, wanted.times, bounds, strict=True):
        assert (np.abs(times - expected) <= bound).all()


def assert_gradients_agree(found, wanted, rtol):
    """To rtol of the largest component of each gradient."""
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(np.abs(b).max(initial=0.0), 1e-300))


# ------------------------------------------------------------------------------------------ other origins and units


@EVERY_KIND
@FEW
@given(st.data(), st.sampled_from([FAR, -FAR]))
def test_a_shift_of_time_moves_every_spike_and_changes_nothing_else(kind, data, shift):
    case = data.draw(cases(kind, clear=True))
    here, there = case.run(), replace(case, times=case.times + shift, t_end=case.t_end + shift).run()
    back = there._replace(times=[times - shift for times in there.times])
    assert_spikes_agree(back, here, case.rounding(math.ulp(FAR)))
    assert_gradients_agree(there.grads, here.grads, SHIFT_RTOL)


def in_other_units(case, of_time=1.0, of_potential=1.0):
    """A case with every quantity in other units: V is in units of the potential, a weight in V per time."""
    groups = [
        group._replace(
            tau_mem=group.tau_mem * of_time, t_ref=group.t_ref * of_time, v_threshold=group.v_threshold * of_potential
        )
        for group in case.groups
    ]
    synapses = [
        s._replace(weight=s.weight / of_time * of_potential, tau_syn=s.tau_syn * of_time) for s in case.synapses
    ]
    times, t_end = case.times * of_time, case.t_end * of_time
    return replace(case, groups=tuple(groups), synapses=tuple(synapses), times=times, t_end=t_end)


def in_own_units(case, outcome, of_time=1.0, of_potential=1.0):
    """The inverse for what a run gives; the loss is a time."""
    n = len(case.synapses)
    of_weights = [g / of_time / of_time * of_potential for g in outcome.grads[:n]]
    of_thresholds = [g / of_time * of_potential for g in outcome.grads[n:-1]]
    return outcome._replace(
        times=[times / of_time for times in outcome.times],
        slopes=[slopes * of_time / of_potential for slopes in outcome.slopes],
        grads=[*of_weights, *of_thresholds, outcome.grads[-1]],
    )


@EVERY_KIND
@FEW
@given(st.data(), DTYPES, st.integers(-20, 20), st.integers(-20, 20))
def test_units_of_time_and_potential_that_are_powers_of_two_change_no_bit(kind, data, dtype, time, potential):
    case = replace(data.draw(cases(kind)), dtype=dtype)
    units = {"of_time": 2.0**time, "of_potential": 2.0**potential}
    found = in_other_units(case, **units).run(on_graze="zero")
    assert_same(in_own_units(case, found, **units).everything(), case.run(on_graze="zero").everything())


@EVERY_KIND
@FEW
@given(st.data(), FACTORS, FACTORS)
def test_units_of_time_and_potential_change_nothing_beyond_rounding(kind, data, time, potential):
    case = data.draw(cases(kind, clear=True))
    units = {"of_time": time, "of_potential": potential}
    found, wanted = in_own_units(case, in_other_units(case, **units).run(), **units), case.run()
    assert_spikes_agree(found, wanted, case.rounding())
    assert_gradients_agree(found.grads, wanted.grads, case.gradient_rounding())


# ---------------------------------------------------------------------------------------- the same network otherwise


@EVERY_KIND
@FEW
@given(st.data(), uniform(0.1, 0.9))
def test_an_input_may_be_split_into_two_that_share_its_weights(kind, data, share):
    case = data.draw(cases(kind, clear=True))
    unit = data.draw(st.integers(0, case.n_in - 1))
    split = split_unit(case, INPUT, unit, share)
    found, wanted = split.run(), case.run()
    assert_spikes_agree(found, wanted, case.rounding())
    # Either half of a weight has the derivative of the whole; the two times share theirs.
    for s, grad, expected in zip(case.synapses, found.grads, wanted.grads, strict=False):
        if s.pre == INPUT:
            expected = np.insert(expected, unit + 1, expected[:, unit], axis=1)
        assert_gradients_agree([grad], [expected], case.gradient_rounding())
    twice = np.flatnonzero(split.units == unit)
    shared = np.delete(found.grads[-1], twice + 1)
    shared[np.flatnonzero(case.units == unit)] = found.grads[-1][twice] + found.grads[-1][twice + 1]
    assert_gradients_agree([shared], wanted.grads[-1:], case.gradient_rounding())


@EVERY_KIND
@FEW
@given(st.data(), uniform(0.1, 0.9))
def test_a_unit_may_be_split_into_twins_that_share_its_weights(kind, data, share):
    case = data.draw(cases(kind, clear=True))
    number = data.draw(st.integers(0, len(case.groups) - 1))
    unit = data.draw(st.integers(0, case.groups[number].size - 1))
    found, wanted = split_unit(case, number, unit, share).run(), case.run()
    first, twin = (found.times[number][found.units[number] == unit + k] for k in (0, 1))
    assert first.tolist() == twin.tolist()
    one = found.units[number] != unit + 1
    found.times[number], units = found.times[number][one], found.units[number][one]
    found.units[number] = np.where(units > unit, units - 1, units)
    assert_spikes_agree(found, wanted, case.rounding())


def split_unit(case, number, unit, share):
    """A case in which a unit of a group, or an input, is two that do the same and share its weights."""
    synapses = []
    for s in case.synapses:
        weight, tau_syn, mask = s[2:]
        if s.pre == number:
            weight, tau_syn, mask = (np.insert(a, unit + 1, a[:, unit], axis=1) for a in (weight, tau_syn, mask))
            weight[:, unit] *= share
            weight[:, unit + 1] *= 1.0 - share
        if s.post == number:
            weight, tau_syn, mask = (np.insert(a, unit + 1, a[unit], axis=0) for a in (weight, tau_syn, mask))
        synapses.append(s._replace(weight=weight, tau_syn=tau_syn, mask=mask))
    case = replace(case, synapses=tuple(synapses))
    if number != INPUT:
        groups = list(case.groups)
        groups[number] = groups[number]._make(
            np.insert(constants, unit + 1, constants[unit]) for constants in groups[number]
        )
        return replace(case, groups=tuple(groups))
    mine = np.flatnonzero(case.units == unit)
    units = np.where(case.units > unit, case.units + 1, case.units)
    times, units = np.insert(case.times, mine + 1, case.times[mine]), np.insert(units, mine + 1, unit + 1)
    return replace(case, n_in=case.n_in + 1, times=times, units=units)


@EVERY_KIND
@FEW
@given(st.data())
def test_relabelled_units_and_inputs_are_relabelled_in_the_result(kind, data):
    case = data.draw(cases(kind, clear=True, distinct=True))
    orders = [data.draw(st.permutations(range(size))) for size in (*(g.size for g in case.groups), case.n_in)]
    orders = [np.array(order) for order in orders]  # the last one, orders[INPUT], of the inputs
    found, wanted = relabelled(case, orders).run(), case.run()
    for number, order in enumerate(orders[:INPUT]):
        units = order[found.units[number]]
        in_order = np.lexsort((units, found.times[number]))
        found.times[number], found.units[number] = found.times[number][in_order], units[in_order]
    # Where no two spikes arrive at once, there is no other order of any sum.
    bounds = case.rounding() if kind == "ties" else [0.0 for _ in case.groups]
    assert_spikes_agree(found, wanted, bounds)
    n = len(case.synapses)
    expected = [grad[orders[s.post]][:, orders[s.pre]] for s, grad in zip(case.synapses, wanted.grads, strict=False)]
    expected += [grad[order] for order, grad in zip(orders, wanted.grads[n:-1], strict=False)]
    assert_gradients_agree(found.grads, [*expected, wanted.grads[-1]], case.gradient_rounding())


def relabelled(case, orders):
    """A case whose unit k is unit order[k] of the given one, in every group and among the inputs."""
    groups = [
        group._make(constants[order] for constants in group) for group, order in zip(case.groups, orders, strict=False)
    ]
    synapses = [s._make([*s[:2], *(a[orders[s.post]][:, orders[s.pre]] for a in s[2:])]) for s in case.synapses]
    return replace(case, groups=tuple(groups), synapses=tuple(synapses), units=np.argsort(orders[INPUT])[case.units])


@EVERY_KIND
@FEW
@given(st.data(), DTYPES)
def test_silent_units_change_no_bit(kind, data, dtype):
    case = replace(data.draw(cases(kind)), dtype=dtype)
    places = [data.draw(st.integers(0, size)) for size in (*(g.size for g in case.groups), case.n_in)]
    found, wanted = with_silent_units(case, places).run(on_graze="zero"), case.run(on_graze="zero")
    for number, place in enumerate(places[:INPUT]):
        assert place not in found.units[number]
        found.units[number][found.units[number] > place] -= 1
    n = len(case.synapses)
    for k, s in enumerate(case.synapses):
        grad = found.grads[k]
        assert (grad[places[s.post]] == 0.0).all()
        assert (grad[:, places[s.pre]] == 0.0).all()
        found.grads[k] = np.delete(np.delete(grad, places[s.post], 0), places[s.pre], 1)
    for k, place in enumerate(places[:INPUT], start=n):
        assert found.grads[k][place] == 0.0
        found.grads[k] = np.delete(found.grads[k], place)
    assert_same(found.everything(), wanted.everything())


def with_silent_units(case, places):
    """A case with one more unit in each group, which only hears inhibition, and one more input, which never fires.

    Each reaches the units that unit 0 reaches, by synapses of the same kind: nobody gets a new current.
    """
    groups = [
        group._make(np.insert(constants, place, constants[0]) for constants in group)
        for group, place in zip(case.groups, places, strict=False)
    ]
    synapses = []
    for s in case.synapses:
        weight, tau_syn, mask = (np.insert(a, places[s.pre], a[:, 0], axis=1) for a in s[2:])
        weight, tau_syn, mask = (np.insert(a, places[s.post], a[0], axis=0) for a in (weight, tau_syn, mask))
        weight[places[s.post]] = -np.abs(weight[places[s.post]])
        synapses.append(s._replace(weight=weight, tau_syn=tau_syn, mask=mask))
    units = np.where(case.units >= places[INPUT], case.units + 1, case.units)
    return replace(case, n_in=case.n_in + 1, groups=tuple(groups), synapses=tuple(synapses), units=units)


CHAINS = pytest.mark.parametrize("kind", ["chain", "chain with loops"])
STOPS = st.sampled_from([None, "first_spikes"])


@CHAINS
@FEW
@given(st.data(), STOPS)
def test_a_chain_is_the_network_of_its_layers_to_the_bit(kind, data, stop):
    case = data.draw(cases(kind))
    options = {"stop": stop, "on_graze": "zero"}
    found, wanted = case.run(as_network=True, **options), case.run(as_network=False, **options)
    assert_same(found.everything(), wanted.everything())


@EVERY_KIND
@FEW
@given(st.data(), DTYPES, uniform(0.0, 1.0))
def test_an_earlier_horizon_cuts_and_changes_no_bit_before_it(kind, data, dtype, part):
    case = replace(data.draw(cases(kind)), dtype=dtype)
    whole = case.run(on_graze="zero")
    short = replace(case, t_end=float(part) * case.t_end).run(on_graze="zero")
    for number, times in enumerate(whole.times):
        before = times < float(part) * case.t_end
        assert short.times[number].tolist() == times[before].tolist()
        assert short.units[number].tolist() == whole.units[number][before].tolist()


# --------------------------------------------------------------------------------------------------------- batches


@EVERY_KIND
@FEW
@given(st.data(), DTYPES, STOPS, st.sampled_from(["adjoint", "forward"]))
def test_a_batch_is_its_samples_one_by_one_to_the_bit(kind, data, dtype, stop, gradient):
    case = replace(data.draw(cases(kind)), dtype=dtype)
    others = [data.draw(trains(case.n_in)) for _ in range(2)]
    samples = [(case.times, case.units), *others, (np.zeros(0), np.zeros(0, int)), (case.times, case.units)]
    ends = [T_END * (0.5 + 0.1 * k) for k in range(len(samples))]
    module = case.module()
    options = {"stop": stop, "gradient": gradient, "on_graze": "zero"}
    try:
        whole, grads = run_batch(module, case, samples, ends, **options)
        alone = [run_batch(module, case, [s], [end], **options) for s, end in zip(samples, ends, strict=True)]
    except SpikeLimitError:
        assume(False)
    for b, (record, grad) in enumerate(alone):
        assert_same([grads[b]], grad)
        for spikes, slopes, one, own_slopes in zip(whole, whole.slopes, record, record.slopes, strict=True):
            part = slice(int(spikes.offsets[b]), int(spikes.offsets[b + 1]))
            for name in ("times", "units", "t_end", "t_known"):
                assert torch.equal(getattr(spikes[b], name), getattr(one, name))
            assert torch.equal(slopes[part], own_slopes)


def run_batch(module, case, samples, ends, **options):
    """A record, and for each sample the gradient of its input times, of a loss that knows no other sample."""
    leaves = [tensor(times).requires_grad_() for times, _ in samples]
    number = np.repeat(np.arange(len(samples)), [times.size for times, _ in samples])
    units = np.concatenate([units for _, units in samples])
    inputs = Spikes.from_events(
        torch.cat(leaves), torch.from_numpy(units), torch.from_numpy(number), n_units=case.n_in, batch_size=len(samples)
    )
    record = module.record(inputs, t_end=torch.tensor(ends), max_spikes=MAX_SPIKES, **options)
    sum(spikes.times.square().sum() for spikes in record).backward()
    return record, [leaf.grad.numpy() for leaf in leaves]


# ----------------------------------------------------------------------------------------------------- derivatives


def tangents(case, module, directions, d_times):
    """Tangents of all spikes, by group, along a direction of the parameters and one of the input times."""
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(p.detach(), directions[name]) for name, p in module.named_parameters()}
        inputs = case.inputs(forward_ad.make_dual(tensor(case.times), d_times))
        record = functional_call(
            Recording(module), {f"net.{name}": dual for name, dual in duals.items()}, (inputs, case)
        )
        return [forward_ad.unpack_dual(spikes.times).tangent.numpy() for spikes in record]


class Recording(torch.nn.Module):
    """A network whose forward is its record, as `functional_call` needs it."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs, case):
        return self.net.record(inputs, t_end=case.t_end, max_spikes=MAX_SPIKES)


@EVERY_KIND
@FEW
@given(st.data())
def test_the_derivatives_of_a_spike_by_all_input_times_sum_to_one(kind, data):
    case = data.draw(cases(kind, clear=True))
    module = case.module()
    still = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    forwards = tangents(case, module, still, torch.ones(case.times.size, dtype=torch.float64))
    jacobian = forward_propagation(module, case.inputs(), t_end=case.t_end, parameters=[INPUT_TIMES])
    bounds = case.derivative_rounding()
    for number, (tangent, bound) in enumerate(zip(forwards, bounds, strict=True)):
        rows = jacobian.by[INPUT_TIMES][jacobian.layers == number].sum(1).numpy()
        assert (np.abs(tangent - 1.0) <= bound).all()
        assert (np.abs(rows - 1.0) <= bound).all()
    found = case.run()
    weights = [coefficients(torch.from_numpy(times)).numpy() for times in found.times]
    allowed = sum(np.abs(c) @ bound for c, bound in zip(weights, bounds, strict=True))
    assert abs(found.grads[-1].sum() - sum(c.sum() for c in weights)) <= allowed


@EVERY_KIND
@FEW
@given(st.data(), st.integers(0, 2**32 - 1))
def test_the_tangent_and_the_adjoint_are_transposes(kind, data, seed):
    case = data.draw(cases(kind, clear=True))
    module, generator = case.module(), torch.Generator().manual_seed(seed)
    directions = {
        name: torch.randn(p.shape, dtype=torch.float64, generator=generator) for name, p in module.named_parameters()
    }
    d_times = torch.randn(case.times.size, dtype=torch.float64, generator=generator)
    tangent = tangents(case, module, directions, d_times)
    leaf = tensor(case.times).requires_grad_()
    record = module.record(case.inputs(leaf), t_end=case.t_end)
    loss_of(record).backward()
    forwards = [coefficients(s.times).numpy() * d for s, d in zip(record, tangent, strict=True)]
    backwards = [(p.grad * directions[name]).numpy() for name, p in module.named_parameters()]
    backwards.append((leaf.grad * d_times).numpy())
    size = sum(np.abs(x).sum() for x in forwards + backwards)
    off = sum(x.sum() for x in forwards) - sum(x.sum() for x in backwards)
    # Rounding of either walk; a term may pass through others that are larger by the sensitivity of a spike.
    assert abs(off) <= 8 * EPS * case.sensitivities.max() * size


# --------------------------------------------------------------------------------------------------- extreme numbers

NAMED = (ValueError, GrazeError, SpikeLimitError, TimeResolutionError)
PLACES = r"sample|layer|population|\S+->\S+:|times|the gradient|the tangent|a derivative|the loss"


def unless_named(run):
    """What a run gives, or None where it ends in an error of ours, which says where; not of a library below."""
    try:
        return run()
    except NAMED as error:
        if not re.match(PLACES, str(error)):
            raise
        return None


@EVERY_KIND
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.data(),
    st.sampled_from([{"gradient": "adjoint"}, {"gradient": "forward"}, {"stop": "first_spikes"}]),
    st.sampled_from(["raise", "zero"]),
)
def test_extreme_numbers_give_finite_results_or_an_error_with_a_name(kind, data, options, on_graze):
    case = data.draw(extreme_cases(kind))
    found = unless_named(lambda: case.run(on_graze=on_graze, **options))
    if found is None:
        return
    assert all(np.isfinite(part).all() for part in found.everything())
    for times, units in zip(found.times, found.units, strict=True):
        assert np.lexsort((units, times)).tolist() == list(range(times.size))
        assert (times < case.t_end).all()
        for unit in np.unique(units):
            assert (np.diff(times[units == unit]) > 0.0).all()


@EVERY_KIND
@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.data())
def test_extreme_numbers_have_finite_tangents_or_an_error_with_a_name(kind, data):
    case = data.draw(extreme_cases(kind))
    module = case.module()
    ones = {name: torch.ones_like(p) for name, p in module.named_parameters()}
    steady = torch.ones(case.times.size, dtype=torch.float64)
    found = unless_named(lambda: tangents(case, module, ones, steady))
    if found is None:
        return
    assert all(np.isfinite(tangent).all() for tangent in found)
