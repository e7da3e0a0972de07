"""fireprop, run as its peers are.

first-spikes  ends a sample at its outputs' first spikes and minimises their cross entropy
all-spikes    ends it at t_end and minimises the loss of the programs with time steps, from which every spike has its
              gradient
"""

import torch
from measuring import Program, Work, arguments, measure

import fireprop
from fireprop import losses
from fireprop.nn import LIF, Sequential
from fireprop.optim import Adam

STOPS = {"first-spikes": "first_spikes", "all-spikes": None}


def early_spikes_cross_entropy(out, labels, t_end):
    """An output spike counts 1 at time 0 and less later, down to 0 at t_end, as in stepping.py."""
    scores = torch.zeros(len(out) * out.n_units, dtype=out.times.dtype)
    scores = scores.index_add(0, out.samples * out.n_units + out.units, 1.0 - out.times / t_end)
    return torch.nn.functional.cross_entropy(scores.reshape(len(out), out.n_units), labels)


def build(work):
    taus = {"tau_mem": work.tau_mem, "tau_syn": work.tau_syn, "dtype": torch.float32}
    (n_hidden, n_inputs), n_outputs = work.hidden.shape, len(work.output)
    net = Sequential(
        LIF(n_inputs, n_hidden, recurrent=work.recurrent is not None, **taus), LIF(n_hidden, n_outputs, **taus)
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.from_numpy(work.hidden))
        net[1].weight.copy_(torch.from_numpy(work.output))
        if work.recurrent is not None:
            net[0].recurrent_weight.copy_(torch.from_numpy(work.recurrent))
    return net


def main():
    given = arguments(STOPS)
    work = Work(given.work)
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    net = build(work)
    optimizer = Adam(net.parameters(), lr=work.lr, fused=True)
    run = {"t_end": work.t_end, "stop": STOPS[given.mode]}
    times, units = torch.from_numpy(work.times), torch.from_numpy(work.units)
    units = units.where(torch.isfinite(times), -1)
    spikes = fireprop.Spikes.from_padded_events(times, units, n_units=work.n_inputs)
    labels = torch.from_numpy(work.labels)

    def batch(k):
        start = k % work.n_batches * work.batch_size
        return spikes[start : start + work.batch_size], labels[start : start + work.batch_size]

    def step(k, lr):
        inputs, wanted = batch(k)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        out = net(inputs, **run)
        if given.mode == "all-spikes":
            loss = early_spikes_cross_entropy(out, wanted, work.t_end)
        else:
            loss = losses.first_spike_cross_entropy(out, wanted, tau=work.tau)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def count(k):
        with torch.no_grad():
            hidden, output = (layer.n_spikes / work.batch_size for layer in net.record(batch(k)[0], **run))
        return {"hidden": hidden, "output": output}

    def weights():
        return [weight.detach().numpy() for weight in net.parameters()]

    program = Program(step, count, weights, restart=optimizer.state.clear)
    measure(work, program, ["fireprop", "numba", "torch"], given.seconds)


if __name__ == "__main__":
    main()
