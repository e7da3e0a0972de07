"""A run in parts that hand on their state: the spikes, the gradients and the memory of one run, or of one part."""

import pytest
import torch
from torch import nn

from fireprop import Spikes
from fireprop.nn import LIF, Network, Sequential

pytestmark = pytest.mark.usefixtures("one_torch_thread")

BATCH, T_END = 2, 3.0
CUTS = [0.4, 0.9, 1.0, 2.3]


@pytest.fixture
def inputs(rng):
    """Forty spikes of three units in each of two samples; those of the first come at cuts too."""
    times = torch.from_numpy(rng.uniform(0.0, 0.95 * T_END, (BATCH, 40))).sort(dim=1).values
    times[0, :] = torch.cat([times[0, : -len(CUTS)], torch.tensor(CUTS, dtype=torch.float64)]).sort().values
    units = torch.from_numpy(rng.integers(0, 3, times.numel()))
    samples = torch.arange(BATCH).repeat_interleave(40)
    return Spikes.from_events(times.reshape(-1), units, samples, n_units=3, batch_size=BATCH)


def between(inputs, begin, end):
    """The inputs of a part, in torch's graph."""
    kept = torch.nonzero((inputs.times >= begin) & (inputs.times < end))[:, 0]
    return Spikes.from_events(
        inputs.times[kept], inputs.units[kept], inputs.samples[kept], n_units=inputs.n_units, batch_size=len(inputs)
    )


def parts_of(net, inputs, cuts, *, detach=False, **options):
    """The records of a run in parts."""
    records, state, begin = [], "rest", -1.0
    for end in [*cuts, T_END]:
        records.append(net.record(between(inputs, begin, end), t_end=end, state=state, **options))
        state, begin, options = records[-1].state(), end, {**options, "t_start": None}
        state = state.detach() if detach else state
    return records


def loss_of(records):
    """A sum over the spikes of all layers, whose weights depend on times alone, and not smoothly on their order."""
    return sum((layer.times.sin() * (1.0 + layer.units)).sum() for record in records for layer in record.spikes)


def chain(*, recurrent=False, **constants):
    torch.manual_seed(1)
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, **constants}
    first = LIF(3, 12, recurrent=recurrent, dtype=torch.float64, **constants)
    net = Sequential(first, LIF(12, 4, tau_mem=1.5, tau_syn=0.4, dtype=torch.float64))
    with torch.no_grad():
        for layer in net:
            layer.weight.copy_(torch.randn_like(layer.weight) * 1.2 + 0.9)
        if recurrent:
            first.recurrent_weight.copy_(0.4 * torch.randn_like(first.recurrent_weight))
    return net


def parameter(value):
    return nn.Parameter(torch.tensor(value, dtype=torch.float64))


def trained_chain(**constants):
    return chain(
        recurrent=True, **{name: nn.Parameter(torch.full((12,), value).double()) for name, value in constants.items()}
    )


def network(*, delay=0.3, bias=None, trained=False):
    """Two populations in a loop, with two receptors, one of them late, and a refractory period longer than parts."""
    torch.manual_seed(2)
    net = Network(3, dtype=torch.float64)
    made = (lambda value: parameter(value)) if trained else (lambda value: value)
    net.add("a", 9, tau_mem=made(1.0), t_ref=made(0.15), bias=bias)
    net.add("b", 2, tau_mem=0.7, t_ref=0.7)
    net.connect("input", "a", tau_syn=made(0.5), delay=torch.rand(9, 3, dtype=torch.float64) if delay else None)
    net.connect("a", "b", tau_syn=0.4)
    net.connect("b", "a", tau_syn=0.3, delay=None if delay is None else made(delay))
    net.connect("b", "a", tau_syn=0.9, name="slow")
    with torch.no_grad():
        for connection in net.connections.values():
            connection.weight.copy_(torch.randn_like(connection.weight) + 0.9)
    return net


NETS = {
    "chain": chain,
    "chain with t_ref": lambda: chain(t_ref=0.6),
    "recurrent chain": lambda: chain(recurrent=True, t_ref=0.1),
    "varied chain": lambda: chain(recurrent=True, t_ref=torch.linspace(0.0, 0.5, 12)),
    "chain with late arrivals": lambda: chain(recurrent=True, t_ref=0.1, delay=0.35, delay_rec=0.2),
    "chain with a bias": lambda: chain(t_ref=0.2, bias=parameter(0.3), v_start=parameter(0.2), i_start=parameter(-0.3)),
    "trained chain": lambda: trained_chain(tau_mem=1.1, t_ref=0.12),
    "network": lambda: network(delay=None),
    "network with delays": network,
    "network with a bias": lambda: network(bias=0.4),
    "trained network": lambda: network(trained=True, bias=parameter(0.3)),
    "several runs": lambda: Sequential(
        chain(), nn.Identity(), LIF(4, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    ),
}


def options_of(name):
    return {"t_start": -0.5} if "bias" in name or name == "trained network" else {}


def gradients(net, inputs, loss):
    wanted = {name: p for name, p in net.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, [*wanted.values(), inputs.times], allow_unused=True)
    return dict(zip([*wanted, "input times"], found, strict=True))


@pytest.mark.parametrize("name", NETS)
def test_parts_have_the_spikes_and_the_gradients_of_the_whole(inputs, name):
    net = NETS[name]()
    inputs = Spikes.from_events(
        inputs.times.requires_grad_(), inputs.units, inputs.samples, n_units=3, batch_size=BATCH
    )
    whole = net.record(inputs, t_end=T_END, state="rest", **options_of(name))
    parts = parts_of(net, inputs, CUTS, **options_of(name))
    for k, layer in enumerate(whole.spikes):
        for sample in range(BATCH):
            own = [part[k].times[part[k].samples == sample] for part in parts]
            assert torch.equal(torch.cat(own), layer.times[layer.samples == sample])
        assert layer.n_spikes > 8
    wanted = gradients(net, inputs, loss_of([whole]))
    found = gradients(net, inputs, loss_of(parts))
    assert len(wanted) > 2
    for parameter_name, grad in wanted.items():
        largest = max(float(grad.abs().max()), 1e-3)
        assert float((found[parameter_name] - grad).abs().max()) <= 1e-12 * largest, parameter_name
