"""Spikes: what it accepts, what it refuses and in which words, every conversion and back, and the way of gradients.

The oracle is Python's own `sorted` on tuples (sample, time, unit) and lists of lists, which share no code with torch.
"""

import copy
import dataclasses
import doctest
import math
import pickle
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as fwad
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fireprop.spikes import Spikes, container

# torch warns of itself when its forward mode first loads.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

INF = math.inf
proven = settings(deadline=None, derandomize=True, max_examples=60)

# Few distinct times make simultaneous spikes and duplicates common; the rest of float64 comes along, signs included.
moments = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 1.0]) | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def lists(draw, max_spikes=4):
    """(trains, n_units): trains[sample][unit] in order; empty batches, no units and silence among them."""
    batch, n_units = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    train = st.lists(moments, max_size=max_spikes).map(sorted)
    return [[draw(train) for _ in range(n_units)] for _ in range(batch)], n_units


def events(trains):
    return sorted((b, t, u) for b, sample in enumerate(trains) for u, train in enumerate(sample) for t in train)


def assert_holds(spikes, trains, n_units):
    """`spikes` holds exactly `trains`, in canonical order, and passes the checks of its own constructor."""
    rows = zip(spikes.samples.tolist(), spikes.times.tolist(), spikes.units.tolist(), strict=True)
    assert list(rows) == events(trains)
    assert (len(spikes), spikes.batch_size, spikes.n_units) == (len(trains), len(trains), n_units)
    assert spikes.n_spikes == len(events(trains))
    assert (spikes.times.dtype, spikes.units.dtype) == (torch.float64, torch.int64)
    assert (spikes.offsets.dtype, spikes.samples.dtype) == (torch.int64, torch.int64)
    Spikes(spikes.times, spikes.units, spikes.offsets, spikes.n_units, spikes.t_end, spikes.t_known)


def assert_same(a, b):
    assert a.n_units == b.n_units
    for name in ("times", "units", "offsets", "t_end", "t_known"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None and other is None) or torch.equal(one, other), name


def of(trains):
    return Spikes.from_lists(trains)


def stopped(trains=(((0.5,), (1.0,)), ((0.25,), ())), t_end=(4.0, 4.0), t_known=(4.0, 1.0)):
    """Two samples, the second known only to t = 1."""
    s = of(trains)
    return Spikes(s.times, s.units, s.offsets, s.n_units, t_end=list(t_end), t_known=list(t_known))


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def raises(error, text):
    return pytest.raises(error, match=re.escape(text))


# ---------------------------------------------------------------- conversions and back


@proven
@given(lists())
@example(([], 0))
@example(([[]], 0))
@example(([[[], []]], 2))
@example(([[[1.0, 1.0], [1.0]], [[], [-2.0]]], 2))
def test_lists_come_back_and_are_held_in_order_of_time_then_unit(drawn):
    trains, n_units = drawn
    spikes = Spikes.from_lists(trains, n_units=n_units)
    assert_holds(spikes, trains, n_units)
    assert spikes.to_lists() == trains


@proven
@given(lists(max_spikes=1))
@example(([], 3))
@example(([[[0.5], [0.5], []]], 3))
def test_latencies_come_back_bit_for_bit(drawn):
    trains, n_units = drawn
    x = f64([[train[0] if train else INF for train in sample] for sample in trains]).reshape(len(trains), n_units)
    spikes = Spikes.from_latencies(x)
    assert_holds(spikes, trains, n_units)
    assert torch.equal(spikes.to_latencies(), x)


@proven
@given(lists(), st.integers(0, 2))
@example(([], 2), 1)
@example(([[[], []]], 2), 0)
def test_padded_trains_come_back_whatever_the_order_and_the_padding(drawn, extra):
    trains, n_units = drawn
    width = max((len(train) for sample in trains for train in sample), default=0)
    padded = [[train + [INF] * (width - len(train)) for train in sample] for sample in trains]
    x = f64(padded).reshape(len(trains), n_units, width)
    shuffled = torch.cat((torch.full((len(trains), n_units, extra), INF, dtype=torch.float64), x.flip(-1)), -1)
    for spikes in (Spikes.from_padded_trains(x), Spikes.from_padded_trains(shuffled)):
        assert_holds(spikes, trains, n_units)
        assert torch.equal(spikes.to_padded_trains(), x)


@proven
@given(lists(), st.randoms(use_true_random=False))
@example(([], 2), None)
def test_flat_events_are_sorted_and_their_fields_give_them_back(drawn, random):
    trains, n_units = drawn
    flat = events(trains)
    if random is not None:
        random.shuffle(flat)
    samples, times, units = zip(*flat, strict=True) if flat else ((), (), ())
    spikes = Spikes.from_events(times, units, samples, n_units=n_units, batch_size=len(trains))
    assert_holds(spikes, trains, n_units)
    again = Spikes.from_events(
        spikes.times, spikes.units, spikes.samples, n_units=n_units, batch_size=spikes.batch_size
    )
    assert_same(spikes, again)


@proven
@given(lists(), st.integers(0, 2))
@example(([], 2), 0)
def test_padded_events_come_back_whatever_the_order_and_the_padding(drawn, extra):
    trains, n_units = drawn
    spikes = Spikes.from_lists(trains, n_units=n_units)
    times, units = spikes.to_padded_events()
    rows = [[(t, u) for b, t, u in events(trains) if b == sample] for sample in range(len(trains))]
    width = max((len(row) for row in rows), default=0)
    padded = [row + [(INF, -1)] * (width - len(row)) for row in rows]
    assert times.tolist() == [[t for t, _ in row] for row in padded]
    assert units.tolist() == [[u for _, u in row] for row in padded]
    pad = torch.full((len(trains), extra), -1)
    again = Spikes.from_padded_events(
        torch.cat((pad + INF, times.flip(1)), 1), torch.cat((pad, units.flip(1)), 1), n_units=n_units
    )
    assert_same(spikes, again)


@proven
@given(st.data(), st.sampled_from(["time_first", "batch_first"]), st.sampled_from([0.1, 0.5, 1e-3, 7.0]))
def test_grids_come_back_for_any_dt_and_start(data, layout, dt):
    shape = data.draw(st.tuples(*[st.integers(0, 4)] * 3))
    t_start = data.draw(st.sampled_from([0.0, -0.3, 1e6]))
    bits = data.draw(st.lists(st.integers(0, 1), min_size=math.prod(shape), max_size=math.prod(shape)))
    grid = torch.tensor(bits, dtype=torch.float32).reshape(shape)
    spikes = Spikes.from_grid(grid, dt=dt, layout=layout, t_start=t_start)
    n_steps = shape[0] if layout == "time_first" else shape[1]
    assert torch.equal(spikes.to_grid(dt=dt, n_steps=n_steps, layout=layout, t_start=t_start), grid)
    for step, b, u in torch.nonzero(grid if layout == "time_first" else grid.transpose(0, 1)).tolist():
        assert t_start + step * dt in spikes[b].select_units(u).times.tolist()


def test_a_grid_far_from_zero_comes_back():
    # The rounding of a time at 1e6 is 1e-7 of such a step, above the tolerance: no reason to refuse one's own grid.
    grid = torch.ones(9, 1, 1)
    spikes = Spikes.from_grid(grid, dt=1e-3, t_start=1e6)
    assert torch.equal(spikes.to_grid(dt=1e-3, n_steps=9, t_start=1e6), grid)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_grids_of_any_dtype_are_read_alike(dtype):
    grid = torch.tensor([[[0, 1]], [[1, 1]]])
    assert Spikes.from_grid(grid.to(dtype), dt=0.5).to_lists() == [[[0.5], [0.0, 0.5]]]
    assert Spikes.from_grid(grid.to(dtype).numpy(), dt=0.5).to_lists() == [[[0.5], [0.0, 0.5]]]


def test_rounding_to_the_nearest_step_is_asked_for_by_name():
    spikes = of([[[0.26], [0.74, 1.6]]])
    grid = spikes.to_grid(dt=0.5, n_steps=4, rounding="nearest")
    assert grid[:, 0].tolist() == [[0, 0], [1, 1], [0, 0], [0, 1]]


def test_a_time_within_the_tolerance_of_a_step_is_on_the_grid():
    dt = 0.1
    # 1e-9 of a step: 0.3 is 4e-17 from 3 * 0.1, 5e-10 of a step is within, 5e-9 is not
    assert of([[[0.3, 0.7 + 5e-11]]]).to_grid(dt=dt, n_steps=8).sum() == 2
    with raises(ValueError, "sample 0, unit 0, t = 0.7000000005 is not on the grid"):
        of([[[0.3, 0.7 + 5e-10]]]).to_grid(dt=dt, n_steps=8)


def test_narrow_types_big_endian_and_read_only_arrays_convert_exactly():
    x = np.array([[0.1, INF]], dtype=np.float32)
    x.flags.writeable = False
    expected = f64([[float(np.float32(0.1)), INF]])
    for given_x in (x, x.astype(">f4"), torch.tensor([[0.1, INF]]), x[:, ::-1][:, ::-1]):
        assert torch.equal(Spikes.from_latencies(given_x).to_latencies(), expected)
    assert Spikes.from_latencies(torch.tensor([[3, 1]])).times.tolist() == [1.0, 3.0]
    units = np.array([1, 0], dtype=np.uint8)
    assert Spikes.from_events([1, 2], units, units.astype(np.int16), n_units=2).to_lists() == [[[2.0], []], [[], [1.0]]]


def test_events_without_samples_are_one_sample_even_if_there_are_none():
    assert Spikes.from_events([], [], None, n_units=2).to_lists() == [[[], []]]
    assert Spikes.from_events([0.2, 0.1], [0, 1], None, n_units=2).to_lists() == [[[0.2], [0.1]]]
    assert Spikes.from_events([0.2], [0], None, n_units=1, batch_size=3).to_lists() == [[[0.2]], [[]], [[]]]


def test_the_batch_of_events_ends_by_default_at_the_last_sample_with_a_spike():
    assert len(Spikes.from_events([0.1, 0.2], [0, 0], [2, 0], n_units=1)) == 3
    assert len(Spikes.from_events([], [], [], n_units=1)) == 0


def test_the_examples_of_the_docstrings_run():
    result = doctest.testmod(container)
    assert result.failed == 0
    assert result.attempted >= 15


# ---------------------------------------------------------------- what is read from it


@proven
@given(lists(), st.integers(1, 3))
def test_first_and_counts_agree_with_the_lists(drawn, k):
    trains, n_units = drawn
    spikes = Spikes.from_lists(trains, n_units=n_units)
    expected = [[(train + [INF] * k)[:k] for train in sample] for sample in trains]
    assert spikes.first(k).shape == (len(trains), n_units, k)
    assert spikes.first(k).tolist() == expected
    assert spikes.counts().shape == (len(trains), n_units)
    assert spikes.counts().tolist() == [[len(train) for train in sample] for sample in trains]


def test_first_refuses_to_read_no_spike():
    with raises(ValueError, "k = 0: ask for the first k >= 1 spikes"):
        of([[[0.1]]]).first(0)


def test_one_sample_of_a_million_spikes():
    rng = np.random.default_rng(0)
    n, n_units = 1_000_000, 50
    times, units = rng.random(n).round(4), rng.integers(0, n_units, n)  # rounded: a hundred spikes share each time
    spikes = Spikes.from_events(times, units, None, n_units=n_units)
    order = np.lexsort((units, times))
    assert np.array_equal(spikes.times.numpy(), times[order])
    assert np.array_equal(spikes.units.numpy(), units[order])
    earliest = np.full(n_units, INF)
    np.minimum.at(earliest, units, times)
    assert np.array_equal(spikes.first()[0, :, 0].numpy(), earliest)
    assert np.array_equal(spikes.counts()[0].numpy(), np.bincount(units, minlength=n_units))
    assert_same(Spikes(spikes.times, spikes.units, spikes.offsets, n_units), spikes)
    assert_same(Spikes.from_padded_trains(spikes.to_padded_trains()), spikes)


@pytest.mark.parametrize(
    ("spikes", "text"),
    [
        (of([[[0.1, 1.93], [0.5]]]), "Spikes(batch=1, units=2, spikes=3, t in [0.1, 1.93])"),
        (of([[[], []]]), "Spikes(batch=1, units=2, spikes=0)"),
        (Spikes([], [], [0], 0), "Spikes(batch=0, units=0, spikes=0)"),
        (Spikes([], [], [0], 0, [], []), "Spikes(batch=0, units=0, spikes=0)"),
        (stopped(), "Spikes(batch=2, units=2, spikes=3, t in [0.25, 1.0], t_end=4.0, known to 1.0)"),
        (stopped(t_known=(4.0, 4.0)), "Spikes(batch=2, units=2, spikes=3, t in [0.25, 1.0], t_end=4.0)"),
        (
            stopped(t_end=(4.0, 5.0), t_known=(4.0, 5.0)),
            "Spikes(batch=2, units=2, spikes=3, t in [0.25, 1.0], t_end in [4.0, 5.0])",
        ),
    ],
)
def test_repr_is_one_line(spikes, text):
    assert repr(spikes) == text


def test_spikes_are_frozen_compare_by_identity_copy_and_pickle():
    spikes = stopped()
    with pytest.raises(dataclasses.FrozenInstanceError):
        spikes.times = None
    assert spikes == spikes
    assert spikes != stopped()
    assert len({spikes, stopped()}) == 2
    assert_same(copy.deepcopy(spikes), spikes)
    assert_same(pickle.loads(pickle.dumps(spikes)), spikes)
    assert_same(dataclasses.replace(spikes, n_units=2), spikes)


def test_what_the_caller_writes_later_does_not_reach_the_spikes():
    times, units, offsets, t_end = f64([0.1, 0.2]), torch.tensor([0, 1]), torch.tensor([0, 2]), f64([4.0])
    spikes = Spikes(times, units, offsets, 2, t_end, t_end)
    array = np.array([0.1, 0.2])
    from_array = Spikes(array, [0, 1], [0, 2], 2)
    x = f64([[0.1, 0.2]])
    from_x = Spikes.from_latencies(x)
    for tensor in (times, units, offsets, t_end, x):
        tensor.fill_(9)
    array.fill(9.0)
    assert spikes.to_lists() == from_array.to_lists() == from_x.to_lists() == [[[0.1], [0.2]]]
    assert spikes.t_end.tolist() == spikes.t_known.tolist() == [4.0]


# ---------------------------------------------------------------- samples, units, time


indices = st.one_of(
    st.slices(4),
    st.lists(st.integers(-4, 3), max_size=6),
    st.integers(-4, 3),
    st.lists(st.booleans(), min_size=4, max_size=4),
)


@proven
@given(
    st.lists(
        st.lists(st.lists(st.floats(-10.0, 0.4), max_size=3).map(sorted), min_size=2, max_size=2),
        min_size=4,
        max_size=4,
    ),
    indices,
)
def test_samples_are_picked_as_numpy_picks_rows(trains, index):
    rows = np.atleast_1d(np.arange(4)[index]).copy()
    s = of(trains)
    ends = f64([1.0, 2.0, 3.0, 4.0])
    spikes = Spikes(s.times, s.units, s.offsets, 2, ends, ends - 0.5)
    forms = [index] if isinstance(index, slice) else [index, np.array(index, int if index == [] else None)]
    if not isinstance(index, slice):
        forms.append(torch.as_tensor(forms[1]))
    for form in forms:
        picked = spikes[form]
        assert_holds(picked, [trains[b] for b in rows], 2)
        assert torch.equal(picked.t_end, ends[rows])
        assert torch.equal(picked.t_known, ends[rows] - 0.5)


def test_iteration_gives_the_samples_one_by_one():
    assert [sample.to_lists() for sample in of([[[0.1]], [[]], [[0.2]]])] == [[[[0.1]]], [[[]]], [[[0.2]]]]


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        (2, IndexError, "samples index 2 is out of range: there are 2 samples"),
        (-3, IndexError, "samples index -3 is out of range: there are 2 samples"),
        ([0, 5], IndexError, "samples index 5 is out of range: there are 2 samples"),
        ([[0, 1]], IndexError, "samples index has shape (1, 2): give an integer or one dimension"),
        ([True], IndexError, "samples mask has shape (1,): give (2,)"),
        (True, IndexError, "samples mask has shape (): give (2,)"),
        ([0.5], TypeError, "samples index is torch.float64: give integers"),
        ("0", TypeError, "samples index holds <U1: give numbers"),
        (None, TypeError, "samples index = None: give numbers"),
        ((0, 1), TypeError, "samples index (0, 1): one index at a time, spikes[samples].select_units(units)"),
    ],
)
def test_an_index_that_names_no_sample_is_refused(index, error, text):
    with raises(error, text):
        of([[[0.1]], [[0.2]]])[index]


@proven
@given(lists(), st.randoms(use_true_random=False))
def test_units_are_selected_and_renumbered(drawn, random):
    trains, n_units = drawn
    index = random.sample(range(n_units), random.randint(0, n_units))
    selected = Spikes.from_lists(trains, n_units=n_units).select_units(index)
    assert_holds(selected, [[sample[u] for u in index] for sample in trains], len(index))


def test_units_are_selected_by_int_slice_and_mask_and_keep_the_horizon():
    spikes = stopped()
    for index in (1, -1, slice(1, None), [False, True], torch.tensor([1])):
        selected = spikes.select_units(index)
        assert selected.n_units == 1
        assert selected.times.tolist() == [1.0]
        assert torch.equal(selected.t_known, spikes.t_known)
    with raises(ValueError, "index names unit 1 more than once"):
        spikes.select_units([1, 0, -1])
    with raises(IndexError, "units index 2 is out of range: there are 2 units"):
        spikes.select_units(2)


def test_shift_moves_times_and_horizon_by_a_number_or_by_sample():
    spikes = stopped()
    later = spikes.shift(-2.0)
    assert later.times.tolist() == [-1.5, -1.0, -1.75]
    assert (later.t_end.tolist(), later.t_known.tolist()) == ([2.0, 2.0], [2.0, -1.0])
    each = spikes.shift([1.0, 2.0])
    assert each.times.tolist() == [1.5, 2.0, 2.25]
    assert (each.t_end.tolist(), each.t_known.tolist()) == ([5.0, 6.0], [5.0, 3.0])
    assert of([[[0.5]]]).shift(1).t_end is None
    assert len(Spikes([], [], [0], 3).shift(1.0)) == 0


def test_times_that_a_shift_rounds_together_are_ordered_by_unit_anew():
    spikes = Spikes([0.0, 1e-12], [1, 0], [0, 2], 2).shift(1e6)
    assert spikes.times.tolist() == [1e6, 1e6]
    assert spikes.units.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        ([1.0], "duration has shape (1,): give a number or (2,)"),
        (math.nan, "duration of sample 0 is nan: give a finite duration"),
        ([1.0, INF], "duration of sample 1 is inf: give a finite duration"),
    ],
)
def test_a_shift_that_is_no_duration_is_refused(duration, text):
    with raises(ValueError, text):
        stopped().shift(duration)


def test_a_shift_beyond_float64_is_refused():
    with raises(ValueError, "times[0] = inf (unit 0): spike times must be finite"):
        of([[[1e308]]]).shift(1e308)


@proven
@given(lists(), st.integers(0, 3))
def test_cat_undoes_slicing(drawn, cut):
    trains, n_units = drawn
    spikes = Spikes.from_lists(trains, n_units=n_units)
    assert_same(Spikes.cat([spikes[:cut], spikes[cut:cut], spikes[cut:]]), spikes)


def test_cat_carries_the_horizons_and_refuses_parts_that_do_not_fit():
    spikes = stopped()
    assert_same(Spikes.cat([spikes[0], spikes[1]]), spikes)
    with raises(ValueError, "cat: parts is empty"):
        Spikes.cat([])
    with raises(ValueError, "cat: parts[1] has n_units = 1, parts[0] has 2: must agree"):
        Spikes.cat([spikes, of([[[0.1]]])])
    with raises(ValueError, "cat: parts[1] has no t_end, others have"):
        Spikes.cat([spikes, of([[[0.1], []]])])


@proven
@given(lists(), st.integers(0, 4))
def test_stack_units_undoes_select_units(drawn, cut):
    trains, n_units = drawn
    cut = min(cut, n_units)
    spikes = Spikes.from_lists(trains, n_units=n_units)
    parts = [spikes.select_units(slice(cut)), spikes.select_units(slice(cut, None))]
    assert_same(Spikes.stack_units(parts), spikes)


def test_stack_units_takes_the_horizon_of_the_simulations():
    spikes, data = stopped(), of([[[0.1]], [[9.0]]])
    assert Spikes.stack_units([data, data]).t_end is None
    both = Spikes.stack_units([data, spikes])
    assert not both.complete
    assert (both.t_end.tolist(), both.t_known.tolist()) == ([4.0, 4.0], [4.0, 1.0])
    assert both.units.tolist() == [0, 1, 2, 1, 0]
    known = Spikes.stack_units([stopped(t_known=(2.0, 4.0)), spikes])
    assert known.t_known.tolist() == [2.0, 1.0]
    with raises(ValueError, "stack_units: parts[2] ends at t_end = 5.0 in sample 1, an earlier part at 4.0"):
        Spikes.stack_units([data, spikes, stopped(t_end=(4.0, 5.0))])
    with raises(ValueError, "stack_units: parts[1] has batch_size = 1, parts[0] has 2: must agree"):
        Spikes.stack_units([spikes, spikes[0]])
    with raises(ValueError, "stack_units: parts is empty"):
        Spikes.stack_units([])


# ---------------------------------------------------------------- after an early stop


def test_after_an_early_stop_first_spikes_are_valid():
    spikes = stopped()
    assert not spikes.complete
    assert spikes.first().tolist() == [[[0.5], [1.0]], [[0.25], [INF]]]
    assert spikes[0].complete
    assert spikes[0].counts().tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("first(2)", lambda s: s.first(2)),
        ("counts()", lambda s: s.counts()),
        ("to_latencies()", lambda s: s.to_latencies()),
        ("to_padded_trains()", lambda s: s.to_padded_trains()),
        ("to_padded_events()", lambda s: s.to_padded_events()),
        ("to_lists()", lambda s: s.to_lists()),
        ("to_grid()", lambda s: s.to_grid(dt=0.25, n_steps=9)),
    ],
)
def test_after_an_early_stop_whatever_needs_more_raises_and_names_stop(what, call):
    text = (
        f"{what} needs every spike up to t_end, but sample 1 is known only to t = 1.0 of 4.0, "
        'an early stop (stop="first_spikes"): run the network without stop'
    )
    with raises(ValueError, text):
        call(stopped())
    call(stopped(t_known=(4.0, 4.0)))


# ---------------------------------------------------------------- gradients


def mixed(x):
    """x (2, 3) through every operation that moves times; a weighted sum without the padding."""
    spikes = Spikes.from_latencies(x)
    spikes = Spikes.cat([spikes[[1, 0]], spikes.shift(0.5)])
    spikes = Spikes.stack_units([spikes.select_units([2, 0]), spikes])
    spikes = Spikes(spikes.times, spikes.units, spikes.offsets, spikes.n_units)
    spikes = Spikes.from_padded_trains(spikes.to_padded_trains())
    spikes = Spikes.from_padded_events(*spikes.to_padded_events(), n_units=spikes.n_units)
    spikes = Spikes.from_events(spikes.times, spikes.units, spikes.samples, n_units=spikes.n_units, batch_size=4)
    values = torch.cat([spikes.first().reshape(-1), spikes.to_latencies().reshape(-1), spikes.first(2).reshape(-1)])
    values = torch.where(torch.isfinite(values.detach()), values, 0.0)
    return (values**2 * torch.arange(1, values.shape[0] + 1)).sum()


X = [[0.3, 0.1, INF], [0.7, 0.7, 0.2]]


def mixed_gradient():
    """By central differences, exact for a quadratic up to rounding: eps / step = 1e-12."""
    gradient = torch.zeros(2, 3, dtype=torch.float64)
    for b, u in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]:
        step = torch.zeros(2, 3, dtype=torch.float64)
        step[b, u] = 1e-3
        gradient[b, u] = (mixed(f64(X) + step) - mixed(f64(X) - step)) / 2e-3
    return gradient


def test_backward_runs_through_every_operation():
    x = f64(X).requires_grad_()
    mixed(x).backward()
    torch.testing.assert_close(x.grad, mixed_gradient(), rtol=1e-9, atol=1e-9)
    assert x.grad[0, 2] == 0.0


def test_jvp_and_grad_of_torch_func_run_through_every_operation():
    tangent = f64([[1.0, -2.0, 5.0], [0.5, 3.0, -1.0]])
    value, derivative = torch.func.jvp(mixed, (f64(X),), (tangent,))
    assert value == mixed(f64(X))
    expected = mixed_gradient()
    torch.testing.assert_close(derivative, (expected * tangent).sum(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.func.grad(mixed)(f64(X)), expected, rtol=1e-9, atol=1e-9)


def test_forward_mode_duals_run_through_every_operation():
    tangent = f64([[1.0, -2.0, 5.0], [0.5, 3.0, -1.0]])
    with fwad.dual_level():
        derivative = fwad.unpack_dual(mixed(fwad.make_dual(f64(X), tangent))).tangent
    torch.testing.assert_close(derivative, (mixed_gradient() * tangent).sum(), rtol=1e-9, atol=1e-9)


def test_jvp_through_latencies_gives_each_first_spike_its_own_tangent():
    x, tangent = f64(X), f64([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    first, moved = torch.func.jvp(lambda x: Spikes.from_latencies(x).first()[..., 0], (x,), (tangent,))
    assert torch.equal(first, x)
    assert torch.equal(moved, torch.where(torch.isinf(x), 0.0, tangent))


def test_errors_speak_under_torch_func_too():
    def refused(x):
        with raises(ValueError, "times[1] = nan (unit 4)"):
            Spikes(x, [0, 4], [0, 2], 5)
        with raises(ValueError, "times[1] = 0.0 (unit 4) follows times[0] = 1.0 (unit 0) in sample 0"):
            Spikes(torch.where(torch.isnan(x), 0.0, x), [0, 4], [0, 2], 5)
        return x

    torch.func.jvp(refused, (f64([1.0, math.nan]),), (f64([1.0, 1.0]),))
    torch.func.grad(lambda x: refused(x)[0])(f64([1.0, math.nan]))


def test_a_float32_leaf_receives_its_gradient():
    x = torch.tensor([[0.5, 0.25]], requires_grad=True)
    (Spikes.from_latencies(x).times * f64([1.0, 2.0])).sum().backward()
    assert x.grad.tolist() == [[2.0, 1.0]]


def test_no_gradient_not_even_nan_reaches_a_time_through_the_padding():
    x = f64([[0.5, INF]]).requires_grad_()
    first = Spikes.from_latencies(x).first(2)
    (first - first).sum().backward()  # inf - inf
    assert x.grad.tolist() == [[0.0, 0.0]]
    x = f64([[0.5, INF]]).requires_grad_()
    Spikes.from_latencies(x).first().backward(f64([[[2.0], [math.nan]]]))
    assert x.grad.tolist() == [[2.0, 0.0]]


def test_the_gradient_of_a_shift_reaches_the_duration_but_not_the_horizon():
    duration = f64([1.0, 2.0]).requires_grad_()
    spikes = stopped().shift(duration)
    assert not spikes.t_end.requires_grad
    assert not spikes.t_known.requires_grad
    spikes.times.sum().backward()
    assert duration.grad.tolist() == [2.0, 1.0]


def test_the_constructor_keeps_the_graph_and_detach_cuts_it():
    times = f64([0.1, 0.2]).requires_grad_()
    spikes = Spikes(times, [0, 1], [0, 2], 2, t_end=1 + times[:1], t_known=1 + times[:1])
    assert spikes.times.requires_grad
    assert not spikes.t_end.requires_grad
    assert not spikes.detach().times.requires_grad
    assert_same(spikes.detach(), spikes)
    assert repr(spikes) == repr(spikes.detach())
    assert spikes.to_lists() == [[[0.1], [0.2]]]
    assert spikes.to_grid(dt=0.1, n_steps=3).requires_grad is False


def test_trusted_spikes_share_their_tensors():
    spikes = stopped()
    fields = [getattr(spikes, field.name) for field in dataclasses.fields(Spikes)]
    twin = Spikes._trusted(*fields)
    assert all(
        getattr(twin, field.name) is value for field, value in zip(dataclasses.fields(Spikes), fields, strict=True)
    )


# ---------------------------------------------------------------- errors at the door

GOOD = {"times": [0.1, 0.2, 0.2], "units": [4, 0, 1], "offsets": [0, 1, 3], "n_units": 5}


def test_unordered_samples_side_by_side_and_simultaneous_spikes_are_valid():
    assert_holds(Spikes(**GOOD), [[[], [], [], [], [0.1]], [[0.2], [0.2], [], [], []]], 5)
    assert Spikes([0.9, 0.1, 0.1], [0, 0, 0], [0, 1, 1, 3], 1).to_lists() == [[[0.9]], [[]], [[0.1, 0.1]]]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            {"times": [0.1, math.nan, 0.2], "units": [0, 4, 1]},
            "times[1] = nan (unit 4): spike times must be finite; a silent unit has no entry",
        ),
        ({"times": [0.1, 0.2, INF]}, "times[2] = inf (unit 1): spike times must be finite"),
        ({"times": [-INF, 0.2, 0.2]}, "times[0] = -inf (unit 4): spike times must be finite"),
        (
            {"times": [0.1, 0.5, 0.2]},
            "times[2] = 0.2 (unit 1) follows times[1] = 0.5 (unit 0) in sample 1: a sample is in order of time, "
            "then unit; Spikes.from_events sorts",
        ),
        ({"units": [4, 1, 0]}, "times[2] = 0.2 (unit 0) follows times[1] = 0.2 (unit 1) in sample 1"),
        ({"units": [5, 0, 1]}, "units[0] = 5: must lie in [0, n_units), n_units = 5"),
        ({"units": [4, 0, -1]}, "units[2] = -1: must lie in [0, n_units), n_units = 5"),
        ({"units": [4, 0]}, "units has shape (2,), times (3,): give one per spike"),
        ({"times": [[0.1, 0.2, 0.2]]}, "times has shape (1, 3): give one dimension, (n_spikes,)"),
        ({"times": 0.1}, "times has shape (): give one dimension, (n_spikes,)"),
        ({"offsets": []}, "offsets has shape (0,): give (batch + 1,), [0] for an empty batch"),
        ({"offsets": [[0, 3]]}, "offsets has shape (1, 2): give (batch + 1,)"),
        ({"offsets": [1, 3]}, "offsets[0] = 1: the first sample starts at 0"),
        ({"offsets": [0, 2, 1, 3]}, "offsets[2] = 1 is below offsets[1] = 2: sample 1 ends before it starts"),
        ({"offsets": [0, 2]}, "offsets[-1] = 2: the last sample ends at the number of spikes, 3"),
        ({"n_units": -1}, "n_units = -1: give at least 0"),
        ({"t_end": [4.0, 4.0]}, "t_end and t_known come together"),
        ({"t_known": [4.0, 4.0]}, "t_end and t_known come together"),
        ({"t_end": [4.0], "t_known": [4.0, 4.0]}, "t_end has shape (1,): give one moment per sample, (2,)"),
        ({"t_end": [4.0, 4.0], "t_known": 4.0}, "t_known has shape (): give one moment per sample, (2,)"),
        ({"t_end": [4.0, math.nan], "t_known": [4.0, 4.0]}, "t_end[1] = nan: give a finite time"),
        (
            {"times": torch.zeros(3, dtype=torch.float64, device="meta")},
            "times is on meta: fireprop computes on the CPU",
        ),
        ({"units": torch.zeros(3, dtype=torch.int64, device="meta")}, "pass units.cpu()"),
        ({"offsets": torch.zeros(3, dtype=torch.int64, device="meta")}, "pass offsets.cpu()"),
    ],
)
def test_the_constructor_names_argument_index_value_and_remedy(changed, text):
    with raises(ValueError, text):
        Spikes(**(GOOD | changed))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"times": torch.tensor([0.1, 0.2, 0.2])}, "times is float32, must be float64: pass times.double()"),
        (
            {"times": np.zeros(3, np.float32)},
            "times is float32, must be float64: pass times.astype(np.float64)",
        ),
        ({"times": torch.tensor([0, 1, 2])}, "times is int64, must be float64: pass times.double()"),
        ({"units": torch.tensor([4.0, 0.0, 1.0])}, "units is float32, must be int64: pass units.long()"),
        ({"units": np.array([4, 0, 1], np.int32)}, "units is int32, must be int64: pass units.astype(np.int64)"),
        ({"units": [4.5, 0, 1]}, "units is torch.float64: give integers"),
        ({"units": [True, False, True]}, "units is torch.bool: give integers"),
        ({"times": [1j, 2j, 3j]}, "times is torch.complex128: give real numbers"),
        ({"times": ["a", "b", "c"]}, "times holds <U1: give numbers"),
        (
            {"offsets": torch.tensor([0, 1, 3], dtype=torch.int32)},
            "offsets is int32, must be int64: pass offsets.long()",
        ),
        ({"n_units": 5.0}, "n_units = 5.0: give an integer"),
        (
            {"t_end": torch.tensor([4.0, 4.0]), "t_known": [4.0, 4.0]},
            "t_end is float32, must be float64: pass t_end.double()",
        ),
    ],
)
def test_the_constructor_refuses_other_types(changed, text):
    with raises(TypeError, text):
        Spikes(**(GOOD | changed))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Spikes.from_latencies([[0.1, math.nan]]), "x[0, 1] = nan: give a finite time, or inf for no spike"),
        (lambda: Spikes.from_latencies([[0.1], [-INF]]), "x[1, 0] = -inf: give a finite time"),
        (lambda: Spikes.from_latencies([0.1]), "x has shape (1,): give (batch, units)"),
        (lambda: Spikes.from_latencies(torch.zeros(1, 1, device="meta")), "pass x.cpu()"),
        (lambda: Spikes.from_padded_trains([[[0.1, math.nan]]]), "x[0, 0, 1] = nan: give a finite time"),
        (lambda: Spikes.from_padded_trains([[0.1]]), "x has shape (1, 1): give (batch, units, K)"),
        (lambda: of([[[], [0.1, 0.2]]]).to_latencies(), "sample 0, unit 1 fires more than once: use first(1)"),
        (lambda: Spikes.from_events([0.1, INF], [0, 1], None, n_units=2), "times[1] = inf (unit 1): spike times must"),
        (
            lambda: Spikes.from_events([0.1], [2], None, n_units=2),
            "units[0] = 2: must lie in [0, n_units), n_units = 2",
        ),
        (lambda: Spikes.from_events([0.1], [0, 1], None, n_units=2), "units has shape (2,), times (1,)"),
        (lambda: Spikes.from_events([0.1], [0], [0, 1], n_units=2), "samples has shape (2,), times (1,)"),
        (
            lambda: Spikes.from_events([0.1], [0], [3], n_units=1, batch_size=3),
            "samples[0] = 3: must lie in [0, batch_size), batch_size = 3",
        ),
        (
            lambda: Spikes.from_events([0.1], [0], [-5], n_units=1),
            "samples[0] = -5: must lie in [0, batch_size), batch_size = 0",
        ),
        (lambda: Spikes.from_events([], [], [], n_units=1, batch_size=-1), "batch_size = -1: give at least 0"),
        (
            lambda: Spikes.from_padded_events([[0.1, 0.2]], [[0, -1]], n_units=3),
            "times[0, 1] = 0.2, units[0, 1] = -1: give a finite time and a unit in [0, n_units = 3), or the padding",
        ),
        (
            lambda: Spikes.from_padded_events([[0.1, INF]], [[0, 1]], n_units=3),
            "times[0, 1] = inf, units[0, 1] = 1: give a finite time",
        ),
        (
            lambda: Spikes.from_padded_events([[math.nan]], [[0]], n_units=3),
            "times[0, 0] = nan, units[0, 0] = 0: give a finite time",
        ),
        (
            lambda: Spikes.from_padded_events([[-INF]], [[-1]], n_units=3),
            "times[0, 0] = -inf, units[0, 0] = -1: give a finite time",
        ),
        (
            lambda: Spikes.from_padded_events([[0.1], [0.2]], [[0], [3]], n_units=3),
            "times[1, 0] = 0.2, units[1, 0] = 3: give a finite time",
        ),
        (
            lambda: Spikes.from_padded_events([[0.1]], [0], n_units=3),
            "times has shape (1, 1), units (1,): give both as (batch, events)",
        ),
        (lambda: Spikes.from_lists([]), "trains is empty: give n_units"),
        (lambda: Spikes.from_lists([[[]], [[], []]]), "trains[1] has 2 units, not 1: a silent unit is an empty list"),
        (lambda: Spikes.from_lists([[[]]], n_units=3), "trains[0] has 1 units, not 3"),
        (lambda: Spikes.from_lists([[[], [0.1, INF]]]), "trains[0][1] holds inf: spike times must be finite"),
        (lambda: Spikes.from_grid([[[0, 2]]], dt=0.1), "grid[0, 0, 1] = 2: give 0, or 1 for a spike"),
        (lambda: Spikes.from_grid([[[math.nan]]], dt=0.1), "grid[0, 0, 0] = nan: give 0, or 1 for a spike"),
        (lambda: Spikes.from_grid([[0]], dt=0.1), "grid has shape (1, 1): give three dimensions, time_first"),
        (lambda: Spikes.from_grid([[[0]]], dt=0.0), "dt = 0.0: give a finite number > 0"),
        (lambda: Spikes.from_grid([[[0]]], dt=math.nan), "dt = nan: give a finite number > 0"),
        (lambda: Spikes.from_grid([[[0]]], dt=0.1, t_start=INF), "t_start = inf: give a finite number"),
        (lambda: Spikes.from_grid([[[0]]], dt=0.1, layout="tbn"), "layout = 'tbn': choose \"time_first\" or"),
    ],
)
def test_conversions_name_argument_index_value_and_remedy(call, text):
    with raises(ValueError, text):
        call()


@pytest.mark.parametrize(
    ("trains", "options", "text"),
    [
        (
            [[[0.5], [0.13, 0.5]]],
            {"dt": 0.1},
            "sample 0, unit 1, t = 0.13 is not on the grid (dt = 0.1, t_start = 0.0): the largest rounding would be "
            '0.3 of a step. Choose a finer dt, or rounding="nearest"',
        ),
        ([[[]], [[0.5, 0.9]]], {"dt": 0.1}, "sample 1, unit 0, t = 0.9 falls on step 9, off the grid of 8 steps"),
        ([[[0.8]]], {"dt": 0.1}, "sample 0, unit 0, t = 0.8 falls on step 8, off the grid of 8 steps"),
        ([[[-0.1]]], {"dt": 0.1}, "sample 0, unit 0, t = -0.1 falls on step -1, off the grid of 8 steps"),
        ([[[0.1]]], {"dt": 0.1, "t_start": 0.2}, "sample 0, unit 0, t = 0.1 falls on step -1, off the grid"),
        ([[[1e300]]], {"dt": 0.1, "rounding": "nearest"}, "sample 0, unit 0, t = 1e+300 falls on step 1"),
        (
            [[[], [0.21, 0.19]]],
            {"dt": 0.1, "rounding": "nearest"},
            "sample 0, unit 1, t = 0.21 falls into the cell of the unit's spike at t = 0.19 (dt = 0.1): a cell "
            "holds one spike, choose a finer dt",
        ),
        ([[[0.2, 0.2]]], {"dt": 0.1}, "sample 0, unit 0, t = 0.2 falls into the cell of the unit's spike at t = 0.2"),
        ([[[]]], {"dt": 0.1, "rounding": "up"}, 'rounding = \'up\': choose "raise" or "nearest"'),
        ([[[]]], {"dt": -1.0}, "dt = -1.0: give a finite number > 0"),
    ],
)
def test_a_grid_never_drops_or_merges_a_spike(trains, options, text):
    with raises(ValueError, text):
        of(trains).to_grid(n_steps=8, **options)


def test_canonical_order_is_one_order():
    """The same events, given in any of their orders, are the same object to the bit."""
    flat = [(0.2, 1, 0), (0.2, 0, 0), (0.1, 1, 1), (-1.0, 0, 0)]
    all_ways = [Spikes.from_events(*zip(*(flat[k:] + flat[:k]), strict=True), n_units=2) for k in range(4)]
    for one, other in pairwise(all_ways):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("t_end", "t_known", "text"),
    [
        (1.0, 2.0, "t_known[0] = 2.0: give <= t_end[0] = 1.0"),
        (0.5, 0.5, "sample 0, unit 0, t = 0.5: spike times must be below t_end = 0.5"),
        (2.0, 0.4, "sample 0, unit 0, t = 0.5: spike times must be below t_end = 2.0, and at most t_known = 0.4"),
        (math.inf, 1.0, "t_end[0] = inf: give a finite time"),
    ],
)
def test_horizons_that_contradict_the_spikes_are_refused(t_end, t_known, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        Spikes([0.5], [0], [0, 1], 1, t_end=[t_end], t_known=[t_known])


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), slice(3, 1), slice(-2, None), slice(0, 0), slice(2, 99)])
def test_a_slice_of_samples_is_those_samples_in_memory_of_its_own(part):
    x = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    whole = Spikes.from_latencies(x)
    whole = Spikes._trusted(whole.times, whole.units, whole.offsets, 3, torch.ones(5).double(), torch.ones(5).double())
    mine, listed = whole[part], whole[list(range(5))[part]]
    for name in ("times", "units", "offsets", "t_end", "t_known"):
        assert torch.equal(getattr(mine, name), getattr(listed, name))
        stored = getattr(mine, name).untyped_storage()
        assert stored.nbytes() == getattr(mine, name).numel() * getattr(mine, name).element_size()
    grads = [torch.autograd.grad(spikes.times.square().sum(), x, retain_graph=True)[0] for spikes in (mine, listed)]
    assert torch.equal(*grads)


def test_integer_times_that_float64_would_merge_are_refused():
    clock = 1764633600000000000  # nanoseconds since 1970, in steps of 1 of which float64 has every 256th
    assert Spikes.from_events([clock, clock + 256], [0, 0], None, n_units=1).times.tolist() == [clock, clock + 256]
    with raises(ValueError, f"times[1] = {clock + 1}: float64 rounds this integer: subtract the least one first"):
        Spikes.from_events([clock, clock + 1], [0, 0], None, n_units=1)
    with raises(ValueError, "float64 rounds"):
        Spikes.from_events([2**63 - 1], [0], None, n_units=1)
