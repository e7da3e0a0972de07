"""What a step did to the spikes: counted against trains written by hand, and shortened where it went too far."""

import pytest
import torch

from fireprop import Spikes, following, tasks, training
from fireprop.nn import LIF, Sequential


def run_of(times, units, *, known=2.0, batch=1, samples=None):
    """The spikes of a layer of 3 units as a run to t = 2 has them, known to the same moment in each sample."""
    spikes = Spikes.from_events(times, units, samples, n_units=3, batch_size=batch)
    moments = [torch.full((batch,), t, dtype=torch.float64) for t in (2.0, known)]
    return Spikes(spikes.times, spikes.units, spikes.offsets, 3, t_end=moments[0], t_known=moments[1])


@pytest.mark.parametrize("known", [2.0, 1.0])
@pytest.mark.parametrize(
    ("after", "units", "expected"),
    [
        ([0.1, 0.2, 0.5], [0, 1, 0], (0, 0)),
        ([0.11, 0.21, 0.5], [0, 1, 0], (0, 0)),  # moved
        ([0.1, 0.2], [0, 1], (0, 1)),
        ([0.2, 0.5], [1, 0], (0, 1)),  # the first of a burst of two
        ([0.1, 0.2, 0.5, 0.6], [0, 1, 0, 2], (1, 0)),
        ([0.1, 0.2, 0.5, 0.6], [0, 1, 0, 0], (1, 0)),
        ([0.1, 0.2, 0.5, 0.6], [1, 0, 1, 2], (2, 1)),
    ],
)
def test_created_and_deleted_spikes_are_those_by_which_counts_differ(known, after, units, expected):
    before = run_of([0.1, 0.2, 0.5], [0, 1, 0], known=known)
    assert following.spike_changes(before, run_of(after, units, known=known)) == expected


def test_a_lost_spike_of_a_burst_hides_no_other():
    before = run_of([0.1, 0.5, 0.7, 0.9], [0, 0, 1, 0], known=1.0)
    assert following.spike_changes(before, run_of([0.5, 0.9], [0, 0], known=1.0)) == (0, 2)


def test_spikes_that_may_have_moved_past_what_is_known_do_not_count():
    before = run_of([0.1, 0.95], [0, 1], known=1.0)
    # the other spike has moved by 0.1: one at 0.95 may be at 1.05 now
    assert following.spike_changes(before, run_of([0.2], [0], known=1.0)) == (0, 0)
    assert following.spike_changes(before, run_of([0.11], [0], known=1.0)) == (0, 1)
    # what only one of the two knows is not compared
    assert following.spike_changes(before, run_of([0.1], [0], known=0.9)) == (0, 0)
    # and where both are known to the end, nothing can have moved past it unseen
    before = run_of([0.1, 1.95], [0, 1])
    assert following.spike_changes(before, run_of([0.2], [0])) == (0, 1)


def test_samples_are_matched_each_with_itself():
    before = run_of([0.1, 0.1], [0, 1], batch=2, samples=[0, 1])
    after = run_of([0.1, 0.1], [1, 1], batch=2, samples=[0, 1])
    assert following.spike_changes(before, after) == (1, 1)


def labelled_net():
    """One input, two outputs that fire; the second is the label's."""
    net = Sequential(LIF(1, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64))
    net[0].weight.data.copy_(torch.tensor([[8.0], [6.0]]))
    inputs, labels = Spikes.from_latencies([[0.0]]), torch.tensor([1])
    return net, lambda spikes, labels: net.record(spikes, t_end=3.0, stop="first_spikes"), inputs, labels


def test_a_step_that_silences_a_label_is_halved_until_it_does_not():
    net, run, inputs, labels = labelled_net()
    before, start = run(inputs, labels), [p.detach().clone() for p in net.parameters()]
    net[0].weight.data[1] = -4.0  # halved once: 1, twice: 3.5, three times: 4.75; V peaks at w / 4
    effect = following.follow(net, run, inputs, labels, before, start)
    assert effect.halvings == 3
    assert net[0].weight.flatten().tolist() == pytest.approx([8.0, 4.75])
    assert (effect.created, effect.deleted, effect.silenced, effect.samples) == (0, 0, 0, 1)


def test_a_step_that_needs_too_many_halvings_ends_short_and_without_a_guard_it_stays():
    net, run, inputs, labels = labelled_net()
    before, start = run(inputs, labels), [p.detach().clone() for p in net.parameters()]
    net[0].weight.data[1] = -4000.0
    effect = following.follow(net, run, inputs, labels, before, start)
    assert effect.halvings == following.MAX_HALVINGS
    assert (effect.deleted, effect.silenced) == (1, 1)
    net[0].weight.data[1] = -4000.0
    assert following.follow(net, run, inputs, labels, before, None).halvings == 0
    assert net[0].weight[1].item() == -4000.0


def test_a_unit_that_was_silent_before_shortens_nothing():
    net, run, inputs, labels = labelled_net()
    net[0].weight.data[1] = 1.0
    before, start = run(inputs, labels), [p.detach().clone() for p in net.parameters()]
    net[0].weight.data[1] = 0.5
    assert following.follow(net, run, inputs, labels, before, start).halvings == 0


def trained(**changes):
    config = tasks.default_config("xor", epochs=2, **changes)
    trainer = training.Trainer.of(config, config.load())
    return trainer, [trainer.run_epoch() for _ in range(2)]


def test_following_changes_no_weight_and_fills_its_columns():
    (plain, without), (followed, rows) = trained(), trained(follow=1.0)
    for a, b in zip(plain.net.parameters(), followed.net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert without[0].spikes_created is None
    assert without[0].steps_shortened is None
    assert rows[0].spikes_created >= 0.0
    assert rows[0].steps_shortened is None
    assert 0.0 <= rows[0].near_graze_share <= 1.0
    assert rows[0].largest_sensitivity > 0.0


def test_a_small_share_follows_steps_of_later_epochs():
    # XOR has one step an epoch
    config = tasks.default_config("xor", epochs=4, follow=0.5, guard=True)
    trainer = training.Trainer.of(config, config.load())
    rows = [trainer.run_epoch() for _ in range(4)]
    assert [row.spikes_created is not None for row in rows] == [False, True, False, True]


def test_the_guard_keeps_labels_firing_that_large_steps_silence():
    firing = {}
    for guard in (False, True):
        trainer, rows = trained(follow=1.0, guard=guard, lr=5.0)
        data = trainer.splits.train
        firing[guard] = int(following.fires(trainer.run(data.spikes)[-1], data.labels).sum())
    assert firing[True] == len(data) > firing[False]
    assert sum(row.steps_shortened for row in rows) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"follow": 1.5}, "follow = 1.5"),
        ({"follow": float("nan")}, "follow = nan"),
        ({"guard": True}, "guard = True, follow = 0"),
    ],
)
def test_shares_that_are_none_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tasks.default_config("xor", **changes)
