"""Networks that the loop of a chain runs: every answer is that of the engine of graphs."""

import pytest
import torch

from both_engines import assert_alike, told
from fireprop import SpikeLimitError, Spikes, external
from fireprop.nn import Network

N_IN, T_END = 12, 4.0


def excitatory_inhibitory(generator, dtype=torch.float64, *, masks=False, starts=False, delays=(None, None, None)):
    """Input to two populations that reach one another, and these to two others side by side.

    delays  of the inputs, between the two, and to the others; starts: some populations have biases, or initial states
    """
    sizes = {"e": 7, "i": 4, "left": 2, "right": 3}
    net = Network(N_IN, dtype=dtype)
    for name, size in sizes.items():
        theta = 0.8 + 0.4 * torch.rand(size, generator=generator, dtype=torch.float64)
        more = {}
        if starts and name != "i":
            more["bias"] = torch.nn.Parameter(0.6 * torch.rand(size, generator=generator, dtype=torch.float64) - 0.3)
        if starts and name in ("i", "left"):
            more |= {"v_start": 0.4, "i_start": torch.nn.Parameter(torch.ones(size, dtype=torch.float64))}
        net.add(name, size, tau_mem=1.0, v_threshold=torch.nn.Parameter(theta), t_ref=0.05 * len(name), **more)
    drives = {
        ("input", "e"): 20.0, ("input", "i"): 8.0, ("e", "e"): 3.0, ("e", "i"): 6.0, ("i", "e"): -2.0,
        ("e", "left"): 10.0, ("i", "right"): 2.0, ("e", "right"): 8.0,
    }  # fmt: skip
    for (pre, post), drive in drives.items():
        n_in, n_out = sizes.get(pre, N_IN), sizes[post]
        weight = drive * (0.5 + torch.rand(n_out, n_in, generator=generator)) / n_in
        mask = torch.rand(n_out, n_in, generator=generator) < 0.8 if masks else None
        delay = delays[0 if pre == "input" else 1 if post in "ei" else 2]
        tau_syn = 0.5 if post in "ei" else 0.3
        net.connect(pre, post, tau_syn=tau_syn, weight=weight.to(dtype), mask=mask, delay=delay)
    return net


def latencies(generator, batch=5):
    times = 3.0 * torch.rand(batch, N_IN, generator=generator, dtype=torch.float64)
    return times.requires_grad_()


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_spikes_and_gradients_are_those_of_the_graph(seed, masks):
    generator = torch.Generator().manual_seed(seed)
    net = excitatory_inhibitory(generator, masks=masks)
    times = latencies(generator)
    layered = told(net, times, Spikes.from_latencies(times), t_end=T_END)
    net._as_graph = True
    graph = told(net, times, Spikes.from_latencies(times), t_end=T_END)
    assert all(len(population.times) > 10 for population in layered[0])
    assert_alike(layered, graph, time=1e-12)


@pytest.mark.parametrize("delays", [(0.2, 0.4, 0.3), (None, 0.4, None)])
@pytest.mark.parametrize("seed", range(3))
def test_delays_biases_and_initial_states_are_those_of_the_graph(seed, delays):
    generator = torch.Generator().manual_seed(seed)
    net = excitatory_inhibitory(generator, masks=True, starts=True, delays=delays)
    times = latencies(generator)
    layered = told(net, times, Spikes.from_latencies(times), t_end=T_END, t_start=-0.25)
    net._as_graph = True
    graph = told(net, times, Spikes.from_latencies(times), t_end=T_END, t_start=-0.25)
    assert_alike(layered, graph, time=1e-12)
    grid = torch.linspace(-0.25, T_END, 40, dtype=torch.float64)
    for name in ("i", "right"):
        both = (record[0].potential(name, 1, grid, sample=2) for record in (layered, graph))
        assert torch.allclose(*both, rtol=1e-9, atol=1e-11)


def test_forward_mode_is_that_of_the_graph():
    generator = torch.Generator().manual_seed(3)
    net = excitatory_inhibitory(generator, masks=True)
    spikes = Spikes.from_latencies(latencies(generator).detach())
    names = [name for name, _ in net.named_parameters()]
    primals = tuple(p.detach() for p in net.parameters())
    directions = tuple(torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in primals)

    def times(*values):
        record = torch.func.functional_call(net, dict(zip(names, values, strict=True)), (spikes,), {"t_end": T_END})
        return record.times

    _, layered = torch.func.jvp(times, primals, directions)
    net._as_graph = True
    _, graph = torch.func.jvp(times, primals, directions)
    assert torch.allclose(layered, graph, rtol=1e-10, atol=1e-12)


def test_potentials_slopes_and_thresholds_are_told_by_population():
    generator = torch.Generator().manual_seed(1)
    net = excitatory_inhibitory(generator)
    spikes = Spikes.from_latencies(latencies(generator).detach())
    grid = torch.linspace(0.0, T_END, 50, dtype=torch.float64)
    found = []
    for _ in range(2):
        record = net.record(spikes, t_end=T_END)
        found.append([record.potential(name, 1, grid, sample=2) for name in ("e", "i", "right")])
        found[-1] += [record.current("i", 3, grid, sample=1), record.threshold("right"), *record.slopes]
        net._as_graph = True
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-11)


def test_a_stop_waits_for_the_output_population():
    generator = torch.Generator().manual_seed(2)
    net = Network(N_IN, dtype=torch.float64)
    net.add("e", 6, tau_mem=1.0)
    net.add("i", 3, tau_mem=1.0)
    net.add("out", 2, tau_mem=1.0)
    for pre, post in [("input", "e"), ("e", "i"), ("i", "e"), ("e", "out")]:
        n_in, n_out = {"e": 6, "i": 3}.get(pre, N_IN), {"e": 6, "i": 3, "out": 2}[post]
        weight = (
            (-2.0 if pre == "i" else 40.0) * torch.rand(n_out, n_in, generator=generator, dtype=torch.float64) / n_in
        )
        net.connect(pre, post, tau_syn=0.5, weight=weight)
    times = latencies(generator)
    layered = told(net, times, Spikes.from_latencies(times), t_end=T_END, stop="first_spikes")
    assert layered[0].engines[0].engine == "chain"
    assert (layered[0][-1].t_known < T_END).any()
    net._as_graph = True
    assert_alike(layered, told(net, times, Spikes.from_latencies(times), t_end=T_END, stop="first_spikes"), time=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.connect("input", "right", tau_syn=0.3),
        lambda net: net.connect("left", "right", tau_syn=0.3),
        lambda net: net.connect("i", "i", tau_syn=0.2),
        lambda net: net.connect("i", "i", tau_syn=0.5, delay=0.1),
        lambda net: net.connect("i", "i", tau_syn=torch.nn.Parameter(torch.tensor(0.5).double())),
    ],
    ids=["over a layer", "beside", "another tau_syn", "a delay", "a trained tau_syn"],
)
def test_what_is_no_chain_of_plain_layers_is_a_graph(change):
    generator = torch.Generator().manual_seed(0)
    net = excitatory_inhibitory(generator)
    change(net)
    record = net.record(Spikes.from_latencies(latencies(generator)), t_end=T_END)
    assert record.engines[0].engine == "graph"


def test_a_population_that_nothing_reaches_is_silent():
    generator = torch.Generator().manual_seed(0)
    net = excitatory_inhibitory(generator)
    net.add("alone", 3, tau_mem=1.0)
    record = net.record(Spikes.from_latencies(latencies(generator)), t_end=T_END)
    assert record.engines[-1].engine == "chain"
    assert record["alone"].times.numel() == 0 < record["e"].times.numel()


def test_a_delay_of_zero_and_equal_constants_are_none():
    generator = torch.Generator().manual_seed(0)
    net = excitatory_inhibitory(generator)
    net.connect("i", "i", tau_syn=torch.full((4, 4), 0.5), delay=0.0, weight=torch.zeros(4, 4))
    assert net.record(Spikes.from_latencies(latencies(generator)), t_end=T_END).engines[0].engine == "chain"


def test_the_limit_of_spikes_is_that_of_a_population():
    generator = torch.Generator().manual_seed(0)
    net = excitatory_inhibitory(generator)
    spikes = Spikes.from_latencies(latencies(generator).detach())
    record = net.record(spikes, t_end=T_END)
    counts = [int(population.offsets.diff().max()) for population in record]
    assert counts[0] + counts[1] > max(counts) + 1
    limited = net.record(spikes, t_end=T_END, max_spikes=max(counts))
    assert all(torch.equal(a.units, b.units) for a, b in zip(limited, record, strict=True))
    with pytest.raises(SpikeLimitError, match=r"population [ei], unit \d+, t = "):
        net.record(spikes, t_end=T_END, max_spikes=counts[0] - 1)


def test_errors_name_the_population():
    generator = torch.Generator().manual_seed(0)
    net = excitatory_inhibitory(generator)
    with torch.no_grad():
        net.connections["e->i"].weight[2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"e->i: weight\[2, 3\] = nan"):
        net.record(Spikes.from_latencies(latencies(generator)), t_end=T_END)


def test_replay_takes_the_spikes_of_such_a_network():
    generator = torch.Generator().manual_seed(4)
    net = excitatory_inhibitory(generator)
    spikes = Spikes.from_latencies(latencies(generator, batch=2).detach())
    record = net.record(spikes, t_end=T_END)
    replayed = external.replay(net, spikes, record, t_end=T_END)
    for one, two in zip(record, replayed.record, strict=True):
        assert torch.equal(one.units, two.units)
        assert torch.equal(one.times, two.times)
