"""Forward and reverse pass of a clock-driven net with one hidden layer, compiled; `clocked` says what they compute.

Per step and unit the arithmetic is a handful of operations, vectorised over the hidden units; a node of torch's graph
for each would cost more than all of them.
"""

import numpy as np

from fireprop.kernels.compiling import njit


@njit(cache=True, nogil=True)
def forward(inputs, weights, biases, constants, potentials):
    """Potentials of both layers.

    inputs          (batch, steps, n_in) bool
    weights         (n_in, n_hidden), (n_hidden, n_out) float32: transposed, so that the receivers lie side by side
    biases          (n_hidden,), (n_out,) float32, arriving at every step
    constants       float32: decay of I and of V over a step, gain, threshold
    potentials      (batch, steps, n_hidden), (batch, steps, n_out) float32: out
    """
    batch, steps, n_in = inputs.shape
    n_hidden, n_out = weights[1].shape
    decay_i, decay_v, gain, threshold = constants
    hidden, output = potentials
    i_hidden, i_output = np.empty(n_hidden, np.float32), np.empty(n_out, np.float32)
    for b in range(batch):
        i_hidden[:], i_output[:] = 0.0, 0.0
        for n in range(steps):
            i_hidden[:] = i_hidden * decay_i + biases[0]
            i_output[:] = i_output * decay_i + biases[1]
            for source in range(n_in):
                if inputs[b, n, source]:
                    i_hidden += weights[0][source]
            step(hidden, b, n, i_hidden, decay_v, gain, threshold)
            for source in range(n_hidden):
                if hidden[b, n, source] > threshold:
                    for unit in range(n_out):
                        i_output[unit] += weights[1][source, unit]
            step(output, b, n, i_output, decay_v, gain, threshold)


@njit(cache=True, nogil=True)
def step(potentials, b, n, current, decay_v, gain, threshold):
    """Potentials at step n from those before; a unit that fired there is reset by subtraction."""
    for unit in range(current.size):
        v = np.float32(0.0)
        if n > 0:
            before = potentials[b, n - 1, unit]
            v = decay_v * before - (threshold if before > threshold else np.float32(0.0))
        potentials[b, n, unit] = v + gain * current[unit]


@njit(cache=True, nogil=True)
def backward(inputs, weights, potential, slope, grad_output, constants, grad_weights, grad_biases):
    """Gradients of weights and biases, summed over the batch.

    weights       (n_hidden, n_in), (n_out, n_hidden) float32
    potential     of the hidden units, (batch, steps, n_hidden) float32; slope: the surrogate derivative there
    grad_output   of the output potentials: (batch, steps, n_out) float32, the surrogate derivative included
    grad_weights  (n_in, n_hidden), (n_out, n_hidden) float32: out, zero at the start; the first is transposed
    grad_biases   (n_hidden,), (n_out,) float32: out, zero at the start
    """
    batch, steps, n_in = inputs.shape
    n_out, n_hidden = weights[1].shape
    decay_i, decay_v, gain, threshold = constants
    adj_v, adj_i = np.empty(n_hidden, np.float32), np.empty(n_hidden, np.float32)
    out_v, out_i = np.empty(n_out, np.float32), np.empty(n_out, np.float32)
    grad_spike = np.empty(n_hidden, np.float32)
    for b in range(batch):
        adj_v[:], adj_i[:], out_v[:], out_i[:] = 0.0, 0.0, 0.0, 0.0
        for n in range(steps - 1, -1, -1):
            grad_spike[:] = 0.0
            for receiver in range(n_out):
                out_v[receiver] = decay_v * out_v[receiver] + grad_output[b, n, receiver]
                out_i[receiver] = decay_i * out_i[receiver] + gain * out_v[receiver]
                grad_biases[1][receiver] += out_i[receiver]
                spread(
                    weights[1][receiver],
                    potential[b, n],
                    out_i[receiver],
                    threshold,
                    grad_spike,
                    grad_weights[1][receiver],
                )
            for unit in range(n_hidden):
                adj_v[unit] = decay_v * adj_v[unit] + grad_spike[unit] * slope[b, n, unit]
                adj_i[unit] = decay_i * adj_i[unit] + gain * adj_v[unit]
                grad_biases[0][unit] += adj_i[unit]
            for source in range(n_in):
                if inputs[b, n, source]:
                    grad_weights[0][source] += adj_i


@njit(cache=True, nogil=True)
def spread(weight, potential, adj_i, threshold, grad_spike, grad_weight):
    """One output's adjoint current: to the spikes of the hidden units, and to its weights from those that fired."""
    for unit in range(weight.size):
        grad_spike[unit] += weight[unit] * adj_i
        # A product, not a branch: the loop is vectorised.
        grad_weight[unit] += adj_i * np.float32(potential[unit] > threshold)
