"""N-MNIST's files and recorded events: written here byte by byte, read back, and how they can be wrong."""

import re

import numpy as np
import pytest

from fireprop.datasets import MissingDataError, load_nmnist, read_events, spikes_from_events
from fireprop.datasets.events import EVENT
from tiny_files import event_bytes, write_recordings

EVENTS = [(21, 9, 1, 1189), (6, 7, 0, 1666), (33, 33, 1, 2**23 - 1)]


def test_an_event_is_forty_bits_of_place_polarity_and_time(tmp_path):
    (tmp_path / "1.bin").write_bytes(event_bytes(EVENTS))
    events = read_events(tmp_path / "1.bin")
    assert [(int(e["x"]), int(e["y"]), int(e["p"]), int(e["t"])) for e in events] == EVENTS


def test_the_first_bytes_of_a_published_file_are_its_first_event(tmp_path):
    (tmp_path / "295.bs2").write_bytes(bytes.fromhex("15098004a5090f80065d"))
    assert read_events(tmp_path / "295.bs2").tolist() == [(21, 9, 1189, True), (9, 15, 1629, True)]


def test_a_clock_that_went_round_moves_the_events_after_it(tmp_path):
    content = event_bytes([(1, 2, 0, 8000), (0, 240, 0, 0), (3, 4, 1, 10), (0, 240, 0, 0), (5, 6, 1, 20)])
    (tmp_path / "1.bin").write_bytes(content)
    events = read_events(tmp_path / "1.bin")
    assert events["t"].tolist() == [8000, 8192 + 10, 2 * 8192 + 20]
    assert events["x"].tolist() == [1, 3, 5]


def test_a_file_cut_short_is_named(tmp_path):
    (tmp_path / "1.bin").write_bytes(event_bytes(EVENTS)[:-1])
    with pytest.raises(ValueError, match=r"1\.bin has 14 bytes, which is no multiple of 5 bytes per event"):
        read_events(tmp_path / "1.bin")


def test_events_become_spikes_in_order_of_time_then_unit():
    events = np.array([(1, 0, 2000, 0), (0, 1, 1000, 1), (1, 0, 1000, 0)], dtype=EVENT)
    spikes = spikes_from_events([events, events[:0]], (2, 3, 4), per_unit=1000.0)
    assert spikes.times.tolist() == [1.0, 1.0, 2.0]
    assert spikes.units.tolist() == [1, 12 + 4, 1]
    assert spikes.offsets.tolist() == [0, 3, 3]
    assert spikes.n_units == 24


def test_events_from_t_end_on_are_left_out():
    events = np.array([(0, 0, t, 0) for t in (999, 1000, 1001)], dtype=EVENT)
    assert spikes_from_events([events], (1, 1, 1), per_unit=1000.0, t_end=1.0).times.tolist() == [0.999]


def test_the_fields_of_tonic_may_come_in_any_order_and_type():
    events = np.array([(7, 1, 3, 2)], dtype=[("t", "<u4"), ("p", "<i4"), ("x", "<i8"), ("y", "<u2")])
    spikes = spikes_from_events([events], (2, 34, 34))
    assert (spikes.times.tolist(), spikes.units.tolist()) == ([7.0], [34 * 34 + 2 * 34 + 3])


@pytest.mark.parametrize("bad", [(34, 0, 0, 0), (0, 34, 0, 0), (-1, 0, 0, 0)])
def test_an_event_off_the_sensor_is_named(bad):
    events = np.array([(0, 0, 0, 0), bad], dtype=EVENT)
    with pytest.raises(ValueError, match=re.escape(f"event 1 is at x = {bad[0]}, y = {bad[1]}")):
        spikes_from_events([events], (2, 34, 34))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("x", 3.7, "give an integer"),
        ("y", np.nan, "give an integer"),
        ("p", np.inf, "give an integer"),
        ("x", 1e30, "give an integer"),
        ("t", np.nan, "times must be finite"),
        ("t", -np.inf, "times must be finite"),
    ],
)
@pytest.mark.parametrize("t_end", [None, 5.0])
def test_an_event_that_is_no_place_or_no_time_is_named(name, value, words, t_end):
    events = np.ones(3, dtype=[(each, "f8") for each in "xytp"])
    assert spikes_from_events([events], (2, 34, 34), t_end=t_end).n_spikes == 3
    bad = events.copy()
    bad[name][2] = value
    with pytest.raises(ValueError, match=re.escape(f"recordings[1]['{name}'][2] = {value}: {words}")):
        spikes_from_events([events, bad], (2, 34, 34), t_end=t_end)


def test_what_is_no_recording_is_named():
    with pytest.raises(ValueError, match=re.escape("recordings[0] has no fields x, y, t, p")):
        spikes_from_events([np.zeros((3, 4))], (2, 34, 34))
    with pytest.raises(ValueError, match=re.escape("shape has 2 numbers")):
        spikes_from_events([], (34, 34))


def test_a_set_without_recordings_is_an_empty_batch():
    assert spikes_from_events([], (2, 34, 34)).batch_size == 0


@pytest.mark.parametrize("name", ["N-MNIST", "NMNIST", "."])
def test_a_folder_per_class_is_read_in_order_of_class_and_name(tmp_path, rng, name):
    write_recordings(tmp_path / name, [3, 1, 3], True, rng)
    write_recordings(tmp_path / name, [7], False, rng)
    spikes, labels = load_nmnist(tmp_path, train=True)
    assert labels.tolist() == [1, 3, 3]
    assert spikes.n_units == 2312
    assert spikes.counts().sum(1).tolist() == [1500, 1500, 1500]
    assert bool((spikes.units[spikes.samples == 0] % 1156 // 34 < 7).all())  # rows 3 to 6 of class 1
    assert load_nmnist(tmp_path, train=False)[1].tolist() == [7]


def test_a_list_of_numbers_and_classes_names_the_files(tmp_path):
    (tmp_path / "train1K.txt").write_text("#sample\t#class\n2\t5\n1\t0\n")
    (tmp_path / "test100.txt").write_text("#sample\t#class\n60001\t7\n")
    for number, time in ((1, 1000), (2, 2000), (60001, 3000)):
        (tmp_path / f"{number}.bs2").write_bytes(event_bytes([(0, 0, 0, time)]))
    spikes, labels = load_nmnist(tmp_path, train=True)
    assert (labels.tolist(), spikes.times.tolist()) == ([5, 0], [2.0, 1.0])
    spikes, labels = load_nmnist(tmp_path, train=False)
    assert (labels.tolist(), spikes.times.tolist()) == ([7], [3.0])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 10", "line 1: write the number of a sample and its class"),
        ("one 1", "line 1"),
        ("7 1", "line 1 names 7.bs2"),
    ],
)
def test_a_list_that_is_wrong_is_named_with_its_line(tmp_path, line, words):
    (tmp_path / "train1K.txt").write_text(line)
    with pytest.raises((ValueError, MissingDataError), match=re.escape(words)):
        load_nmnist(tmp_path, train=True)


def test_a_recording_off_the_sensor_is_named_with_its_file(tmp_path):
    place = tmp_path / "Train" / "0"
    place.mkdir(parents=True)
    (place / "00001.bin").write_bytes(event_bytes([(40, 1, 0, 5)]))
    with pytest.raises(ValueError, match=r"00001\.bin: event 0 is at x = 40"):
        load_nmnist(tmp_path, train=True)


def test_missing_recordings_are_named_with_the_way_to_get_them(tmp_path):
    with pytest.raises(MissingDataError, match=r"neither the folders Test/0 to Test/9 .*garrickorchard"):
        load_nmnist(tmp_path, train=False)
