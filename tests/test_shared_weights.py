"""Synapses that share weights, in the engine of graphs: its oracle is the same graph with a weight for each synapse."""

import re

import numpy as np
import pytest

from fireprop.engine import graph

pytestmark = pytest.mark.white_box
N_IN, N, KERNEL = 5, 9, (2, 3)
T_END = np.array([3.0, 3.0])


def structures(rng, *, delays):
    """Of one population with a dense loop: weights that are shared, and a weight for each synapse of the same mask."""
    mask = rng.random((N, N_IN)) < 0.6
    rows = graph.Sparsity.of_mask(mask)
    shared = rng.integers(0, 5, rows.sources.size).astype(np.int32)  # the last weight has no synapse
    delay = rng.uniform(0.0, 0.3, (N, N_IN)) if delays else None
    loop = graph.Connection("loop: weight", 0, 0, np.full((N, N), 0.3), np.ones((N, N), bool))
    populations = [graph.Population("units", rng.uniform(0.5, 2.0, N), np.full(N, 0.05), n_cells=3)]
    found = []
    for choice in ({}, {"shared": shared, "kernel": KERNEL}):
        feed = graph.Connection("feed: weight", graph.INPUT, 0, np.full((N, N_IN), 0.5), rows, delay, **choice)
        found.append(graph.lay_out(N_IN, populations, [loop, feed]))
    return *found, shared


def run_of(structure, weights, rng):
    times = np.sort(rng.uniform(0.0, 1.0, (2, 2 * N_IN))).reshape(-1)
    units, offsets = rng.integers(0, N_IN, times.size), np.array([0, 2 * N_IN, 4 * N_IN])
    return graph.simulate(structure, weights, [np.ones(N)], times, units, offsets, T_END, max_spikes=1000)


@pytest.mark.parametrize("delays", [False, True])
def test_gradients_of_synapses_that_share_a_weight_add_up(rng, delays):
    single, tied, shared = structures(rng, delays=delays)
    loop, weight = rng.normal(0.0, 0.3, (N, N)), rng.normal(1.5, 1.5, KERNEL)
    seed = rng.integers(2**32)
    alone = run_of(single, [loop, weight.reshape(-1)[shared]], np.random.default_rng(seed))
    run = run_of(tied, [loop, weight], np.random.default_rng(seed))
    for found, wanted in zip(run.spikes(1), alone.spikes(1), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert run.times(1).size > 20
    loss = [np.cos(np.arange(run.times(1).size))]
    found, wanted = run.adjoint(loss).weights, alone.adjoint(loss).weights
    np.testing.assert_array_equal(found[0], wanted[0])
    sums = np.bincount(shared, weights=wanted[1], minlength=6).reshape(KERNEL)
    assert found[1].shape == KERNEL
    assert found[1][1, 2] == 0.0
    np.testing.assert_allclose(found[1], sums, rtol=0, atol=1e-13 * np.abs(sums).max())  # the order of the sum
    np.testing.assert_array_equal(run.as_graph()[1][1].reshape(-1)[:5], weight.reshape(-1)[:5])


def test_shared_weights_that_do_not_exist_are_refused():
    rows = graph.Sparsity.of_mask(np.ones((1, 2), bool))
    populations = [graph.Population("units", np.ones(1), np.zeros(1))]
    for shared, message in (
        ([0, 4], "feed: shared has places from 0 to 4: give places within [0, 4), in weights of shape (2, 2)"),
        ([0], "feed: shared has shape (1,): give (2,) and sparse synapses"),
    ):
        feed = graph.Connection(
            "feed", graph.INPUT, 0, np.full((1, 2), 0.5), rows, shared=np.array(shared), kernel=(2, 2)
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            graph.lay_out(2, populations, [feed])
