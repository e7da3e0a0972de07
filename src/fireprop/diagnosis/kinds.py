"""The kinds of findings, causes before what follows from them, and what to do about each.

docs/doctor.md has the same list, with the limits.
"""

SLOWER = "Lower the learning rate (--lr), or shorten steps with --follow 1 --guard."
ONE_UNIT = "Give input times, t_end and time constants in one unit of time."
WAKE = "See docs/silent.md: raise the weights at the start, or add silent.silent_hinge to the loss."
RESCALE = (
    "Scale the weights to the data: nn.initialise(net, inputs, t_end=...), or --spikes-per-unit for your own data."
)

REMEDIES = {
    # The data.
    "times-too-short": ONE_UNIT,
    "times-too-long": ONE_UNIT,
    "inputs-after-end": f"Raise t_end, unless the samples are cut on purpose. {ONE_UNIT}",
    "idle-end": "Lower t_end. Losses that count silence as a spike at t_end need an end near the spikes.",
    "empty-samples": "Remove these samples, or look for the fault in what made them.",
    "dead-inputs": "Check that units are numbered from 0 without gaps, or leave these inputs out.",
    "label-range": "Number the classes from 0, and give the output layer a unit for each.",
    "unused-outputs": "Check the labels. Give the output layer a unit for each class, and no more.",
    "unbalanced-labels": "Compare the accuracy with that share. Draw the classes equally often, or weight the loss.",
    "equal-samples": "Look for an encoding that clips, and for labels in another order than the samples.",
    # The parameters.
    "learning-rate": "Lower the learning rate (--lr) until a step changes weights by a few percent.",
    "not-finite": "Start again from finite weights, with a smaller learning rate and max_sensitivity=.",
    "constant-bounds": "Train the logarithm (nn.keep_positive), at a smaller rate (constants_lr).",
    "huge-weights": f"{SLOWER} Start from smaller weights (docs/starting_weights.md).",
    "delays-past-end": "Give delays in the unit of the times, or raise t_end.",
    "frozen": "Call requires_grad_(True) on the parameters that should be trained.",
    # The activity.
    "runaway": f"Weaken excitation, or add a refractory period (t_ref). {RESCALE}",
    "runaway-samples": "Look at these samples. If they are as meant, shrink recurrent weights, and set max_spikes.",
    "silent-layer": f"{RESCALE} {ONE_UNIT}",
    "silent-outputs": WAKE,
    "silent-units": f"Nothing, if the accuracy is good. {WAKE}",
    "silent-labels": "Set patience (--patience), which keeps the units of labels firing. Where it is set, train for "
    f"more epochs. {SLOWER} {WAKE}",
    "rate-low": RESCALE,
    "rate-high": f"{RESCALE} losses.activity_bounds keeps rates low in training.",
    "bursts": "Lower the largest weights of these units, or give the layer a refractory period (t_ref).",
    "refractory-limit": "Lower the incoming weights of these units, or shorten t_ref.",
    # The outputs and the loss.
    "outputs-together": "Start from output weights that differ, and are so small that outputs wait for several spikes.",
    "loss-fails": "Do what the message says.",
    "loss-not-finite": "Check the formula of the loss. Silent units have infinite spike times.",
    "flat-loss": "Look for silent outputs. Make tau of the loss as long as the time differences that it reads.",
    # How near the spikes are to a change.
    "steep-spikes": "Bound 1/slope with max_sensitivity=, an option of every run (docs/gradients.md).",
    "near-change": f"{SLOWER} Start from weights that vary more (docs/exactness.md).",
    "order-ties": "Choose delays that differ from t_ref, and inputs that do not all come at the same times.",
    # The gradient.
    "gradient-vanishes": "Check that the layer fires before the outputs decide. Raise the weights that lead from it.",
    "dead-end": "Connect the layer, or check which population is the output.",
    "gradient-explodes": "Bound 1/slope (max_sensitivity=), clip gradients, lower t_end, or shrink recurrent weights.",
    "early-inputs": "Give longer time constants or delays, or recurrent weights that keep activity going.",
    # The steps of a run.
    "steps-too-large": SLOWER,
    "steps-silence-labels": SLOWER,
    "training-ran-away": f"{SLOWER} --max-spikes ends such a run.",
    # What follows, of a run that has been trained.
    "one-answer": f"See the other findings first. {SLOWER}",
    "loss-rises": f"{SLOWER} If the accuracy is good, look for silent labels (docs/silent.md).",
    "loss-stands": "See the other findings first. Without any, try a learning rate ten times as large.",
}
