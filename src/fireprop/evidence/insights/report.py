"""All insights on small networks: what `fireprop reproduce insights` shows, and the table of the paper's claims."""

from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fireprop import losses
from fireprop.evidence.insights import (
    discrete_time,
    eventprop,
    examples,
    graze,
    hebbian,
    kernel_model,
    layers,
    levels,
    rates,
    spikeprop,
    surrogate,
)
from fireprop.evidence.insights.chain import read_chain
from fireprop.evidence.insights.recorded import system_of
from fireprop.nn import Record
from fireprop.nn.plain import lif_layers
from fireprop.spikes import Spikes

Number: TypeAlias = float | int | str

GRID_STEPS = (0.01, 0.005, 0.002, 0.001)
FACTOR_WIDTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
COSINE_WIDTHS = tuple(float(w) for w in np.geomspace(0.03, 10.0, 11))
COSINE_NETS = 10
SPARSE = 0.05  # one recurrent synapse per unit, on average


class Insight(NamedTuple):
    """One insight as a report shows it: a heading, a paragraph, numbers by name, a picture."""

    title: str
    text: str
    numbers: dict[str, Number]
    figure: Figure


class Claim(NamedTuple):
    """A claim of the paper, the functions or commands that show it, their picture, if any, and the tests that hold it.

    Names are separated by ", ". Of names in one module only the first says which.
    """

    claim: str
    function: str
    figure: str
    test: str


CLAIMS = (
    Claim(
        "Gradients are well defined: the conditions of the implicit function theorem hold at firing times",
        "evidence.insights.graze.determinant, graze",
        "evidence.insights.graze.draw_graze",
        "test_the_determinant_is_the_product_of_the_slopes, test_a_graze_has_the_power_minus_a_half",
    ),
    Claim(
        "Gradients are exact, for any number of spikes per unit and any recurrence, self-loops included",
        "nn.LIF, nn.Network, gradcheck.check_gradients",
        "",
        "test_the_gradient_is_the_central_difference_of_the_oracle, "
        "test_adjoint_tangent_and_forward_propagation_are_the_triangular_solve",
    ),
    Claim(
        "The pre-synaptic model and the post-synaptic kernel model are equivalent (Figure 1)",
        "evidence.insights.kernel_model.pre_synaptic, post_synaptic",
        "evidence.insights.kernel_model.draw_kernel_model",
        "test_both_models_give_the_same_potential",
    ),
    Claim(
        "The potential of any unit at any time, in closed form from spikes alone (Theorem 1)",
        "nn.Record.potential, nn.Record.current",
        "plotting.raster_and_traces",
        "test_potentials_and_currents_are_those_of_theorem_1",
    ),
    Claim(
        "Gradients need nothing of the forward pass but firing times and causality: any simulator will do",
        "external.replay, polish, ift.explicit_system",
        "interop.convergence.draw_convergence",
        "test_replaying_a_run_gives_its_gradient_to_the_bit, test_polished_spikes_of_a_grid_give_the_exact_gradient, "
        "test_spikes_of_another_simulator_give_the_same_system",
    ),
    Claim(
        "Intermediate results are computed forward in time, spike after spike, with no history",
        "ift.forward_propagation, `fireprop train --gradient forward`",
        "",
        "test_all_roads_lead_to_one_jacobian, test_backward_by_forward_propagation_is_the_adjoint",
    ),
    Claim(
        "Intermediate results are computed forward in layers for feed-forward networks",
        "evidence.insights.layers.forward_in_layers",
        "evidence.insights.layers.draw_layers",
        "test_layer_by_layer_equals_level_by_level",
    ),
    Claim(
        "Spikes that do not depend on one another are computed in parallel",
        "ift.ExplicitSystem.derivatives_by_level, evidence.insights.levels.causal_levels",
        "evidence.insights.levels.draw_levels",
        "test_levels_are_causal_depths_and_causes_lie_before, test_the_first_spikes_of_a_layer_are_one_level",
    ),
    Claim(
        "The loss is needed only at the end: one Jacobian serves many losses",
        "ift.Jacobian.gradient",
        "",
        "test_one_jacobian_serves_many_losses",
    ),
    Claim(
        "Extends Hebbian learning: the gradient is almost an average of the feeding kernel at firing times",
        "evidence.insights.hebbian.feeding, hebbian_terms",
        "evidence.insights.hebbian.draw_hebbian",
        "test_the_gradient_is_a_sum_of_feeding_kernels, test_the_hebbian_sum_holds_for_any_recurrence",
    ),
    Claim(
        "Smoothing kernels arise naturally, and resemble those of surrogate gradients",
        "evidence.insights.surrogate.local_factor",
        "evidence.insights.surrogate.draw_local_factor",
        "test_narrow_windows_give_the_exact_local_factor",
    ),
    Claim(
        "Surrogate gradients may be close to the exact gradient",
        "evidence.insights.surrogate.cosines",
        "evidence.insights.surrogate.draw_cosines",
        "test_a_narrow_surrogate_of_single_spikes_points_along_the_exact_gradient",
    ),
    Claim(
        "Applies to time-quantized simulators, whose unknowns grow with time and precision",
        "evidence.insights.discrete_time.time_derivative, convergence",
        "evidence.insights.discrete_time.draw_discrete_time",
        "test_the_grid_derivative_is_exact_for_the_grid, test_the_grid_tends_to_continuous_time_with_the_step",
    ),
    Claim(
        "EventProp simulates adjoint trajectories backwards; firing times and causality are enough",
        "evidence.insights.eventprop.eventprop_gradients",
        "evidence.insights.eventprop.draw_eventprop",
        "test_eventprop_equals_the_adjoint, test_eventprop_equals_the_adjoint_of_recurrent_layers",
    ),
    Claim(
        "SpikeProp's linearity assumption is not needed: its rule is the case of one spike per unit",
        "evidence.insights.spikeprop.spikeprop",
        "evidence.insights.spikeprop.draw_spikeprop",
        "test_spikeprop_is_the_exact_gradient_of_single_spikes",
    ),
    Claim(
        "Rates are balanced, and a projection keeps neurons alive (from the authors' notebooks)",
        "evidence.insights.rates.rate_law, silent.project_, `fireprop train --keep-alive`",
        "evidence.insights.rates.draw_rates",
        "test_what_a_unit_receives_it_spends, test_a_silent_unit_is_revived",
    ),
    Claim(
        "Experiments: XOR, Iris, Yin-Yang, and a comparison with surrogate gradients",
        "evidence.experiments.reproduce, `fireprop reproduce`",
        "",
        "test_xor_reports_both_settings, test_iris_reports_every_fold, test_yin_yang_reports_what_its_budget_was, "
        "test_surrogates_report_both_comparisons",
    ),
)


def claims_table() -> str:
    """CLAIMS as a Markdown table: claim, function, figure, test."""
    rows = ["| claim of the paper | function | figure | test |", "|---|---|---|---|"]
    for claim, *places in CLAIMS:
        cells = [", ".join(f"`{name.strip('`')}`" for name in place.split(", ") if name) for place in places]
        rows.append(f"| {claim} | {' | '.join(cells)} |")
    return "\n".join(rows)


def run_all(generator: torch.Generator) -> list[Insight]:
    """Every insight on networks drawn from `generator`, with its numbers and its picture, in less than a minute."""
    return [
        _kernel_model(),
        _graze(generator),
        _layers(generator),
        _levels(generator),
        _hebbian(generator),
        _local_factor(generator),
        _cosines(generator),
        _discrete_time(generator),
        _eventprop(generator),
        _spikeprop(generator),
        _rates(generator),
    ]


def _kernel_model() -> Insight:
    neuron, t_end = kernel_model.example(), 5.0
    pre = kernel_model.pre_synaptic(neuron, np.linspace(0.0, t_end, 501))
    post = kernel_model.post_synaptic(neuron, pre.times, pre.spikes)
    return Insight(
        "One neuron, two models, the same potential",
        "Left, the neuron as it is simulated: each source's spikes make a current, the weighted currents charge the "
        "membrane, the threshold resets it. Right, the same potential written down from spikes alone: every spike "
        "adds a smooth kernel, every own spike takes a decaying exponential away (Theorem 1). All that follows rests "
        "on it.",
        {"spikes": len(pre.spikes), "largest difference in V": kernel_model.largest_difference(pre, post)},
        kernel_model.draw_kernel_model(neuron, t_end=t_end),
    )


def _graze(generator: torch.Generator) -> Insight:
    result = graze.graze()
    found = graze.determinant(*examples.lively_run(generator))
    return Insight(
        "Where the gradient exists, and how it ends",
        "The derivative of a firing time exists where the potential crosses the threshold with a slope: the "
        "determinant of dG/dF is the product of all slopes. At a graze the slope is 0: just above it the derivative "
        "grows with the power -1/2 of the distance; just below it the spike is gone, and no gradient tells.",
        {
            "power of df/dw near the graze": result.power,
            "spikes of a small network": found.n_spikes,
            "log det dG/dF": found.log_determinant,
            "sum of log slopes": found.log_product_of_slopes,
            "smallest slope": found.smallest_slope,
        },
        graze.draw_graze(result),
    )


def _layers(generator: torch.Generator) -> Insight:
    run = examples.lively_run(generator)
    by_layer, in_time = layers.forward_in_layers(*run).by, system_of(*run).derivatives_by_level()
    worst = max(float((a - in_time[name]).abs().max() / in_time[name].abs().max()) for name, a in by_layer.items())
    return Insight(
        "Forward in time, or forward in layers",
        "dG/dF has an entry where one spike acts on another. In order of time it is lower triangular. Sorted by layer "
        "it is so block by block: a layer needs its own resets (red) and the layer below (blue), and all its "
        "spikes are solved together. Both orders give the same dF/dW.",
        {"spikes": sum(spikes.n_spikes for spikes in run[2]), "largest relative difference in dF/dW": worst},
        layers.draw_layers(*run),
    )


def _levels(generator: torch.Generator) -> Insight:
    sizes: dict[str, int] = {"n_inputs": 5, "n_units": 20}
    runs = {
        "feed-forward": levels.causal_levels(*examples.lively_run(generator, (5, 20, 3))),
        "sparse loops": levels.causal_levels(*examples.recurrent_run(generator, density=SPARSE, **sizes)),
        "all to all": levels.causal_levels(*examples.recurrent_run(generator, **sizes)),
    }
    chain = runs["feed-forward"]
    decided = int(np.argmax(chain.layers == 1))
    numbers: dict[str, Number] = {
        f"{name}: spikes, levels, most spikes in one level": f"{run.times.size}, {run.depth}, {run.widths.max()}"
        for name, run in runs.items()
    }
    numbers["feed-forward, up to the first output spike"] = (
        f"{decided + 1}, {chain.depths[decided]}, {np.bincount(chain.levels[: decided + 1]).max()}"
    )
    return Insight(
        "Parallel, forward in time",
        "A spike waits for the spikes that fed it and for nothing else. Spikes of one causal level are computed at "
        "once; the depth, the number of levels, is what is left to do in sequence. Up to the first output spike, where "
        "a decision by first spikes falls, few units have fired twice and a chain is shallow. Later the depth grows "
        "with each unit's own spikes and with loops. Where all units reach one another without delay, every spike "
        "waits for the one before it, and nothing is left to do at once but the samples of a batch.",
        numbers,
        levels.draw_levels(runs),
    )


def _hebbian(generator: torch.Generator) -> Insight:
    net, inputs, record = examples.lively_run(generator)
    loss = losses.first_spike_cross_entropy(record[-1], torch.tensor([0]), tau=0.2) + _spread(record)
    terms, error = _hebbian_error(net, inputs, record, loss, "0.weight")
    looped, looped_inputs, looped_record = examples.recurrent_run(generator)
    looped_loss = _spread(looped_record)
    errors = [
        _hebbian_error(looped, looped_inputs, looped_record, looped_loss, name)[1]
        for name in ("weight", "recurrent_weight")
    ]
    counts = np.bincount(terms.units, minlength=terms.n_units)
    return Insight(
        "The gradient is a Hebbian sum",
        "How much of source j's smoothed activity has reached unit i when it fires, the feeding kernel y, times one "
        "number per spike, mu, summed over the spikes of i: that is dL/dW exactly. Where firing earlier lowers the "
        "loss, mu is negative, and the weights of the sources that fed the spike grow: those that fire together wire "
        "together.",
        {
            "largest relative difference to loss.backward()": error,
            "the same of a recurrent layer with self-loops": max(errors),
            "spikes with mu < 0": int((terms.mu < 0.0).sum()),
            "spikes with mu > 0": int((terms.mu > 0.0).sum()),
        },
        hebbian.draw_hebbian(terms, unit=int(counts.argmax())),
    )


def _hebbian_error(
    net: nn.Module, inputs: Spikes, record: Record, loss: Tensor, weight: str
) -> tuple[hebbian.HebbianTerms, float]:
    """The terms, and how far their sum is from autograd's gradient, over the largest entry of that."""
    terms = hebbian.hebbian_terms(net, inputs, record, loss, weight)
    (exact,) = torch.autograd.grad(loss, [net.get_parameter(weight)], retain_graph=True)
    return terms, float(np.abs(terms.gradient - exact.numpy()).max() / exact.abs().max())


def _or_none(distance: float) -> Number:
    return distance if np.isfinite(distance) else "none"


def _spread(record: Record) -> Tensor:
    """A second term for losses, on the hidden spikes themselves: half of them are asked to fire earlier, half later."""
    times: Tensor = record[0].times
    return 0.1 * (times - times.detach().median()).square().sum()


def _local_factor(generator: torch.Generator) -> Insight:
    net, inputs, record = examples.lively_run(generator)
    fires = np.flatnonzero(record[0].counts()[0].numpy())
    misses = [surrogate.nearest_miss(net, inputs, record, unit=int(unit)) for unit in fires]
    unit = int(fires[int(np.argmax(misses))])
    source = int(inputs.units[0])  # the earliest reaches every spike
    result = surrogate.local_factor(net, inputs, record, widths=FACTOR_WIDTHS, unit=unit, source=source)
    numbers: dict[str, Number] = {"nearest miss of the unit, theta - V": _or_none(max(misses))}
    numbers |= {
        f"{name}, width {width:g}": float(ratio)
        for name, row in zip(result.names, result.ratio, strict=True)
        for width, ratio in zip(result.widths, row, strict=True)
        if width in (1.0, 0.1, 0.01, 0.001)
    }
    return Insight(
        "A surrogate's window and the exact local factor",
        "A surrogate lets the weight feel its neuron while the potential is near the threshold; the exact gradient "
        "lets it feel y/V' at each spike. As the window shrinks, the first tends to the second: exact gradients are "
        "surrogates whose width is set anew at every spike, by its slope. The numbers are surrogate over exact "
        "factor.",
        numbers,
        surrogate.draw_local_factor(result, record),
    )


def _cosines(generator: torch.Generator) -> Insight:
    runs = [examples.lively_run(generator, (8, 10, 3)) for _ in range(COSINE_NETS)]
    result = surrogate.cosines(runs, widths=COSINE_WIDTHS, tau=1.0)
    medians = np.median(result.cosine, axis=2)
    numbers: dict[str, Number] = {"networks": COSINE_NETS, "step of the clock": result.dt}
    for name, by_width in zip(result.names, medians, strict=True):
        for label, row in ((f"{result.widths[0]:g}", by_width[0]), (f"{result.widths[-1]:g}", by_width[-1])):
            numbers[f"{name}, width {label}: hidden, output"] = f"{row[0]:.3f}, {row[1]:.3f}"
    return Insight(
        "How near surrogate gradients come",
        "Same networks, same spikes, same loss: a sum of exp(-f/tau) over output spikes, with a sign per unit. Lines "
        "are medians over the networks, bands quartiles. The output weights agree closely. The hidden weights agree "
        "less whatever the window: a surrogate asks what one more spike would do, the exact gradient what a later one "
        "would.",
        numbers,
        surrogate.draw_cosines(result),
    )


def _discrete_time(generator: torch.Generator) -> Insight:
    run = examples.clear_run(generator)
    result = discrete_time.convergence(*run, steps=GRID_STEPS)
    numbers: dict[str, Number] = {"spikes, the unknowns of continuous time": result.n_spikes}
    network = discrete_time.as_network(read_chain(*run))
    own = discrete_time.own_difference(network, dt=GRID_STEPS[0], t_end=2.0)
    numbers["grid against its own finite differences, relative"] = own
    for dt, error, unknowns in zip(result.dt, result.gradient_error, result.n_unknowns, strict=True):
        found = f"{error:.2g}" if np.isfinite(error) else "another number of spikes"
        numbers[f"dt = {dt:g}: error of dF/dW, unknowns"] = f"{found}, {unknowns}"
    return Insight(
        "The theorem on a time grid",
        "A simulator with a fixed step has unknowns too: every V and I at every grid point, and the firing times "
        "between. The same theorem gives derivatives that are exact for that simulator. They tend to those of "
        "continuous time in proportion to the step, while the unknowns grow with its inverse; continuous time has one "
        "per spike.",
        numbers,
        discrete_time.draw_discrete_time(result),
    )


def _eventprop(generator: torch.Generator) -> Insight:
    net, inputs, record = examples.lively_run(generator)
    loss = losses.first_spike_cross_entropy(record[-1], torch.tensor([0]), tau=0.2) + _spread(record)
    found = eventprop.eventprop_gradients(net, inputs, record, loss)
    mu = [hebbian.hebbian_terms(net, inputs, record, loss, f"{k}.weight").mu for k in range(2)]
    gap = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found.mu, mu, strict=True))
    exact = torch.autograd.grad(loss, [lif.weight for lif in lif_layers(net)], retain_graph=True)
    worst = max(
        float(np.abs(ours - theirs.numpy()).max() / theirs.abs().max())
        for ours, theirs in zip(found.weight, exact, strict=True)
    )
    numbers: dict[str, Number] = {
        "largest relative difference in dL/dW": worst,
        "largest relative difference of -tau_m times the jumps of lambda_V to mu": gap,
    }
    numbers |= {what: f"EventProp: {theirs}. Explicit system: {ours}" for what, theirs, ours in eventprop.NEEDS}
    counts = record[0].counts()[0]
    return Insight(
        "EventProp: the same gradient by another road",
        "EventProp integrates two adjoint variables per unit backwards through time, with a jump at every spike, and "
        "reads one of them at the spikes of the sources. The implicit function theorem leaves one number per spike, "
        "from firing times and causality alone: mu, which is -tau_m times the jump. Both give the same gradient from "
        "the same spikes, up to the error of the integration. With exponentials in its place, EventProp is the "
        "transpose solve in order of time, and that is how fireprop's own backward pass works, in time linear in the "
        "events.",
        numbers,
        eventprop.draw_eventprop(found, layer=0, unit=int(counts.argmax())),
    )


def _spikeprop(generator: torch.Generator) -> Insight:
    net, inputs, record = examples.single_spike_run(generator)
    loss = ((record[-1].times - 0.5) ** 2).sum() / 2.0
    exact = examples.as_list(
        list(torch.autograd.grad(loss, [lif.weight for lif in lif_layers(net)], retain_graph=True))
    )
    rule = spikeprop.spikeprop(net, inputs, record, (record[-1].times - 0.5).detach().numpy())
    worst = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(rule, exact, strict=True))
    return Insight(
        "SpikeProp: one spike per unit",
        "SpikeProp (2002) derived its delta rule from a linearised potential, for units that fire once. For such a "
        "run its rule is the exact gradient; the implicit function theorem needs no linearity, and goes on to any "
        "number of spikes.",
        {"largest relative difference in dL/dW": worst, "spikes": sum(spikes.n_spikes for spikes in record)},
        spikeprop.draw_spikeprop(rule, exact),
    )


def _rates(generator: torch.Generator) -> Insight:
    law = rates.rate_law(*examples.lively_run(generator), 0)
    layer, inputs = examples.silent_layer()
    revival = rates.revive(layer, inputs, unit=0, zeta_min=1.5, t_end=4.0)
    return Insight(
        "Rates, and bringing silent units back",
        "What a unit receives by T it has fired, leaked, or still holds: an exact balance at any T. The form for long "
        "times (crosses) counts charge that has not arrived yet. A silent unit has gradient 0 and cannot learn; "
        "moving its weights onto the balance that belongs to a higher mean potential zeta wakes it. That step is no "
        "gradient: it is an option of training, off by default.",
        {
            "largest relative gap of the balance": float(np.abs(law.received - law.spent).max() / law.received.max()),
            "largest relative gap of the long-time form": float(
                np.abs(law.published - law.spent).max() / law.received.max()
            ),
            "spikes before, after": f"{revival.spikes_before.size}, {revival.spikes_after.size}",
        },
        rates.draw_rates(law, revival),
    )
