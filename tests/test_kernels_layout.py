"""How synapses are laid out in rows of their sources, rates in a list, and records one after the other."""

import weakref

import numpy as np
import pytest

from fireprop.engine.arrays import moved_end_to_end, records
from fireprop.engine.graph.scratch import new_memo
from fireprop.kernels.graph import adjoint as graph_adjoint
from fireprop.kernels.graph import building
from fireprop.kernels.graph.layout import CHANNEL, NODE, SYNAPSE, Graph
from fireprop.kernels.log import EVENT, merge


@pytest.mark.white_box
@pytest.mark.parametrize(
    ("rows", "sources", "fault"),
    [
        ([0, 2, 3], [0, 2, 1], -1),
        ([0, 1, 3], [2, 0, 2], -1),  # every row starts anew
        ([0, 0, 0], [], -1),
        ([0, 2, 1], [0, 1], 1),  # runs backwards
        ([2, 1, 2], [0, 1], 0),
        ([-1, 1, 1], [0], 0),
        ([0, 1, 4], [0, 1, 2], 1),  # beyond the last
        ([0, 4, 4], [0, 1, 2], 0),
        ([0, 2, 2], [1, 1], 0),  # twice
        ([0, 2, 2], [2, 1], 0),  # out of order
        ([0, 1, 3], [2, 1, 0], 1),
        ([0, 0, 3], [0, 2, 1], 1),
        ([0, 1, 2], [0, 3], 1),  # there is no source 3
        ([0, 1, 2], [0, 4], 1),
        ([0, 1, 2], [-1, 0], 0),
    ],
)
def test_a_fault_of_the_rows_is_found_in_the_receiver_that_has_it(rows, sources, fault):
    assert building.fault_of(np.array(rows), np.array(sources, np.int64), 3) == fault


@pytest.mark.white_box
def test_synapses_are_taken_cell_by_cell_from_the_last_on(rng):
    for _ in range(40):
        n, nodes, synapses = int(rng.integers(1, 9)), records(8, NODE), records(12, SYNAPSE)
        nodes["cell"] = np.sort(rng.integers(0, 3, 8))
        first = int(rng.integers(0, 4))
        synapses["target"][first : first + n] = np.sort(rng.permutation(8)[:n])
        graph = Graph(
            nodes, records(8, CHANNEL), np.zeros(9, int), synapses, np.zeros(12), -1, np.zeros(8), new_memo(nodes)
        )
        reached = nodes["cell"][synapses["target"]]
        wanted = min(s for s in range(first, first + n) if (reached[s : first + n] == reached[first + n - 1]).all())
        assert graph_adjoint.first_of_cell(graph, first, first + n) == wanted


@pytest.mark.white_box
def test_rates_are_listed_once_for_every_run_of_equal_ones():
    rows, sources = np.array([0, 5, 7]), np.array([0, 1, 2, 3, 4, 0, 4])
    tau_syn = np.array([[0.5, 0.5, 1.0, 0.25, 0.25], [2.0, 0.0, 0.0, 0.0, 2.0]])
    group = np.array([[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]])
    wanted = [(2.0, 3), (1.0, 3), (4.0, 3), (4.0, 4)], [(0.5, 4), (0.5, 3)]
    counted = np.zeros(4, np.int64)
    nothing = np.zeros(0), np.zeros(0, np.int64)
    building.list_rates(rows, sources, tau_syn, group, 3, 1, counted, *nothing)
    assert counted.tolist() == [0, 4, 2, 0]
    rates, groups, cursor = np.zeros(10), np.zeros(10, np.int64), np.array([0, 2, 7, 0])
    building.list_rates(rows, sources, tau_syn, group, 3, 1, cursor, rates, groups)
    assert cursor.tolist() == [0, 6, 9, 0]
    for first, entries in zip((2, 7), wanted, strict=True):
        found = zip(rates[first:].tolist(), groups[first:].tolist(), strict=True)
        assert list(found)[: len(entries)] == entries


@pytest.mark.white_box
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [0, 6])
def test_every_synapse_has_the_current_of_its_rate_and_group(width, seed):
    rng = np.random.default_rng(seed)
    n_out, n_in, first_source, first_target, first_group, first_place = 3, 6, 2, 1, 5, 100
    mask = rng.random((n_out, n_in)) < 0.9
    sources = np.flatnonzero(mask.ravel()) % n_in
    rows = np.cumsum([0, *mask.sum(1)])
    tau_syn = rng.choice([0.25, 1.0], (n_out, n_in))
    group = rng.integers(0, 4, (n_out, n_in))
    keys = [
        sorted({(1.0 / tau_syn[o, s], first_group + group[o, s]) for s in np.flatnonzero(mask[o])}) for o in range(3)
    ]
    keys = [[(9.0, 9)], *keys]  # a unit of another population comes first
    nodes, channels = records(4, NODE), records(sum(map(len, keys)), CHANNEL)
    nodes["n_channels"] = [len(part) for part in keys]
    nodes["first_channel"] = np.cumsum([0, *nodes["n_channels"]])[:-1]
    channels["alpha"] = [alpha for part in keys for alpha, _ in part]
    groups = np.array([number for part in keys for _, number in part])
    counts = np.zeros(first_source + n_in + 2, np.int64)
    building.count_synapses(rows, sources, first_source, counts)
    cursor = np.cumsum(counts)[:-1]
    synapses, order = records(int(rows[-1]), SYNAPSE), np.full(int(rows[-1]), -1)
    ends = first_source, first_target
    building.lay_synapses(
        rows, sources, sources, np.arange(rows.size - 1), tau_syn, group, first_group, ends, first_place, width, False,
        cursor, nodes, channels, groups, synapses, order,
    )  # fmt: skip
    wanted = []
    for s in range(n_in):
        for o in np.flatnonzero(mask[:, s]):
            k = int(rows[o]) + int(mask[o, :s].sum())
            place = first_place + (int(o) * width + s if width else k)
            wanted.append((int(o) + first_target, (1.0 / tau_syn[o, s], first_group + group[o, s]), place))
    found = [
        (int(synapse["target"]), (channels["alpha"][synapse["channel"]], groups[synapse["channel"]]), int(at))
        for synapse, at in zip(synapses, order, strict=True)
    ]
    assert found == wanted
    # A channel belongs to the unit that it is of.
    first, n = nodes["first_channel"], nodes["n_channels"]
    assert all(0 <= synapse["channel"] - first[synapse["target"]] < n[synapse["target"]] for synapse in synapses)
    assert cursor.tolist() == np.cumsum(counts)[1:].tolist()


@pytest.mark.white_box
def test_records_are_joined_and_each_part_is_freed_where_nobody_else_has_it():
    parts = [records(n, EVENT) for n in (2, 0, 3)]
    for k, part in enumerate(parts):
        part["time"], part["unit"] = k + 0.5, k
    first = weakref.ref(parts[0])
    joined = moved_end_to_end(parts, EVENT)
    assert parts == []
    assert first() is None
    assert joined["time"].tolist() == [0.5, 0.5, 2.5, 2.5, 2.5]
    assert joined["unit"].tolist() == [0, 0, 2, 2, 2]


@pytest.mark.white_box
def test_lists_are_merged_in_order_of_time_and_at_one_instant_in_their_own_order():
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 5, (4, 6))  # of 4 lists in 6 samples; one list and one sample are empty
    numbers[2], numbers[:, 3] = 0, 0
    lists = [[np.sort(rng.integers(0, 6, n) / 2.0) for n in row] for row in numbers]
    lists[0][0] = np.append(lists[0][0][:-1], np.inf) if lists[0][0].size else lists[0][0]
    times = np.concatenate([part for row in lists for part in row])
    ends = np.cumsum(numbers.reshape(-1))
    offsets = np.stack([np.concatenate([[ends[6 * m] - numbers[m, 0]], ends[6 * m : 6 * m + 6]]) for m in range(4)])
    order = np.full(times.size, -1)
    merge(times, offsets, np.empty(4, int), order)
    source, sample = np.divmod(np.repeat(np.arange(24), numbers.reshape(-1)), 6)
    np.testing.assert_array_equal(order, np.lexsort((source, times, sample)))
    assert (np.diff(np.sort(times)) == 0.0).sum() > 10
