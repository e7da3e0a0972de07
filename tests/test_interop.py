"""Spikes of other simulators: a time grid of our own, and Brian2 where it is installed."""

import doctest
import math
import re
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from fireprop import Spikes
from fireprop.datasets.extras import MissingExtraError
from fireprop.external import polish
from fireprop.interop import brian, clock_driven, convergence
from fireprop.interop.convergence import draw_convergence, gradient_error
from fireprop.nn import LIF, Network, Sequential

HOUSE = Path(__file__).parents[1]
DOUBLE = {"dtype": torch.float64}
T_END = 1.5


@pytest.fixture(autouse=True)
def initial_weights(rng):
    """Those of torch's own generator: the same for a test whatever else runs."""
    torch.manual_seed(int(rng.integers(2**31)))


def small_net(seed=264):
    """A recurrent net whose spikes are far enough apart for a time grid, and its inputs: that of the example."""
    generator = torch.Generator().manual_seed(seed)
    options = {"tau_mem": 1.0, "tau_syn": 0.5, "t_ref": 0.15, "generator": torch.Generator(), **DOUBLE}
    net = Sequential(LIF(4, 6, recurrent=True, **options), LIF(6, 2, **options))
    for layer in net:
        layer.reset_parameters(gain=2.8, recurrent_spread=0.5, generator=generator)
    return net, Spikes.from_latencies(torch.rand(1, 4, generator=generator, dtype=torch.float64))


def one_unit(weight=6.0, **options):
    layer = LIF(1, 1, **{"tau_mem": 1.0, "tau_syn": 0.5, **options}, **DOUBLE)
    layer.weight.data.fill_(weight)
    return layer


def quiet_moment(net, inputs, after):
    """The middle of the widest gap between spikes in half a unit of time: a grid must not move a spike across t_end."""
    times = torch.cat([spikes.times.detach() for spikes in net.record(inputs, t_end=after + 0.5)])
    ends = torch.tensor([after, after + 0.5], dtype=torch.float64)
    times = torch.cat([times[times > after], ends]).sort().values
    k = int(times.diff().argmax())
    return times[k : k + 2].mean()


def mixed_network(rng):
    """Populations with constants per unit, several tau_syn in one unit, and a tau_syn that equals tau_mem."""
    net = Network(3, **DOUBLE)
    net.add("hidden", 4, tau_mem=torch.tensor([0.5, 0.8, 1.0, 1.3]), t_ref=torch.tensor([0.0, 0.05, 0.1, 0.2]))
    net.add("out", 2, tau_mem=0.7, v_threshold=1.2)
    driving = torch.from_numpy(rng.uniform(2.0, 6.0, (4, 3))), torch.from_numpy(rng.uniform(1.5, 5.0, (2, 4)))
    net.connect("input", "hidden", tau_syn=torch.tensor([[0.5, 0.8, 0.3]]), weight=driving[0])
    net.connect("hidden", "hidden", tau_syn=0.4, weight=torch.from_numpy(rng.normal(0.0, 0.5, (4, 4))))
    net.connect("hidden", "out", tau_syn=0.7, weight=driving[1])
    net.connect("out", "hidden", tau_syn=0.25, weight=-torch.from_numpy(rng.random((4, 2))))
    return net, Spikes.from_latencies(torch.from_numpy(rng.uniform(-0.4, 0.6, (2, 3))))


# --- the time grid ---


def test_a_spike_is_found_at_the_first_instant_of_the_grid_after_it():
    layer, inputs = one_unit(), Spikes.from_latencies([[0.2]])
    exact = float(layer(inputs, t_end=1.0).times.detach()[0])
    for dt in (0.1, 0.05, 0.02, 0.01):  # the input lies on all of these grids
        (found,) = clock_driven.simulate(layer, inputs, t_end=1.0, dt=dt)
        assert float(found.times[0]) == pytest.approx(math.ceil(exact / dt) * dt, abs=1e-12)


def test_an_input_acts_from_the_next_instant_of_the_grid():
    layer = one_unit()
    on_grid, between = (
        clock_driven.simulate(layer, Spikes.from_latencies([[t]]), t_end=1.0, dt=0.1)[0] for t in (0.3, 0.21)
    )
    assert torch.equal(on_grid.times, between.times)


def test_a_hold_is_rounded_up_to_steps():
    layer, inputs = one_unit(1e4, t_ref=0.25), Spikes.from_latencies([[0.0]])
    (found,) = clock_driven.simulate(layer, inputs, t_end=1.05, dt=0.1)
    # it fires at the first step it may: 3 steps of hold, and one in which V rises
    assert found.times.numpy() == pytest.approx([0.1, 0.5, 0.9])


def test_the_exact_integrator_has_the_potential_of_the_run_between_spikes():
    # a threshold that the exact potential passes by little within a step is passed on the grid by as little
    layer, inputs = one_unit(), Spikes.from_latencies([[0.2]])
    moment = torch.tensor([0.5], dtype=torch.float64)
    quiet = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, v_threshold=100.0, **DOUBLE)
    quiet.weight.data.fill_(6.0)
    v = float(quiet.record(inputs, t_end=1.0).potential(0, 0, moment))
    for theta, fires in ((v * (1 - 1e-12), True), (v * (1 + 1e-12), False)):
        layer = one_unit(v_threshold=theta)
        (found,) = clock_driven.simulate(layer, inputs, t_end=0.55, dt=0.1)
        assert (found.n_spikes == 1) == fires


def test_the_grid_tends_to_the_run_in_proportion_to_its_step():
    net, inputs = small_net()
    for integrator in ("exact", "euler"):

        def simulate(*args, integrator=integrator, **options):
            return clock_driven.simulate(*args, integrator=integrator, **options)

        steps = [3e-3, 1e-3, 3e-4, 1e-4]
        found = convergence.convergence(net, inputs, t_end=T_END, steps=steps, simulate=simulate)
        # delays accumulate along the causal chains; neither they nor their rounding to steps change the power
        power = np.polyfit(np.log(found.dt), np.log(found.times), 1)[0]
        assert 0.8 < power < 1.2
        assert found.raw[-1] < found.raw[0] / 10
        assert (found.polished < 1e-10).all()


def test_a_coarse_grid_loses_spikes_and_polish_says_so():
    net, inputs = small_net()
    error = gradient_error(net, inputs, clock_driven.simulate(net, inputs, t_end=T_END, dt=0.1), t_end=T_END)
    assert math.isnan(error.times)
    assert math.isnan(error.polished)
    assert re.match(r"sample 0, layer \d, unit \d, t = ", error.refusal)


def test_own_spikes_have_no_error():
    net, inputs = small_net()
    error = gradient_error(net, inputs, net.record(inputs, t_end=T_END), t_end=T_END)
    assert (error.times, error.raw, error.refusal) == (0.0, 0.0, "")
    assert error.polished < 1e-12


def test_impossible_spikes_have_no_gradient():
    layer, inputs = one_unit(t_ref=0.2), Spikes.from_latencies([[0.2]])
    spikes = Spikes.from_lists([[[0.4, 0.5]]])
    error = gradient_error(layer, inputs, [spikes], t_end=1.0)
    assert math.isnan(error.raw)
    assert "the unit is refractory" in error.refusal


def test_every_form_of_network_is_simulated_batches_and_horizons_included(rng):
    net, inputs = mixed_network(rng)
    t_end = torch.stack([quiet_moment(net, inputs[[0]], 0.8), quiet_moment(net, inputs[[1]], 1.6)])
    together = clock_driven.simulate(net, inputs, t_end=t_end, dt=0.01)
    assert [spikes.n_units for spikes in together] == [4, 2]
    assert all(spikes.n_spikes > 3 for spikes in together)
    for b in (0, 1):
        alone = clock_driven.simulate(net, inputs[[b]], t_end=float(t_end[b]), dt=0.01)
        for mine, part in zip(alone, together, strict=True):
            assert torch.equal(mine.times, part[b].times)
            assert torch.equal(mine.units, part[b].units)
            assert float(part[b].t_end) == float(t_end[b])
    fine = clock_driven.simulate(net, inputs, t_end=t_end, dt=1e-4)
    exact = net.record(inputs, t_end=t_end)
    by_name = dict(zip(exact.names, fine, strict=True))
    assert gradient_error(net, inputs, by_name, t_end=t_end).polished < 1e-10
    for polished, theirs in zip(polish(net, inputs, by_name, t_end=t_end), exact, strict=True):
        assert (polished.times - theirs.times.detach()).abs().max() < 1e-12


def test_nothing_comes_of_nothing():
    net, inputs = small_net()
    silent = Spikes.from_latencies([[math.inf] * 4])
    assert [spikes.n_spikes for spikes in clock_driven.simulate(net, silent, t_end=T_END, dt=0.1)] == [0, 0]
    assert [len(spikes) for spikes in clock_driven.simulate(net, inputs[[]], t_end=T_END, dt=0.1)] == [0, 0]
    late = clock_driven.simulate(net, inputs.shift(10.0), t_end=T_END, dt=0.1)
    assert [spikes.n_spikes for spikes in late] == [0, 0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dt": 0.0}, "dt = 0.0: give a finite number > 0"),
        ({"dt": math.nan}, "dt = nan"),
        ({"dt": 1e-320}, "a run to t_end = "),
        ({"integrator": "heun"}, "integrator = 'heun'"),
        ({"t_end": math.inf}, "t_end = inf"),
    ],
)
def test_options_out_of_range_are_refused(options, text):
    net, inputs = small_net()
    with pytest.raises(ValueError, match=re.escape(text)):
        clock_driven.simulate(net, inputs, **{"t_end": 1.0, "dt": 0.1, **options})


def test_inputs_that_do_not_fit_are_refused():
    net, inputs = small_net()
    with pytest.raises(ValueError, match="inputs has n_units = 2, the network's number of inputs = 4"):
        clock_driven.simulate(net, inputs.select_units([0, 1]), t_end=1.0, dt=0.1)
    with pytest.raises(TypeError, match="inputs is a list"):
        clock_driven.simulate(net, [[0.1]], t_end=1.0, dt=0.1)


# --- pictures, examples ---


def test_a_picture_shows_every_source_and_what_was_refused(tmp_path):
    net, inputs = small_net()
    found = [
        convergence.convergence(net, inputs, t_end=T_END, steps=[0.1, 0.01, 1e-3], source=source) for source in "ab"
    ]
    figure = draw_convergence(*found)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a", "b"]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "polish refuses: other spikes" in labels
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize("module", [clock_driven, convergence])
def test_examples_in_docstrings_run(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def test_the_python_of_the_page_runs():
    page = (HOUSE / "docs/replay.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})


def without_brian2(monkeypatch):
    monkeypatch.setitem(sys.modules, "brian2", None)


def test_brian2_is_asked_for_with_the_line_that_installs_it(monkeypatch):
    without_brian2(monkeypatch)
    net, inputs = small_net()
    with pytest.raises(MissingExtraError, match=re.escape('pip install "fireprop[interop]"')):
        brian.simulate(net, inputs, t_end=T_END, dt=0.01)


@pytest.mark.slow
def test_the_example_runs_without_brian2_and_says_what_it_skipped(monkeypatch, capsys):
    without_brian2(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["anybodys_spikes.py"])
    runpy.run_path(str(HOUSE / "examples/anybodys_spikes.py"))
    printed = capsys.readouterr().out
    assert printed.count("skipped Brian2:") == 1
    assert printed.count("clock-driven ") == 7


# --- Brian2 ---


@pytest.fixture
def brian2():
    # Brian2 itself uses what other libraries have deprecated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("brian2")


@pytest.mark.slow
def test_brian2_and_the_time_grid_find_the_same_spikes(rng, brian2):
    for net, inputs, dt in ((*mixed_network(rng), 0.013), (*small_net(), 0.007)):
        mine = clock_driven.simulate(net, inputs, t_end=T_END, dt=dt)
        theirs = brian.simulate(net, inputs, t_end=T_END, dt=dt)
        assert sum(spikes.n_spikes for spikes in mine) > 15
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a.units, b.units)
            # both are whole steps
            assert torch.equal(a.times, b.times)


@pytest.mark.slow
def test_spikes_of_brian2_give_the_exact_gradient_once_they_are_polished(brian2):
    net, inputs = small_net()
    spikes = brian.simulate(net, inputs, t_end=T_END, dt=1e-3)
    error = gradient_error(net, inputs, spikes, t_end=T_END)
    assert 1e-3 < error.raw < 0.1
    assert error.polished < 1e-10
    # as its SpikeMonitor writes them: a step earlier
    bare = [Spikes(s.times - 1e-3, s.units, s.offsets, s.n_units) for s in spikes]
    assert gradient_error(net, inputs, bare, t_end=T_END).polished < 1e-10


@pytest.mark.slow
def test_brian2_keeps_its_settings_and_may_hear_nothing(brian2):
    net, inputs = small_net()
    before = brian2.prefs["codegen.target"]
    silent = Spikes.from_latencies([[math.inf] * 4])
    assert [spikes.n_spikes for spikes in brian.simulate(net, silent, t_end=T_END, dt=0.1)] == [0, 0]
    assert brian.simulate(net, inputs, t_end=0.2, dt=0.1)[1].n_spikes == 0
    assert brian2.prefs["codegen.target"] == before


def delayed_network(rng):
    """A delay of a number, of each source, of each receiver and of each synapse, all whole steps of 1e-3."""

    def steps(*shape):
        return torch.from_numpy(rng.integers(5, 200, shape) / 1000.0)

    net = Network(3, **DOUBLE)
    net.add("hidden", 4, tau_mem=torch.tensor([0.5, 0.8, 1.0, 1.3]), t_ref=torch.tensor([0.0, 0.05, 0.1, 0.2]))
    net.add("out", 2, tau_mem=0.7, v_threshold=1.2)
    driving = torch.from_numpy(rng.uniform(2.0, 6.0, (4, 3))), torch.from_numpy(rng.uniform(1.5, 5.0, (2, 4)))
    tau_syn = torch.tensor([[0.5, 0.8, 0.3]])
    net.connect("input", "hidden", tau_syn=tau_syn, delay=steps(1, 3), weight=driving[0])
    net.connect(
        "hidden", "hidden", tau_syn=0.4, weight=torch.from_numpy(rng.normal(0.0, 0.5, (4, 4))), delay=steps(4, 4)
    )
    net.connect("hidden", "out", tau_syn=0.7, weight=driving[1])
    net.connect("out", "hidden", tau_syn=0.25, weight=-torch.from_numpy(rng.random((4, 2))), delay=steps(4, 1))
    return net, Spikes.from_latencies(torch.from_numpy(rng.uniform(-0.4, 0.6, (2, 3))))


@pytest.mark.slow
def test_a_delay_of_brian2_is_rounded_to_the_nearest_step(brian2):
    inputs = Spikes.from_latencies([[0.2]])
    (at_once,) = brian.simulate(one_unit(20.0), inputs, t_end=2.0, dt=0.1)
    for delay, steps in ((0.3, 3), (0.26, 3), (0.24, 2), (0.04, 0)):
        (late,) = brian.simulate(one_unit(20.0, delay=delay), inputs, t_end=2.0 + 0.1 * steps, dt=0.1)
        assert late.n_spikes == at_once.n_spikes > 1
        assert late.times.numpy() == pytest.approx(at_once.times.numpy() + 0.1 * steps, abs=1e-12)


@pytest.mark.slow
def test_brian2_tends_to_the_run_of_a_delayed_recurrent_network(rng, brian2):
    net, inputs = delayed_network(rng)
    t_end = torch.stack([quiet_moment(net, inputs[[0]], 1.0), quiet_moment(net, inputs[[1]], 1.0)])
    exact = net.record(inputs, t_end=t_end)
    assert all(spikes.n_spikes > 3 for spikes in exact)
    found = dict(zip(exact.names, brian.simulate(net, inputs, t_end=t_end, dt=1e-3), strict=True))
    error = gradient_error(net, inputs, found, t_end=t_end)
    assert error.times < 2e-2
    assert error.polished < 1e-10


@pytest.mark.parametrize("constants", [{"bias": 0.5}, {"v_start": 0.5}, {"i_start": 0.5}])
def test_brian2_needs_t_start_where_something_acts_then(monkeypatch, constants):
    monkeypatch.setitem(sys.modules, "brian2", object())
    layer = one_unit(**constants)
    message = f"t_start is missing: the {next(iter(constants))} of layer 0 acts from t_start on"
    with pytest.raises(ValueError, match=re.escape(message)):
        brian.simulate(layer, Spikes.from_latencies([[0.2]]), t_end=1.0, dt=0.1)
