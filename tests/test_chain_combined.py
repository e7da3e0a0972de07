"""What chains know apart, delays, starts and trained constants, they know together."""

import pytest
import torch
from torch import nn

from both_engines import as_graph, assert_alike, drawn, told
from fireprop.nn import LIF, Sequential

N_IN = 5


def parameter(value):
    return nn.Parameter(torch.as_tensor(value, dtype=torch.float64))


def layer_of(generator, n_in, n, *, recurrent, starts, per_unit):
    """A layer whose t_ref is trained; and either its delays and time constants, or its bias and initial potential."""

    def between(low, high, *shape):
        values = torch.rand(shape, generator=generator, dtype=torch.float64)
        return low + (high - low) * (values if per_unit else torch.full_like(values, 0.5))

    tau_mem, tau_syn, t_ref = between(1.0, 1.5, n), between(0.4, 0.6, n, 1), between(0.05, 0.1, n)
    if starts:
        constants = {"tau_mem": tau_mem, "tau_syn": tau_syn}
        constants |= {"bias": parameter(between(0.0, 0.2, n)), "v_start": parameter(between(0.0, 0.1, n))}
        constants |= {"tau_syn_rec": tau_syn} if recurrent else {}
    else:
        constants = {"tau_mem": parameter(tau_mem), "tau_syn": parameter(tau_syn), "delay": parameter(0.3)}
        constants |= {"tau_syn_rec": parameter(tau_syn.clone()), "delay_rec": parameter(0.25)} if recurrent else {}
    layer = LIF(n_in, n, recurrent=recurrent, t_ref=parameter(t_ref), dtype=torch.float64, **constants)
    with torch.no_grad():
        layer.weight.copy_(6.0 * (torch.rand(n, n_in, generator=generator) + 0.1) / n_in**0.5)
        if recurrent:
            layer.recurrent_weight.copy_(0.5 * torch.randn(n, n, generator=generator))
    return layer


@pytest.mark.parametrize("starts", [False, True])
@pytest.mark.parametrize("per_unit", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_both_modes_agree_with_each_other_and_with_the_graph(seed, per_unit, starts):
    generator = torch.Generator().manual_seed(seed)
    options = {"t_end": 6.0, **({"t_start": -0.5} if starts else {})}
    kinds = {"starts": starts, "per_unit": per_unit}
    net = Sequential(
        layer_of(generator, N_IN, 8, recurrent=True, **kinds), layer_of(generator, 8, 4, recurrent=False, **kinds)
    )
    times, inputs = drawn(generator, N_IN)
    found = told(net, times, inputs, **options)

    names = [name for name, _ in net.named_parameters()]
    primals = tuple(p.detach() for p in net.parameters())
    directions = tuple(torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in primals)

    def out(*values):
        values = dict(zip(names, values, strict=True))
        return torch.func.functional_call(net, values, (inputs.detach(),), options).times

    fired, moved = torch.func.jvp(out, primals, directions)
    cotangent = torch.randn(fired.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad(net(inputs.detach(), **options).times, list(net.parameters()), cotangent)
    both = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    assert torch.isclose((moved * cotangent).sum(), both, rtol=1e-10)

    as_graph(net)
    # In a recurrent layer each spike passes its rounding on; a graph has two synaptic currents there.
    assert_alike(found, told(net, times, inputs, **options), gradient=1e-10)
