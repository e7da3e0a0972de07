"""Pictures: that the artists hold the data, that the edge cases draw, and that nothing falls off the page."""

import doctest
import importlib
import itertools
import re
import subprocess
import sys
from pkgutil import iter_modules

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from colours import distances
from fireprop import plotting
from fireprop.datasets import yin_yang, yin_yang_class
from fireprop.nn import LI, LIF, Network, Record, Sequential
from fireprop.plotting import (
    CLASS_COLORS,
    UNDECIDED_COLOR,
    accuracy_against_spikes,
    decision_map,
    first_spike_histograms,
    learning_curves,
    maps,
    raster_and_traces,
    validity,
)
from fireprop.spikes import Spikes
from fireprop.validity import validity_report

INF = float("inf")


@pytest.fixture(autouse=True)
def quick_boundaries(monkeypatch):
    """True classes looked up on a coarse grid: most of the time of a map goes into them."""
    monkeypatch.setattr(maps, "BOUNDARY_RESOLUTION", 200)


def drawn(figure):
    """The figure, after it was drawn without a warning and with all of it inside its borders."""
    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    inches = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    # a hundredth of an inch: antialiasing and rounding to pixels
    assert inches.x0 > -0.01
    assert inches.y0 > -0.01
    assert inches.x1 < width + 0.01
    assert inches.y1 < height + 0.01
    return figure


def legend_texts(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def notes(ax):
    return [text.get_text() for text in ax.texts]


# ----------------------------------------------------------------------------------------------------------- the room


@pytest.mark.slow
def test_fireprop_loads_no_plotting_and_plotting_no_pyplot():
    code = """
import sys, fireprop
assert not [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]
import matplotlib
settings = lambda: {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
import fireprop.plotting
fireprop.plotting.learning_curves([{"epoch": 1}])
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_examples_in_the_docstrings_run():
    rooms = [importlib.import_module(f"fireprop.plotting.{room.name}") for room in iter_modules(plotting.__path__)]
    results = [doctest.testmod(room) for room in rooms]
    assert sum(result.attempted for result in results) > 8
    assert not any(result.failed for result in results)


def test_class_colours_differ_in_lightness_or_hue_for_everyone():
    srgb = np.array([to_rgb(color) for color in (*CLASS_COLORS, UNDECIDED_COLOR)])
    for apart in distances(srgb):
        assert apart[~np.eye(len(srgb), dtype=bool)].min() > 19.0
        assert apart[:3, :3][~np.eye(3, dtype=bool)].min() > 30.0


def with_dollars():
    """Pictures of all kinds that draw names of a user; `$\\nothing$` is no formula that matplotlib knows."""
    names = [r"5$ to 9$", r"$\nothing$"]
    net = Network(2)
    net.add("a$b$", 3, tau_mem=1.0)
    net.add("c$d$", 2, tau_mem=1.0)
    net.connect("input", "a$b$", tau_syn=0.5, weight=torch.full((3, 2), 4.0))
    net.connect("a$b$", "c$d$", tau_syn=0.5, weight=torch.full((2, 3), 4.0))
    inputs = Spikes.from_latencies([[0.1, 0.4], [0.3, 0.2]])
    record = net.record(inputs, t_end=3.0)
    readout = Sequential(LIF(2, 3, tau_mem=1.0, tau_syn=0.5), LI(3, 2, tau_mem=1.0, tau_syn=0.5))
    yield raster_and_traces(inputs, record, class_names=names)
    yield raster_and_traces(inputs, readout.record(inputs, t_end=3.0), class_names=names)
    yield first_spike_histograms(record[-1], [0, 1], class_names=names)
    yield plotting.sample_rasters(inputs, labels=[0, 1], class_names=names, sample_names=names)
    yield accuracy_against_spikes([30.0, 45.0], [0.91, 0.96], names=names)
    yield decision_map(lambda x: (x[:, 0] > 0.5).long(), torch.rand(4, 4), [0, 1, 0, 1], class_names=names)
    yield validity(validity_report(net, inputs, t_end=3.0))


def test_dollar_signs_in_names_are_drawn_and_make_no_formula():
    for figure in with_dollars():
        texts = [text.get_text() for text in drawn(figure).findobj(Text)]
        assert any("$" in text for text in texts)
        # The powers of ten at a logarithmic axis are formulas of matplotlib's own.
        assert not [text for text in texts if is_math_text(text) and "mathdefault" not in text]


# ----------------------------------------------------------------------------------------------------- learning curves


def epoch(number, **changes):
    row = {
        "epoch": number,
        "train_loss": 1.0 / number,
        "validation_loss": 1.1 / number,
        "train_accuracy": 1.0 - 0.5 / number,
        "validation_accuracy": 1.0 - 0.6 / number,
        "spikes_per_unit": 0.5,
        "silent_units": 3,
        "silent_labels": 0.01,
        "silent_outputs": 0,
    }
    return row | changes


LATER_COLUMNS = ("silent_labels", "silent_outputs")


def curves(ax):
    """Curves of a panel as lists of (epoch, value), without the marks of the best epoch."""
    return [
        list(zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True))
        for line in ax.lines
        if line.get_linestyle() == "-"
    ]


def best_epochs(figure):
    """Where the rings and the vertical lines of the best epoch are: one set for all panels."""
    return {
        float(np.ravel(line.get_xdata())[0]) for ax in figure.axes for line in ax.lines if line.get_linestyle() == ":"
    }


def test_curves_hold_the_metrics_and_mark_the_best_epoch():
    rows = [epoch(1), epoch(2), epoch(3, validation_accuracy=0.75)]
    figure = drawn(learning_curves(rows))
    loss, accuracy, spikes, silent, labels, outputs = figure.axes
    assert curves(loss) == [[(1, 1.0), (2, 0.5), (3, 1 / 3)], [(1, 1.1), (2, 0.55), (3, 1.1 / 3)]]
    assert curves(accuracy)[1] == [(1, 0.4), (2, 0.7), (3, 0.75)]
    assert curves(spikes) == [[(1, 0.5), (2, 0.5), (3, 0.5)]]
    assert curves(silent) == [[(1, 3), (2, 3), (3, 3)]]
    assert curves(labels) == [[(1, 0.01), (2, 0.01), (3, 0.01)]]
    assert curves(outputs) == [[(1, 0), (2, 0), (3, 0)]]
    assert best_epochs(figure) == {3.0}
    assert legend_texts(figure) == ["training", "validation", "weights kept: epoch 3, best validation (75.0%)"]


def test_best_of_equal_accuracies_has_the_lowest_loss_then_is_the_latest():
    rows = [epoch(k, validation_accuracy=0.9, validation_loss=loss) for k, loss in enumerate([0.3, 0.2, 0.2, 0.4], 1)]
    assert best_epochs(learning_curves(rows)) == {3.0}
    del rows[1]["validation_loss"]
    rows[2]["validation_loss"] = None
    assert best_epochs(learning_curves(rows)) == {1.0}


def test_one_epoch_is_a_dot():
    figure = drawn(learning_curves([epoch(1, silent_units=0)]))
    assert [len(curve) for ax in figure.axes for curve in curves(ax)] == [1] * 8
    assert all(line.get_marker() == "o" for ax in figure.axes for line in ax.lines if line.get_linestyle() == "-")


@pytest.mark.parametrize("nothing", [None, float("nan"), "", "absent"])
def test_without_validation_there_is_no_best_epoch(nothing):
    rows = [epoch(k, validation_loss=nothing, validation_accuracy=nothing) for k in (1, 2)]
    if nothing == "absent":
        rows = [{name: row[name] for name in row if not name.startswith("validation")} for row in rows]
    figure = drawn(learning_curves(rows))
    assert best_epochs(figure) == set()
    assert legend_texts(figure) == ["training"]
    assert [len(curves(ax)) for ax in figure.axes] == [1] * 6


def test_validation_of_some_epochs_only_is_drawn_at_those():
    figure = drawn(learning_curves([epoch(1), epoch(2, validation_loss=None, validation_accuracy=None), epoch(3)]))
    assert [point[0] for point in curves(figure.axes[0])[1]] == [1.0, 3.0]
    assert best_epochs(figure) == {3.0}


def test_numbers_may_be_the_texts_of_a_csv_file():
    rows = [{name: str(value) for name, value in epoch(k).items()} for k in (1, 2)]
    assert curves(learning_curves(rows).axes[0])[0] == [(1, 1.0), (2, 0.5)]


def test_what_was_not_recorded_says_so():
    figure = drawn(learning_curves([{"epoch": 1, "train_loss": 0.5}]))
    assert [notes(ax) for ax in figure.axes] == [[], *[["not recorded"]] * 5]


def test_hidden_and_output_silence_have_words_of_their_own():
    _, _, _, hidden, labels, outputs = learning_curves([epoch(1)]).axes
    assert (hidden.get_ylabel(), hidden.get_title()) == (
        "silent hidden units",
        "they have no gradient and cannot learn",
    )
    assert (outputs.get_ylabel(), outputs.get_title()) == ("silent output units", "their classes are never predicted")
    assert labels.get_title() == "own output silent: no gradient without patience"


@pytest.mark.parametrize(("last", "scale"), [(0.9, "linear"), (0.0, "linear"), (5.0, "log")])
def test_loss_that_spans_a_factor_of_ten_has_a_logarithmic_axis(last, scale):
    rows = [{"epoch": 1, "train_loss": 0.27}, {"epoch": 2, "train_loss": last}]
    assert drawn(learning_curves(rows)).axes[0].get_yscale() == scale


def test_row_of_an_older_run_folder_still_draws():
    rows = [{name: value for name, value in epoch(k).items() if name not in LATER_COLUMNS} for k in (1, 2)]
    figure = drawn(learning_curves(rows))
    assert [notes(ax) for ax in figure.axes] == [[], [], [], [], ["not recorded"], ["not recorded"]]


def test_metrics_must_have_rows_and_epochs():
    with pytest.raises(ValueError, match="metrics is empty"):
        learning_curves([])
    with pytest.raises(ValueError, match=re.escape("metrics[1] has no epoch")):
        learning_curves([epoch(1), {"train_loss": 0.1}])


# -------------------------------------------------------------------------------------------------------- decision map


def left_or_right(features):
    """Two classes, left and right of x = 1/2."""
    return (features[:, 0] > 0.5).long()


def pixels(figure):
    (image,) = figure.axes[0].images
    return image.get_array()


def test_points_are_in_their_places_and_colours_with_mistakes_ringed():
    features, labels = yin_yang(60, seed=3)
    figure = drawn(decision_map(left_or_right, features, labels, resolution=20))
    *groups, rings = figure.axes[0].collections[-4:]
    for k, group in enumerate(groups):
        assert group.get_offsets().tolist() == features[labels == k, :2].tolist()
        assert to_hex(group.get_facecolor()[0]).upper() == CLASS_COLORS[k]
    wrong = left_or_right(features) != labels
    assert 0 < wrong.sum() < 60
    assert rings.get_offsets().tolist() == features[wrong, :2].tolist()
    assert f"mistakes ({wrong.sum()})" in legend_texts(figure)
    assert figure.axes[0].get_title() == f"{60 - wrong.sum()} of 60 points right ({1 - wrong.double().mean():.1%})"
    assert figure.axes[0].get_aspect() == 1.0


def test_ground_shows_the_classes_inside_the_disc_and_nothing_outside():
    image = pixels(decision_map(left_or_right, *yin_yang(5, seed=0), resolution=40))
    centres = (np.arange(40) + 0.5) / 40
    distance = np.hypot(centres[None] - 0.5, centres[:, None] - 0.5)
    alpha = image[..., 3]
    assert (alpha[distance <= 0.5] == 1.0).all()
    assert (alpha[distance > 0.5 + 1 / 40] == 0.0).all()
    assert len(np.unique(image[20, :20, :3][alpha[20, :20] == 1.0], axis=0)) == 1
    assert (image[20, 10] != image[20, 30]).any()


def test_class_colours_of_the_ground_do_not_depend_on_which_classes_are_there():
    points = yin_yang(5, seed=0)
    both = pixels(decision_map(left_or_right, *points, resolution=10))
    only = pixels(decision_map(lambda features: torch.ones(len(features), dtype=torch.int64), *points, resolution=10))
    assert only[5, 2].tolist() == both[5, 8].tolist()


def test_network_is_asked_about_features_of_the_disc_only():
    asked = []

    def classify(features):
        asked.append(features)
        return left_or_right(features)

    features, labels = yin_yang(5, seed=0)
    decision_map(classify, features, labels, resolution=30)
    everything = torch.cat(asked)
    assert torch.cat(asked)[:5].equal(features)
    assert everything.dtype == torch.float64
    assert bool(((everything >= 0.0) & (everything <= 1.0)).all())
    torch.testing.assert_close(everything[:, :2] + everything[:, 2:], torch.ones(len(everything), 2).double())
    # 2 ulp of 1: the rim is reached by a product and a sum
    assert torch.hypot(*(everything[:, :2] - 0.5).T).max() <= 0.5 + 2.0**-51


def test_undecided_points_are_grey_and_mistakes():
    features, labels = yin_yang(8, seed=0)
    figure = drawn(decision_map(lambda x: torch.full((len(x),), -1), features, labels, resolution=10))
    assert legend_texts(figure).count("undecided") == 1
    assert "mistakes (8)" in legend_texts(figure)
    assert pixels(figure)[5, 5, :3].tolist() == pytest.approx(to_rgb(UNDECIDED_COLOR))


def test_boundaries_are_those_of_class_of():
    def halves(points):
        inside = torch.hypot(points[:, 0] - 0.5, points[:, 1] - 0.5) <= 0.5
        return torch.where(inside, (points[:, 0] > 0.3).long(), -1)

    figure = decision_map(left_or_right, *yin_yang(5, seed=0), class_of=halves, resolution=10)
    line = figure.axes[0].collections[0].get_paths()[0].vertices
    # a pixel of the grid on which the true classes are looked up
    assert np.abs(line[:, 0] - 0.3).max() < 1 / maps.BOUNDARY_RESOLUTION
    assert np.ptp(line[:, 1]) == pytest.approx(2 * np.sqrt(0.25 - 0.04), abs=0.01)


def test_default_boundaries_are_the_yin_yang():
    def true_class(features):
        return yin_yang_class(features[:, :2])

    figure = drawn(decision_map(true_class, *yin_yang(30, seed=0), class_names=["yin", "yang", "dot"], resolution=30))
    assert legend_texts(figure) == ["yin", "yang", "dot", "mistakes (0)", "true boundary"]
    lines = [path.vertices for group in figure.axes[0].collections[:2] for path in group.get_paths()]
    vertices = np.concatenate(lines)
    step = 2.0 / maps.BOUNDARY_RESOLUTION
    around = [vertices + step * np.array(move) for move in ([1, 0], [-1, 0], [0, 1], [0, -1])]
    classes = torch.stack([yin_yang_class(points) for points in around])
    assert bool((classes.amax(0) > classes.amin(0)).all())


def test_map_without_points_has_no_title():
    figure = drawn(decision_map(left_or_right, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), resolution=2))
    assert figure.axes[0].get_title() == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 1}, "resolution = 1: give at least 2 pixels"),
        ({"features": torch.zeros(2, 3)}, "features has shape (2, 3): give (n, 4)"),
        ({"labels": [0]}, "labels has shape (1,): give (2,), one class per sample"),
        ({"labels": [0, -1]}, "labels[1] = -1: give a class >= 0"),
        ({"labels": [0.0, 1.0]}, "labels is torch.float64: give integers"),
        ({"classify": lambda x: torch.zeros(3)}, "classify(features) is torch.float32: give integers"),
        ({"classify": lambda x: torch.zeros(3, dtype=torch.int64)}, "classify returned shape (3,) for 2 points"),
        ({"class_names": ["yin"]}, "class_names has 1 names: give one per class, 2"),
    ],
)
def test_map_refuses(changes, message):
    arguments = {"classify": left_or_right, "features": torch.full((2, 4), 0.5), "labels": [0, 1]} | changes
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        decision_map(
            arguments.pop("classify"),
            arguments.pop("features"),
            arguments.pop("labels"),
            **{"resolution": 4} | arguments,
        )


# --------------------------------------------------------------------------------------------------- raster and traces


def chain(*widths, t_ref=0.0, thresholds=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for k, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        theta = 1.0 if thresholds is None else thresholds[k]
        layer = LIF(n_in, n_out, tau_mem=1.0, tau_syn=0.5, t_ref=t_ref, v_threshold=theta, dtype=torch.float64)
        layer.reset_parameters(gain=6.0, window=1.0, generator=generator)
        layers.append(layer)
    return Sequential(*layers)


def random_inputs(rng, batch, units):
    return Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.5, (batch, units))))


def marks(ax):
    """(time, unit) of all marks in a raster, in order."""
    pairs = [
        pair
        for line in ax.lines
        if line.get_marker() == "|"
        for pair in zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True)
    ]
    return sorted(pairs)


def pairs(spikes, sample):
    one = spikes[sample]
    return sorted(zip(one.times.tolist(), one.units.tolist(), strict=True))


def traces(figure):
    """{label: (times, potentials, marked spikes, threshold)} of the panels with potentials."""
    found = {}
    for ax in figure.axes:
        if ax.get_ylabel() == "V":
            threshold, trace, spikes = ax.lines[:3]
            found[notes(ax)[0]] = (
                trace.get_xdata(),
                trace.get_ydata(),
                spikes.get_xdata().tolist(),
                threshold.get_ydata()[0],
            )
    return found


def test_rasters_mark_every_spike(rng):
    net, inputs = chain(4, 6, 2), random_inputs(rng, 3, 4)
    record = net.record(inputs, t_end=3.0)
    figure = drawn(raster_and_traces(inputs, record, sample=1))
    for ax, spikes in zip(figure.axes, [inputs, *record], strict=False):
        assert marks(ax) == pairs(spikes, 1)
    assert record[0][1].n_spikes > 6
    assert figure.axes[0].get_title() == "sample 1"


def test_output_marks_and_traces_have_the_colours_of_their_classes(rng):
    inputs = random_inputs(rng, 1, 4)
    figure = raster_and_traces(inputs, chain(4, 6, 2).record(inputs, t_end=3.0), class_names=["no", "yes"])
    for line in (line for line in figure.axes[2].lines if line.get_marker() == "|"):
        assert {line.get_color()} == {CLASS_COLORS[int(unit)] for unit in line.get_ydata()}
    for unit in (0, 1):
        ax = figure.axes[-2 + unit]
        assert notes(ax) == [f"output\nunit {unit} ({['no', 'yes'][unit]})"]
        assert ax.lines[1].get_color() == CLASS_COLORS[unit]


@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("t_ref", [0.0, 0.2])
@pytest.mark.parametrize("origin", [0.0, 2.0**20])
def test_traces_reach_the_threshold_at_spikes_only_and_fall_vertically_to_zero(rng, stop, t_ref, origin):
    net = chain(4, 6, 3, t_ref=t_ref, thresholds=[torch.linspace(0.5, 1.5, 6), 0.8])
    inputs = random_inputs(rng, 2, 4).shift(origin)
    record = net.record(inputs, t_end=origin + 3.0, stop=stop)
    figure = raster_and_traces(inputs, record, units=[(0, unit) for unit in range(6)] + [(1, 0), (-1, 2)])
    t_known = float(record[-1].t_known[0])
    found = traces(figure)
    assert len(found) == 8
    for label, (times, potentials, spikes, theta) in found.items():
        layer, unit = int("output" in label), int(label.split()[-1])
        assert theta == pytest.approx(float(net[layer].v_threshold.expand(6 if layer == 0 else 3)[unit]), abs=0.0)
        assert spikes == [t for t, u in pairs(record[layer], 0) if u == unit]
        assert np.isfinite(times).all()
        assert np.isfinite(potentials).all()
        assert (np.diff(times) >= 0.0).all()
        assert times[-1] == t_known
        # V moves by rise * ulp(t) while t moves by its last bit; rises here are below 100
        rounding = 1e-13 + 100.0 * np.spacing(origin)
        assert potentials.max() <= theta + rounding
        for f in spikes:
            before, after = np.flatnonzero(times == f)
            assert after == before + 1
            assert potentials[before] == pytest.approx(theta, abs=rounding)
            assert potentials[after] == 0.0
            held = (times > f) & (times <= f + t_ref)
            assert (potentials[held] == 0.0).all()
        # between spikes nothing falls to 0 at once
        assert (np.diff(times) == 0.0).sum() == len(spikes)
    assert sum(len(spikes) for _, _, spikes, _ in found.values()) > 4


def test_early_stop_is_marked_and_later_inputs_are_faint():
    layer = LIF(3, 1, tau_mem=1.0, tau_syn=0.5)
    torch.nn.init.constant_(layer.weight, 8.0)
    inputs = Spikes.from_latencies([[0.1, 1.9, 2.1]])
    record = layer.record(inputs, t_end=2.0, stop="first_spikes")
    t_known = float(record[-1].t_known[0])
    assert 0.1 < t_known < 1.0
    figure = drawn(raster_and_traces(inputs, record))
    assert marks(figure.axes[0]) == [(0.1, 0), (1.9, 1)]  # there is no input at or after t_end
    assert [line.get_color() for line in figure.axes[0].lines if line.get_marker() == "|"][1] == plotting.FAINT
    for ax in figure.axes:
        places = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() in (":", "-")]
        assert t_known in places
        assert 2.0 in places
    assert legend_texts(figure) == ["spike", "threshold", f"stopped at t_known = {t_known:.3f}", "t_end = 2"]


def test_far_horizon_after_an_early_stop_is_named_but_not_shown(rng):
    inputs = random_inputs(rng, 1, 4)
    record = chain(4, 6, 2).record(inputs, t_end=500.0, stop="first_spikes")
    figure = drawn(raster_and_traces(inputs, record))
    assert figure.axes[0].get_xlim()[1] < 2.5
    assert legend_texts(figure)[-1] == "t_end = 500, not shown"


def test_whole_run_shows_t_end_and_no_stop(rng):
    inputs = random_inputs(rng, 1, 4)
    figure = raster_and_traces(inputs, chain(4, 6, 2).record(inputs, t_end=500.0))
    low, high = figure.axes[0].get_xlim()
    assert low < 0.0 < 500.0 < high
    assert legend_texts(figure)[-1] == "t_end = 500"


def test_silent_sample_draws_flat_traces_and_says_so():
    inputs = Spikes.from_lists([[[], []], [[0.5], []]])
    record = chain(2, 4, 2).record(inputs, t_end=2.0)
    figure = drawn(raster_and_traces(inputs, record))
    assert [notes(ax)[0] for ax in figure.axes[:3]] == ["no spikes"] * 3
    found = traces(figure)
    assert list(found) == [f"hidden\nunit {unit}" for unit in range(3)] + ["output\nunit 0", "output\nunit 1"]
    for times, potentials, spikes, _ in found.values():
        assert (times[0], times[-1]) == (0.0, 2.0)
        assert not potentials.any()
        assert spikes == []


def test_silent_sample_before_time_zero_draws():
    inputs = Spikes.from_lists([[[], []]])
    times, *_ = traces(drawn(raster_and_traces(inputs, chain(2, 2).record(inputs, t_end=-3.0))))["output\nunit 0"]
    assert times[-1] == -3.0


def test_hidden_units_are_the_first_middle_and_last_to_begin():
    layer = LIF(5, 5, tau_mem=1.0, tau_syn=0.5)
    with torch.no_grad():
        layer.weight.copy_(8.0 * torch.eye(5))
    net = Sequential(layer, LIF(5, 1, tau_mem=1.0, tau_syn=0.5))
    inputs = Spikes.from_latencies([[0.3, INF, 0.1, 0.5, INF]])
    figure = raster_and_traces(inputs, net.record(inputs, t_end=2.0))
    assert list(traces(figure))[:3] == ["hidden\nunit 2", "hidden\nunit 0", "hidden\nunit 3"]


def test_deep_and_wide_networks_draw(rng):
    inputs = random_inputs(rng, 1, 4)
    record = chain(4, 120, 7, 12).record(inputs, t_end=1.6)
    figure = drawn(raster_and_traces(inputs, record, class_names=[f"number {k}" for k in range(12)]))
    labels = [notes(ax)[0] for ax in figure.axes]
    assert labels[:4] == ["input", "hidden 0", "hidden 1", "output"]
    assert [label.partition("\n")[0] for label in labels[4:]] == ["hidden 1"] * 3 + ["output"] * 6


def test_no_traces_if_no_units_are_wanted(rng):
    inputs = random_inputs(rng, 1, 4)
    figure = drawn(raster_and_traces(inputs, chain(4, 6, 2).record(inputs, t_end=2.0), units=[]))
    assert len(figure.axes) == 3
    assert legend_texts(figure) == ["spike", "t_end = 2"]


def test_sample_counts_from_the_end_too(rng):
    inputs = random_inputs(rng, 3, 4)
    record = chain(4, 6, 2).record(inputs, t_end=torch.tensor([2.0, 3.0, 4.0]))
    last, also = (raster_and_traces(inputs, record, sample=sample) for sample in (2, -1))
    assert also.axes[0].get_title() == "sample 2"
    for one, other in zip(traces(last).values(), traces(also).values(), strict=True):
        np.testing.assert_array_equal(one[1], other[1])
    assert traces(last)["output\nunit 0"][0][-1] == 4.0


class Later(torch.nn.Module):
    def forward(self, spikes):
        return spikes.shift(0.25)


def test_layers_in_separate_runs_have_their_own_thresholds(rng):
    first, second = chain(4, 6, 2, thresholds=[0.7, 0.9])
    inputs = random_inputs(rng, 1, 4)
    record = Sequential(first, Later(), second).record(inputs, t_end=3.0)
    assert len(record.runs) == 2
    found = traces(raster_and_traces(inputs, record, units=[(0, 0), (1, 0)]))
    assert [theta for *_, theta in found.values()] == [0.7, 0.9]
    assert found["output\nunit 0"][1].max() == pytest.approx(0.9, abs=1e-12)


def test_drawing_leaves_the_graph_of_the_record_alone(rng):
    net, inputs = chain(4, 6, 2), random_inputs(rng, 1, 4)
    record = net.record(inputs, t_end=3.0)
    raster_and_traces(inputs, record)
    first_spike_histograms(record[-1], [0])
    record[-1].times.sum().backward()
    assert net[0].weight.grad.abs().sum() > 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 2}, "sample = 2: give an index from -2 to 1"),
        ({"sample": -3}, "sample = -3: give an index from -2 to 1"),
        ({"units": [(2, 0)]}, "units: (2, 0) names layer 2, but the record has 2 layers"),
        ({"units": [(-1, 0), (0, 6)]}, "units: (0, 6) names unit 6, but layer 0 has 6 units"),
        ({"class_names": ["one"]}, "class_names has 1 names: give one per class, 2"),
    ],
)
def test_raster_refuses(rng, options, message):
    inputs = random_inputs(rng, 2, 4)
    record = chain(4, 6, 2).record(inputs, t_end=2.0)
    with pytest.raises(ValueError, match=re.escape(message)):
        raster_and_traces(inputs, record, **options)


def test_raster_refuses_inputs_of_another_batch(rng):
    inputs = random_inputs(rng, 2, 4)
    record = chain(4, 6, 2).record(inputs, t_end=2.0)
    with pytest.raises(ValueError, match="inputs has 1 samples, but record has 2"):
        raster_and_traces(inputs[0], record)


# ------------------------------------------------------------------------------- populations, read-outs, time windows


def balanced(*, output=None, sizes=(("E", 5), ("I", 2))):
    """An excitatory and an inhibitory population that connect to each other and to themselves."""
    generator = torch.Generator().manual_seed(0)
    net = Network(4, dtype=torch.float64, generator=generator)
    for name, size in sizes:
        net.add(name, size, tau_mem=1.0, t_ref=0.1)
        net.connect("input", name, tau_syn=0.5, weight=4.0 * torch.rand(size, 4, generator=generator).double())
    for pre, n_in in sizes:
        for post, n_out in sizes:
            sign = -0.2 if pre == "I" else 0.2
            weight = sign * torch.rand(n_out, n_in, generator=generator).double()
            net.connect(pre, post, tau_syn=0.5, weight=weight)
    net.output = output
    return net


def side_labels(figure):
    return [(notes(ax) or [""])[-1] for ax in figure.axes]


def test_populations_have_their_names_and_the_output_says_so(rng):
    inputs = random_inputs(rng, 2, 4)
    figure = drawn(raster_and_traces(inputs, balanced().record(inputs, t_end=3.0)))
    assert side_labels(figure)[:3] == ["input", "E", "I (output)"]
    assert [label.partition("\n")[0] for label in side_labels(figure)[3:]] == ["E"] * 3 + ["I (output)"] * 2


def test_output_may_be_a_population_that_is_not_the_last(rng):
    inputs = random_inputs(rng, 2, 4)
    record = balanced(output="E").record(inputs, t_end=3.0)
    assert record.output == "E"
    figure = drawn(raster_and_traces(inputs, record, class_names=list("abcde")))
    assert side_labels(figure)[:3] == ["input", "E (output)", "I"]
    assert [label for label in side_labels(figure)[3:] if "(a)" in label] == ["E (output)\nunit 0 (a)"]
    for line in (line for line in figure.axes[1].lines if line.get_marker() == "|"):
        assert {line.get_color()} == {CLASS_COLORS[int(unit)] for unit in line.get_ydata()}
    assert {line.get_color() for line in figure.axes[2].lines if line.get_marker() == "|"} <= {
        plotting.INK,
        plotting.GREY,
    }


def test_of_several_hidden_populations_the_first_unit_to_fire_of_each_is_traced(rng):
    inputs = random_inputs(rng, 1, 4)
    net = balanced(sizes=(("E", 5), ("I", 2), ("output", 2)))
    record = net.record(inputs, t_end=3.0)
    figure = drawn(raster_and_traces(inputs, record))
    first = [int(record[name].units[0]) for name in "EI"]
    assert side_labels(figure)[1:6] == ["E", "I", "output", f"E\nunit {first[0]}", f"I\nunit {first[1]}"]


def test_units_are_asked_for_by_the_name_of_their_population(rng):
    inputs = random_inputs(rng, 1, 4)
    record = balanced().record(inputs, t_end=3.0)
    figure = raster_and_traces(inputs, record, units=[("I", 1), ("E", 4), (0, 2)])
    found = traces(figure)
    assert list(found) == ["I (output)\nunit 1", "E\nunit 4", "E\nunit 2"]
    for label, (name, unit) in zip(found, [("I", 1), ("E", 4), ("E", 2)], strict=True):
        assert found[label][2] == [t for t, u in pairs(record[name], 0) if u == unit]


def test_output_with_more_units_than_colours_is_no_row_of_classes(rng):
    inputs = random_inputs(rng, 1, 4)
    record = balanced(output="E", sizes=(("E", 12), ("I", 2))).record(inputs, t_end=3.0)
    figure = raster_and_traces(inputs, record)
    marked = {line.get_color() for line in figure.axes[1].lines if line.get_marker() == "|"}
    assert marked <= {plotting.INK, plotting.GREY}
    assert {ax.lines[1].get_color() for ax in figure.axes if ax.get_ylabel() == "V"} == {plotting.INK}


def with_readout(net, readout, inputs, **options):
    """The record of a chain that ends in a read-out, whose trace is its last layer."""
    record = net.record(inputs, **options)
    return Record((*record.layers, readout(record[-1])), record.runs)


def readout(n_in, n_out):
    layer = LI(n_in, n_out, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.reset_parameters(generator=torch.Generator().manual_seed(1))
    return layer


def potential_of_readout(layer, spikes, sample, unit, t):
    """V by the textbook difference of exponentials, tau_mem = 1 and tau_syn = 0.5: h(s) = exp(-s) - exp(-2 s)."""
    arrivals = [(s, u) for s, u in pairs(spikes, sample) if s < t]
    weight = layer.weight.detach().numpy()
    return sum(weight[unit, u] * (np.exp(s - t) - np.exp(2.0 * (s - t))) for s, u in arrivals)


def test_readout_is_drawn_as_potentials_and_labelled_output(rng):
    inputs, layer = random_inputs(rng, 3, 4), readout(6, 3)
    record = with_readout(chain(4, 6), layer, inputs, t_end=3.0)
    figure = drawn(raster_and_traces(inputs, record, sample=1, class_names=["a", "b", "c"]))
    panel = figure.axes[2]
    assert panel.get_ylabel() == "V"
    assert panel.get_legend().get_title().get_text() == "output"
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["unit 0 (a)", "unit 1 (b)", "unit 2 (c)"]
    for unit, line in enumerate(line for line in panel.lines if len(line.get_xdata()) > 2):
        assert line.get_color() == CLASS_COLORS[unit]
        times, potentials = line.get_xdata(), line.get_ydata()
        assert (times[0], times[-1]) == (0.0, 3.0)
        for k in range(0, len(times), 97):
            expected = potential_of_readout(layer, record[0], 1, unit, times[k])
            assert potentials[k] == pytest.approx(expected, abs=1e-12)
    assert [label.partition("\n")[0] for label in side_labels(figure)[3:]] == ["hidden"] * 3


def test_unit_of_a_readout_has_a_panel_without_a_threshold(rng):
    inputs = random_inputs(rng, 2, 4)
    record = with_readout(chain(4, 6), readout(6, 3), inputs, t_end=3.0)
    figure = drawn(raster_and_traces(inputs, record, units=[(-1, 2)]))
    assert side_labels(figure)[-1] == "output\nunit 2"
    long = [line for line in figure.axes[-1].lines if len(line.get_xdata()) > 2]
    assert [line.get_color() for line in long] == [CLASS_COLORS[2]]
    assert "threshold" not in legend_texts(figure)


def test_readout_after_an_early_stop_is_drawn_as_far_as_it_is_known(rng):
    inputs = random_inputs(rng, 2, 4)
    record = with_readout(chain(4, 6), readout(6, 3), inputs, t_end=9.0, stop="first_spikes")
    figure = drawn(raster_and_traces(inputs, record))
    known = float(record[0].t_known[0])
    ends = [line.get_xdata()[-1] for line in figure.axes[2].lines if len(line.get_xdata()) > 2]
    assert ends == [known] * 3


def test_wide_readout_shows_its_highest_units(rng):
    inputs = random_inputs(rng, 1, 4)
    record = with_readout(chain(4, 6), readout(6, 30), inputs, t_end=3.0)
    figure = drawn(raster_and_traces(inputs, record))
    shown = [int(text.get_text().split()[-1]) for text in figure.axes[2].get_legend().get_texts()]
    highest = record[-1].maximum(0.0, 3.0).potential[0].argsort(descending=True)[:10]
    assert sorted(shown) == shown == sorted(highest.tolist())


def test_layer_whose_potentials_are_not_known_is_drawn_without_traces(rng, monkeypatch):
    inputs = random_inputs(rng, 1, 4)
    record = chain(4, 6, 2).record(inputs, t_end=3.0)
    threshold = Record.threshold

    def refuse(self, layer):
        if layer == 0:
            raise ValueError("layer 0 returned other spikes than its units fired")
        return threshold(self, layer)

    monkeypatch.setattr(Record, "threshold", refuse)
    figure = raster_and_traces(inputs, record)
    assert side_labels(figure) == ["input", "hidden", "output", "output\nunit 0", "output\nunit 1"]


def test_readout_alone_without_an_end_asks_for_a_window(rng):
    inputs = random_inputs(rng, 1, 4)
    record = Record((readout(4, 2)(inputs),), ())
    with pytest.raises(ValueError, match="record has no t_end: give t_range"):
        raster_and_traces(inputs, record)
    assert drawn(raster_and_traces(inputs, record, t_range=(0.0, 2.0))).axes[1].get_xlim() == (0.0, 2.0)


def test_window_limits_axes_marks_and_traces(rng):
    inputs = random_inputs(rng, 1, 4)
    record = chain(4, 6, 2).record(inputs, t_end=3.0)
    figure = drawn(raster_and_traces(inputs, record, t_range=(0.5, 1.25)))
    for ax, spikes in zip(figure.axes, [inputs, *record], strict=False):
        assert ax.get_xlim() == (0.5, 1.25)
        assert marks(ax) == [(t, u) for t, u in pairs(spikes, 0) if 0.5 <= t <= 1.25]
    for times, _, spikes, _ in traces(figure).values():
        assert (times[0], times[-1]) == (0.5, 1.25)
        assert all(0.5 <= t <= 1.25 for t in spikes)
    assert legend_texts(figure)[-1] == "t_end = 3, not shown"


def test_window_beyond_an_early_stop_shows_nothing_and_says_so(rng):
    inputs = random_inputs(rng, 1, 4)
    record = chain(4, 6, 2).record(inputs, t_end=50.0, stop="first_spikes")
    figure = drawn(raster_and_traces(inputs, record, t_range=(20.0, 60.0), units=[(0, 0)]))
    assert [notes(ax)[0] for ax in figure.axes[:3]] == ["no spikes"] * 3
    assert notes(figure.axes[3]) == ["not known here", "hidden\nunit 0"]


@pytest.mark.parametrize(
    ("t_range", "error", "message"),
    [
        ((1.0, 1.0), ValueError, "t_range = (1.0, 1.0): give two times in ascending order"),
        ((2.0, 1.0), ValueError, "t_range = (2.0, 1.0): give two times in ascending order"),
        ((0.0, INF), ValueError, "t_range[1] = inf"),
        ((0.0,), ValueError, "t_range has 1 entries: give a pair (t0, t1)"),
        (1.0, TypeError, "t_range = 1.0: give a pair (t0, t1)"),
        ((3.0, 4.0), ValueError, "t_range = (3.0, 4.0): sample 0 ends at t_end = 3.0, give an earlier window"),
    ],
)
def test_window_is_checked(rng, t_range, error, message):
    inputs = random_inputs(rng, 1, 4)
    record = chain(4, 6, 2).record(inputs, t_end=3.0)
    with pytest.raises(error, match=re.escape(message)):
        raster_and_traces(inputs, record, t_range=t_range)


def test_unknown_population_of_a_trace_is_named(rng):
    inputs = random_inputs(rng, 1, 4)
    with pytest.raises(ValueError, match=re.escape("units: ('X', 0) names layer 'X', but the populations are E, I")):
        raster_and_traces(inputs, balanced().record(inputs, t_end=3.0), units=[("X", 0)])
    with pytest.raises(ValueError, match=re.escape("units: ('X', 0) names layer 'X', but the layers have no names")):
        raster_and_traces(inputs, chain(4, 2).record(inputs, t_end=3.0), units=[("X", 0)])


# --------------------------------------------------------------------------------------------------- axes of the caller


def figure_with(n_axes):
    figure = Figure(figsize=(8.0, 1.5 * n_axes + 1.0), layout="constrained")
    return figure, list(np.ravel(figure.subplots(n_axes, 1)))


def reliability():
    net, inputs = chain(4, 6, 2), Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4]])
    return validity_report(net, inputs, t_end=3.0)


def every_picture():
    """{name: (number of panels, the function of `axes`)}"""
    inputs = Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4]])
    record = chain(4, 6, 2).record(inputs, t_end=3.0)
    return {
        "learning_curves": (6, lambda axes: learning_curves([epoch(1), epoch(2)], axes=axes)),
        "raster_and_traces": (4, lambda axes: raster_and_traces(inputs, record, units=[(0, 1)], axes=axes)),
        "first_spike_histograms": (2, lambda axes: first_spike_histograms(record[-1], [0], axes=axes)),
        "validity": (4, lambda axes: validity(reliability(), axes=axes)),
    }


@pytest.mark.parametrize("name", ["learning_curves", "raster_and_traces", "first_spike_histograms", "validity"])
def test_picture_is_drawn_into_given_axes(name):
    number, draw = every_picture()[name]
    figure, axes = figure_with(number)
    assert draw(axes) is figure
    drawn(figure)
    assert figure.axes == axes
    assert all(ax.lines or ax.patches or ax.texts for ax in axes)
    assert axes[0].get_legend() is not None
    assert not figure.legends
    with pytest.raises(ValueError, match=re.escape(f"axes has {number - 1} Axes: give {number}, for ")):
        draw(axes[1:])
    with pytest.raises(TypeError, match=re.escape("axes[0] is a Figure: give a matplotlib Axes")):
        draw([figure] * number)


def test_axes_may_be_the_array_of_subplots_and_lie_in_a_subfigure():
    whole = Figure(layout="constrained")
    left, _ = whole.subfigures(1, 2)
    assert learning_curves([epoch(1)], axes=left.subplots(3, 2)) is whole


def test_map_is_drawn_into_a_given_axes():
    figure, (ax, other) = figure_with(2)
    assert decision_map(left_or_right, *yin_yang(5, seed=0), resolution=10, ax=ax) is figure
    assert ax.images
    assert not other.images
    drawn(figure)
    with pytest.raises(TypeError, match="ax = 3: give a matplotlib Axes"):
        decision_map(left_or_right, *yin_yang(5, seed=0), resolution=10, ax=3)


def test_histograms_in_given_axes_say_silence_and_what_is_outside_the_window():
    out = Spikes.from_lists([[[0.5], [0.9]], [[0.4], []], [[2.5], [0.3]]], n_units=2)
    _, axes = figure_with(2)
    figure = drawn(first_spike_histograms(out, [0, 0, 1], t_range=(0.0, 1.0), axes=axes))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["output 0, 1 outside", "output 1, 1 silent"]
    assert [ax.get_xlim() for ax in figure.axes] == [(0.0, 1.0)] * 2
    assert histogram_counts(axes[0]) == {CLASS_COLORS[0]: 2, CLASS_COLORS[1]: 0}


# ----------------------------------------------------------------------------------------------- first-spike histograms


def histogram_counts(ax):
    """{colour: number of samples} of the histograms of a panel."""
    return {to_hex(patch.get_edgecolor()).upper(): patch.get_data().values.sum() for patch in ax.patches}


def silent_counts(ax):
    assert [bar.get_height() for bar in ax.patches] == [int(text) for text in notes(ax)]
    return {to_hex(bar.get_facecolor()).upper(): bar.get_height() for bar in ax.patches}


def test_histograms_count_first_spikes_by_class_and_silence_beside():
    out = Spikes.from_lists(
        [[[0.5, 0.6], [0.9]], [[0.4], []], [[0.7], [0.3, 0.4, 0.8]], [[], [0.2]], [[], []]], n_units=2
    )
    figure = drawn(first_spike_histograms(out, torch.tensor([0, 0, 1, 1, 1])))
    zero, silent_zero, one, silent_one = figure.axes
    blue, yellow = CLASS_COLORS[:2]
    assert histogram_counts(zero) == {blue: 2, yellow: 1}
    assert silent_counts(silent_zero) == {blue: 0, yellow: 2}
    assert histogram_counts(one) == {blue: 1, yellow: 2}
    assert silent_counts(silent_one) == {blue: 1, yellow: 1}
    assert zero.get_xlim() == one.get_xlim()
    assert zero.get_ylim() == one.get_ylim()
    assert silent_zero.get_ylim() == silent_one.get_ylim()
    assert legend_texts(figure) == ["true class:", "class 0", "class 1"]


def test_bins_hold_the_times():
    times = torch.linspace(0.2, 0.8, 101, dtype=torch.float64)
    figure = first_spike_histograms(Spikes.from_latencies(times[:, None]), np.zeros(101, int))
    (patch,) = figure.axes[0].patches
    counts, edges, _ = patch.get_data()
    assert (edges[0], edges[-1]) == (0.2, 0.8)
    np.testing.assert_array_equal(counts, np.histogram(times.numpy(), edges)[0])


def test_histograms_need_no_spikes_after_an_early_stop(rng):
    inputs = random_inputs(rng, 30, 4)
    net, labels = chain(4, 6, 2), np.arange(30) % 2
    whole = first_spike_histograms(net(inputs, t_end=3.0), labels)
    stopped = first_spike_histograms(net(inputs, t_end=3.0, stop="first_spikes"), labels)
    for one, other in zip(whole.axes, stopped.axes, strict=True):
        assert histogram_counts(one) == histogram_counts(other)


def test_silent_network_draws_and_says_so():
    silent = Spikes.from_lists([[[], []]] * 5)
    figure = drawn(first_spike_histograms(chain(2, 2)(silent, t_end=2.0), [0, 1, 1, 0, 1]))
    assert [notes(ax) for ax in figure.axes] == [["never fires"], ["2", "3"], ["never fires"], ["2", "3"]]
    assert figure.axes[-1].get_xlabel() == "up to t_end = 2"


def test_no_column_for_silence_where_there_is_none():
    assert len(drawn(first_spike_histograms(Spikes.from_latencies([[0.1, 0.2]]), [1])).axes) == 2


@pytest.mark.parametrize("time", [0.0, -0.5, 1e6])
def test_single_time_has_a_bin(time):
    figure = drawn(first_spike_histograms(Spikes.from_latencies([[time], [time]]), [0, 0]))
    assert histogram_counts(figure.axes[0]) == {CLASS_COLORS[0]: 2}


def test_empty_batch_draws():
    figure = drawn(first_spike_histograms(Spikes.from_latencies(torch.zeros(0, 2)), []))
    assert [notes(ax) for ax in figure.axes] == [["never fires"], ["never fires"]]


def test_own_class_is_on_top_and_alone_filled_among_many():
    out = Spikes.from_latencies(torch.arange(72, dtype=torch.float64).reshape(12, 6))
    figure = drawn(first_spike_histograms(out, np.arange(12) % 6, class_names=[f"letter {k}" for k in "abcdef"]))
    for unit, ax in enumerate(figure.axes):
        assert ax.get_title(loc="left") == f"output {unit} (letter {'abcdef'[unit]})"
        alphas = [patch.get_facecolor()[3] for patch in ax.patches]
        assert alphas[:-1] == [0.0] * 5
        assert alphas[-1] > 0.0
        assert to_hex(ax.patches[-1].get_edgecolor()).upper() == CLASS_COLORS[unit]


def test_histograms_refuse():
    out = Spikes.from_latencies([[0.1, 0.2]])
    with pytest.raises(ValueError, match=re.escape("labels has shape (2,): give (1,), one class per sample")):
        first_spike_histograms(out, [0, 1])
    with pytest.raises(ValueError, match="class_names has 1 names: give one per class, 2"):
        first_spike_histograms(out, [0], class_names=["a"])
    with pytest.raises(ValueError, match="out has no units"):
        first_spike_histograms(Spikes.from_latencies(torch.zeros(1, 0)), [0])


# ------------------------------------------------------------------------------------------------------------ validity


@pytest.mark.parametrize("directed", [False, True])
def test_validity_shows_every_spike_once_and_says_what_it_leaves_out(rng, directed):
    net = Sequential(*(LIF(a, b, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64) for a, b in ((3, 5), (5, 2))))
    for layer in net:
        layer.weight.data.copy_(torch.from_numpy(rng.uniform(0.5, 3.0, layer.weight.shape)))
    along = {"0.weight": torch.ones(5, 3, dtype=torch.float64)} if directed else None
    report = validity_report(net, Spikes.from_latencies(rng.uniform(0.0, 1.0, (20, 3))), t_end=3.0, along=along)
    figure = drawn(validity(report))
    assert len(figure.axes) == (5 if directed else 4)
    spikes = [sum(stairs.get_data().values.sum() for stairs in ax.patches) for ax in figure.axes[:1]]
    assert spikes == [report.n_spikes]
    assert legend_texts(figure) == ["layer 0", "layer 1"]


def test_validity_of_a_silent_network_draws_nothing_and_says_so():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.fill_(0.0)
    figure = drawn(validity(validity_report(layer, Spikes.from_latencies([[0.0]]), t_end=2.0)))
    assert all(notes(ax) == ["none"] for ax in figure.axes)


# ------------------------------------------------------------------------------------------------------------- trials


def test_a_line_joins_the_trials_that_no_other_beats_in_both():
    spikes, accuracy = [40.0, 10.0, 20.0, 20.0, 30.0, 10.0], [0.97, 0.8, 0.95, 0.9, 0.94, 0.7]
    figure = drawn(accuracy_against_spikes(spikes, accuracy, names=list("abcdef")))
    (ax,) = figure.axes
    assert ax.lines[0].get_xydata().tolist() == [[10.0, 0.8], [20.0, 0.95], [40.0, 0.97]]
    assert ax.collections[0].get_offsets().tolist() == [list(pair) for pair in zip(spikes, accuracy, strict=True)]
    assert notes(ax) == ["b", "c", "a"]


def test_trials_are_drawn_into_given_axes_and_checked():
    figure = Figure(layout="constrained")
    assert accuracy_against_spikes([1.0], [0.5], ax=figure.subplots()) is figure
    assert notes(drawn(figure).axes[0]) == []
    with pytest.raises(ValueError, match=re.escape("spikes has shape (2,), accuracy (1,): give both (n,)")):
        accuracy_against_spikes([1.0, 2.0], [0.5])
    with pytest.raises(ValueError, match=re.escape("spikes has shape (0,), accuracy (0,)")):
        accuracy_against_spikes([], [])
    with pytest.raises(ValueError, match=re.escape("names has 2 names: give one per trial, 1")):
        accuracy_against_spikes([1.0], [0.5], names=["a", "b"])
