"""Files of one's own events: what is read, what is refused and how, how samples are divided, what is odd."""

import re

import numpy as np
import pytest
import torch

from fireprop.datasets import inspect_recordings, read_recordings, split_samples

SMALL = "time,unit,sample,label\n0.5,1,a,left\n0.25,0,a,left\n0.75,2,b,right\n"


def written(folder, text, name="events.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_csv_is_read_with_names_in_their_order_and_events_in_order_of_time(tmp_path):
    found = read_recordings(written(tmp_path, SMALL))
    assert (found.samples, found.class_names) == (("a", "b"), ("left", "right"))
    assert found.spikes.to_lists() == [[[0.25], [0.5], []], [[], [], [0.75]]]
    assert found.labels.tolist() == [0, 1]
    assert found.groups is None
    assert found.notes == ("1 events came before an earlier row of their sample: all were put in order of time",)
    spikes, label = found.dataset()[1]
    assert (spikes.times.tolist(), int(label)) == ([0.75], 1)


def test_labels_and_groups_are_numbered_by_value_and_samples_may_be_empty(tmp_path):
    text = "sample,label,group,unit,time\n7,10,x,0,1e-3\n\n7,,x,1,2.0\n3,9,y,,\n5,9,z,1.0,-1\n"
    found = read_recordings(written(tmp_path, "\ufeff" + text))
    assert found.samples == ("7", "3", "5")
    assert found.class_names == ("9", "10")  # as numbers, not as words
    assert found.labels.tolist() == [1, 0, 0]
    assert (found.groups.tolist(), found.group_names) == ([0, 1, 2], ("x", "y", "z"))
    assert found.spikes.to_lists() == [[[1e-3], [2.0]], [[], []], [[], [-1.0]]]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (("10", "--5", "9"), ("--5", "10", "9")),
        (("2", "-", "10"), ("-", "10", "2")),
        (("10", "-5", "9"), ("-5", "9", "10")),
        (("5", "005", "05", "4"), ("4", "005", "05", "5")),
    ],
)
def test_names_are_in_order_of_number_only_if_all_are_integers(tmp_path, names, ordered):
    rows = "".join(f"1,0,s{k},{name},{name}\n" for k, name in enumerate(names))
    found = read_recordings(written(tmp_path, "time,unit,sample,label,group\n" + rows))
    assert found.class_names == found.group_names == ordered
    assert [found.class_names[k] for k in found.labels] == list(names)


def test_labels_may_be_in_a_second_file_which_names_empty_samples_too(tmp_path):
    events = written(tmp_path, "time,unit,sample\n1,0,q\n2,1,p\n")
    labels = written(tmp_path, "label,sample\nb,p\na,q\na,r\n", "labels.csv")
    found = read_recordings(events, labels)
    assert (found.samples, found.labels.tolist()) == (("q", "p", "r"), [0, 1, 0])
    assert len(found.spikes[2].times) == 0
    assert read_recordings(events).labels is None
    with pytest.raises(ValueError, match="the file has no labels: add a column"):
        read_recordings(events).dataset()
    with pytest.raises(ValueError, match=re.escape("labels.csv: sample q has no label: give one for every sample")):
        read_recordings(events, written(tmp_path, "label,sample\nb,p\n", "labels.csv"))
    with pytest.raises(
        ValueError, match=re.escape("sample p has no label: give one for every sample; 'p.0' is a sample")
    ):
        read_recordings(events, written(tmp_path, "label,sample\nb,p.0\na,q\nc,r\n", "labels.csv"))
    with pytest.raises(ValueError, match="give them in one of the two files"):
        read_recordings(written(tmp_path, SMALL), labels)


def test_an_npz_gives_what_the_csv_of_the_same_events_gives(tmp_path):
    arrays = {"time": [0.5, 0.25, 0.75], "unit": [1, 0, 2], "sample": [0, 0, 1], "label": ["left", "right"]}
    np.savez(tmp_path / "events.npz", **arrays)
    a, b = read_recordings(tmp_path / "events.npz"), read_recordings(written(tmp_path, SMALL))
    for name in ("times", "units", "offsets"):
        assert torch.equal(getattr(a.spikes, name), getattr(b.spikes, name))
    assert (a.labels.tolist(), a.class_names, a.notes) == (b.labels.tolist(), b.class_names, b.notes)
    np.savez(tmp_path / "events.npz", **{**arrays, "label": np.array([4, 4, 2]), "group": np.array([1, 2, 2])})
    found = read_recordings(tmp_path / "events.npz")
    assert (found.samples, found.labels.tolist(), found.groups.tolist()) == (("0", "1", "2"), [1, 1, 0], [0, 1, 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int16])
def test_an_npz_may_number_samples_by_integers_of_any_kind(tmp_path, dtype):
    np.savez(tmp_path / "e.npz", time=[0.5, 1.0], unit=[0, 1], sample=np.array([0, 2], dtype))
    assert read_recordings(tmp_path / "e.npz").samples == ("0", "1", "2")


@pytest.mark.parametrize("names", [["label"], ["group"], ["label", "group"]])
def test_an_npz_with_labels_of_events_is_refused(tmp_path, names):
    path, sample = tmp_path / "e.npz", np.repeat(np.arange(100), 12)
    events = {"time": np.arange(1200.0), "unit": np.arange(1200) % 12, "sample": sample}
    np.savez(path, **events, **{name: sample % 2 for name in names})
    words = (
        f"{names[0]} has 1200 entries, one for each event, but the last sample is 99: give one {names[0]} per sample"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        read_recordings(path)
    # As many labels as events, of samples most of which have no events.
    np.savez(path, **events, **{name: np.arange(1200) % 2 for name in names})
    assert len(read_recordings(path)) == 1200


def test_an_npz_whose_integer_times_float64_would_merge_is_refused(tmp_path):
    np.savez(tmp_path / "e.npz", time=[1764633600000000000, 1764633600000000001], unit=[0, 1], sample=[0, 0])
    with pytest.raises(ValueError, match=re.escape("time[1] = 1764633600000000001: float64 rounds this integer")):
        read_recordings(tmp_path / "e.npz")


HEAD = "time,unit,sample,label\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty: write a first line such as time,unit,sample,label"),
        (HEAD, "has no events: write a row for each event"),
        (
            "0.5,1,a,left\n",
            "line 1: column time is missing, the columns are '0.5', '1', 'a', 'left': write a first line",
        ),
        ("time;unit;sample\n", "line 1: column time is missing, the columns are 'time;unit;sample'"),
        ("time,unit,sample,time\n", "line 1: column 'time' is there twice"),
        ("time,unit,sample,x\n", "line 1: column 'x' is unknown: leave only time, unit, sample, label, group"),
        (HEAD + "1,0,a,l\n2,0,a\n", "line 3 has 3 fields, but the header has 4"),
        (HEAD + "1,0,a,l\nsoon,0,a,l\n", "line 3: time = 'soon' is no number: write a number with a decimal point"),
        (HEAD + "\n1,0,a,l\nnan,0,a,l\n", "line 4: time = 'nan': times must be finite; remove the row"),
        (HEAD + "inf,0,a,l\n", "line 2: time = 'inf': times must be finite"),
        (
            HEAD + "1764633600000000000,0,a,l\n1764633600000000001,0,a,l\n",
            "line 3: time = '1764633600000000001': float64 rounds this integer; subtract the earliest time of the file",
        ),
        (HEAD + "1,-1,a,l\n", "line 2: unit = '-1': units are integers from 0"),
        (HEAD + "1,0.5,a,l\n", "line 2: unit = '0.5': units are integers from 0"),
        (HEAD + "1,one,a,l\n", "line 2: unit = 'one' is no number: units are integers from 0"),
        (HEAD + "1,0,a,l\n1_000,0,a,l\n", "line 3: time = '1_000' is no number: write a number"),
        (HEAD + "1,1_0,a,l\n", "line 2: unit = '1_0' is no number: units are integers from 0"),
        (HEAD + "1,99999999999,a,l\n", "line 2: unit = '99999999999': units are integers from 0 to 2147483647"),
        (HEAD + "1,,a,l\n", "line 2: unit is empty: give time and unit, or leave both empty for a sample without"),
        (HEAD + "1,0,,l\n", "line 2: sample is empty"),
        (HEAD + "1,0,a,l\n1,0,b,\n", "sample b has no label: give one for every sample"),
        (HEAD + "1,0,a,l\n1,0,a,r\n", "line 3: label = 'r', but sample a has the label 'l' in line 2"),
        (HEAD.encode() + b"1,0,\xff,l\n", "is no UTF-8 text"),
        (HEAD + '1,0,"a,l\n', "the file is no valid CSV"),
    ],
)
def test_what_is_wrong_in_a_csv_is_named_with_its_line_and_its_remedy(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        read_recordings(path)
    assert str(path) in str(caught.value)


ARRAYS = {"time": [0.5, 1.0], "unit": [0, 1], "sample": [0, 1], "label": [0, 1]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time": [0.5, np.nan]}, "time[1] = nan: times must be finite"),
        ({"unit": [0, -2]}, "unit[1] = -2: units are integers from 0"),
        ({"unit": [0.5, 1.0]}, "unit holds float64: give integers"),
        ({"sample": [-1, 1]}, "sample[0] = -1: samples are numbered from 0"),
        ({"sample": [0, 2]}, "sample[1] = 2, but there are 2 labels: give one for every sample"),
        (
            {"sample": [0, 2], "label": None, "group": [0, 1]},
            "sample[1] = 2, but there are 2 groups: give one for every",
        ),
        (
            {"sample": [10**9, 0], "label": None},
            "sample[0] = 1000000000, but there are 2 events: number samples from 0",
        ),
        ({"sample": np.array([0, 2**64 - 1], np.uint64), "label": None}, "sample[1] = 18446744073709551615, but"),
        ({"group": [0, 1, 2]}, "label has 2 entries, group 3: give one of each for every sample"),
        ({"unit": [0]}, "unit has shape (1,), time has (2,)"),
        ({"x": [0]}, "array 'x' is unknown: leave only time, unit, sample, label, group"),
        ({"label": ["a", ""]}, "sample 1 has no label"),
        ({"time": None}, "array time is missing, the arrays are unit, sample, label"),
        ({"label": np.array([0, None])}, "is no NPZ file of numbers and words"),
        ({"time": [], "unit": np.zeros(0, int), "sample": np.zeros(0, int)}, "has no events"),
    ],
)
def test_what_is_wrong_in_an_npz_is_named_with_its_index_and_its_remedy(tmp_path, changes, words):
    np.savez(tmp_path / "e.npz", **{name: array for name, array in (ARRAYS | changes).items() if array is not None})
    with pytest.raises(ValueError, match=re.escape(words)):
        read_recordings(tmp_path / "e.npz")


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape("ends in .txt: give a file of events that ends in .csv or .npz")):
        read_recordings(tmp_path / "events.txt")
    with pytest.raises(ValueError, match=r"cannot read .*no\.csv: No such file"):
        read_recordings(tmp_path / "no.csv")
    with pytest.raises(ValueError, match="is no NPZ file"):
        read_recordings(written(tmp_path, b"PK\x03\x04 half", "half.npz"))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ValueError, match="holds one array"):
        read_recordings(tmp_path / "one.npz")


# --- splits ---


def test_parts_share_nothing_leave_nothing_and_have_all_classes_alike():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    parts = split_samples(labels, validation=0.1, test=0.2, seed=1)
    assert sorted(torch.cat(parts).tolist()) == list(range(100))
    assert [len(part) for part in parts] == [70, 10, 20]
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        counts = labels[part].bincount(minlength=3)
        assert (counts - share * labels.bincount()).abs().max() <= 1.0
        assert torch.equal(part, part.sort().values)
    assert not torch.equal(split_samples(labels, seed=2).test, split_samples(labels, seed=3).test)
    assert torch.equal(split_samples(labels, seed=2).test, split_samples(labels, seed=2).test)
    assert [len(part) for part in split_samples(labels, validation=0.0, test=0.3)] == [70, 0, 30]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_parts(seed):
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randint(8, (200,), generator=generator)
    parts = split_samples(torch.zeros(200, dtype=torch.int64), validation=0.2, test=0.2, seed=seed, groups=groups)
    owners = [set(groups[part].tolist()) for part in parts]
    assert owners[0] | owners[1] | owners[2] == set(groups.tolist())
    assert sum(map(len, owners)) == len(set(groups.tolist()))
    assert all(len(part) >= 20 for part in parts)


def test_splits_that_cannot_be_are_refused():
    labels = torch.arange(6) % 2
    with pytest.raises(ValueError, match=re.escape("validation + test = 1: give shares that leave some samples")):
        split_samples(labels, validation=0.5, test=0.5)
    with pytest.raises(ValueError, match=re.escape("test = 0.01: that is 0 of 6 samples")):
        split_samples(labels, test=0.01)
    with pytest.raises(
        ValueError, match=re.escape("groups: 2 of them cannot make 3 parts: give more groups, or leave")
    ):
        split_samples(labels, groups=torch.arange(6) // 3)
    with pytest.raises(ValueError, match=re.escape("test = 1.0: give a share below 1")):
        split_samples(labels, test=1.0)
    assert [len(part) for part in split_samples(labels, validation=0.0, groups=torch.arange(6) // 3)] == [3, 0, 3]


# --- inspection ---


def faults(folder, text, **options):
    return [fault.what for fault in inspect_recordings(read_recordings(written(folder, text)), **options).faults]


def good(n=12, scale=1.0):
    rows = [f"{scale * (0.1 * u + 0.01 * s)},{u},s{s},{s % 2}" for s in range(n) for u in range(4)]
    return HEAD + "\n".join(rows) + "\n"


def test_a_sound_file_has_numbers_and_no_fault(tmp_path):
    found = inspect_recordings(read_recordings(written(tmp_path, good())), tau_mem=0.1)
    assert found.faults == found.notes == ()
    assert (found.samples, found.units, found.events, found.classes) == (12, 4, 48, {"0": 6, "1": 6})
    assert (found.events_per_sample, found.events_per_unit) == ((4, 4.0, 4), (12, 12.0, 12))
    assert (found.t_first, found.t_last, found.gap) == (0.0, pytest.approx(0.41), None)
    assert found.duration == pytest.approx(0.3)


def test_what_is_odd_is_found(tmp_path):
    text = good()
    assert faults(tmp_path, text + ",,s99,1\n") == ["1 sample without events: s99"]
    assert faults(tmp_path, text + "0.1,7,s0,0\n") == ["3 of 8 units never fire: 4, 5, 6"]
    assert faults(tmp_path, text + "0.1,70000,s0,0\n")[1:] == [
        "unit 70,000 is far beyond the others, of which unit 3 is the last"
    ]
    assert faults(tmp_path, text + "0.0,0,s0,0\n") == [
        "1 event twice at one time in one unit, first in sample s0, unit 0, time 0"
    ]
    moved = "".join(f"{10 * s + 0.1 * u},{u},s{s},{s % 2}\n" for s in range(12) for u in range(4))
    assert faults(tmp_path, HEAD + moved) == ["samples begin between 0 and 110, but the median lasts 0.3"]
    moved = "".join(f"{1e9 + 0.1 * u},{u},s{s},{s % 2}\n" for s in range(12) for u in range(4))
    assert faults(tmp_path, HEAD + moved) == ["samples begin near 1000000000, but the median lasts 0.3"]
    moved = "".join(f"{0.1 * u - 0.5},{u},s{s},{s % 2}\n" for s in range(12) for u in range(4))
    assert faults(tmp_path, HEAD + moved) == []
    assert faults(tmp_path, text + "9,0,s0,0\n") == ["the longest sample lasts 9, the median 0.3"]
    many = "".join(f"{0.1 * u},{u},t{k},0\n" for k in range(40) for u in range(4))
    assert faults(tmp_path, text + many) == ["class 0 has 46 samples, 1 has 6"]
    assert faults(tmp_path, "time,unit,sample\n1,0,a\n2,0,a\n") == ["no labels"]
    assert faults(tmp_path, HEAD + "1,0,a,l\n2,0,a,l\n")[0] == "one class only: l"
    assert faults(tmp_path, HEAD + "1,0,a,l\n1,1,b,r\n") == ["all events of a sample are at one time"]
    assert "all events of a sample are at one time" not in faults(tmp_path, HEAD + "1,0,a,l\n2,1,b,r\n")
    assert faults(tmp_path, HEAD + "1,0,a,l\n1,1,a,l\n2,1,b,r\n") == [
        "all events of a sample are at one time, which differs between samples"
    ]
    grouped = "time,unit,sample,label,group\n1,0,a,l,x\n2,1,a,l,x\n1,0,b,r,x\n2,1,b,r,x\n1,0,c,r,y\n2,1,c,r,y\n"
    assert faults(tmp_path, grouped) == ["class l is in group x only"]


def test_a_time_constant_fits_long_samples_whose_events_come_close_together(tmp_path):
    rows = "".join(f"{t},{t % 4},s{s},{s % 2}\n" for s in range(8) for t in range(3000))
    recordings = read_recordings(written(tmp_path, HEAD + rows))
    assert not any("tau_mem" in fault.what for fault in inspect_recordings(recordings, tau_mem=1.0).faults)
    (fault,) = inspect_recordings(recordings, tau_mem=0.05).faults
    assert fault.what == "tau_mem = 0.05, but the median sample lasts 2999: a unit forgets events at once"


@pytest.mark.parametrize(
    ("scale", "tau_mem", "remedy"),
    [
        (1.0, 20.0, "such as tau_mem = 0.02 (a factor of 1000, as between ms and s)"),
        (1e3, 0.02, "such as tau_mem = 20 (a factor of 1000, as between ms and s)"),
        (1e6, 0.02, "such as tau_mem = 20000 (a factor of 1e+06, as between us and s)"),
        (1e3, 20.0, None),
        (250.0, 0.02, "such as tau_mem = 20 (a factor of 1000, as between ms and s)"),  # 75 ms
        (250.0, 0.2, None),
    ],
)
def test_a_time_constant_in_another_unit_of_time_is_told(tmp_path, scale, tau_mem, remedy):
    found = inspect_recordings(read_recordings(written(tmp_path, good(scale=scale))), tau_mem=tau_mem)
    if remedy is None:
        assert found.faults == ()
        return
    (fault,) = found.faults
    assert fault.what.startswith(f"tau_mem = {tau_mem:g}, but the median sample lasts {0.3 * scale:g}: a unit forgets")
    assert fault.remedy.endswith(remedy)


def test_a_short_time_constant_is_not_odd_where_events_come_in_bursts(tmp_path):
    def of(times):
        rows = [f"{time + 0.01 * s},{u % 2},s{s},{s % 2}" for s in range(6) for u, time in enumerate(times)]
        found = inspect_recordings(read_recordings(written(tmp_path, HEAD + "\n".join(rows) + "\n")), tau_mem=0.02)
        return [fault.what for fault in found.faults]

    (fault,) = of([0.0, 25.0, 50.0, 75.0])
    assert fault == "tau_mem = 0.02, but the median sample lasts 75: a unit forgets events at once"
    assert of([0.0, 0.02, 0.04, 0.06, 75.0, 75.02, 75.04, 75.06]) == []
