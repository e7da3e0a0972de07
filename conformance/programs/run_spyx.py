"""Spyx, by its own reader and writer of NIR."""

import contextlib
import io

import driving
import jax.numpy as jnp
import numpy as np
from flax import nnx
from spyx import nir as exchange
from spyx import nn


def load(graph, dt, steps):
    def run(x):
        if x.ndim == 4:  # its convolutions and pools have channels last, NIR has them first
            x = np.moveaxis(x, 1, -1)
        with contextlib.redirect_stdout(io.StringIO()):
            _, out = exchange.from_nir(graph, jnp.asarray(x)[:, None], dt=dt)
        return np.asarray(out)[:, 0], None

    return run


def build(spec, dt):
    modules, rngs = [], nnx.Rngs(0)
    for k, weight in enumerate(spec["weights"]):
        own = nnx.Linear(len(weight[0]), len(weight), use_bias=False, rngs=rngs)
        own.kernel[...] = jnp.asarray(weight).T * dt
        constants = {
            "alpha": 1.0 - dt / spec["tau_syn"], "beta": 1.0 - dt / spec["tau_mem"], "threshold": spec["v_threshold"],
            "rngs": rngs,
        }  # fmt: skip
        if spec["loop"] and k == len(spec["weights"]) - 1:
            cell = nn.RCuBaLIF((len(weight),), **constants)
            cell.recurrent_w[...] = jnp.asarray(spec["loop"]).T * dt
        else:
            cell = nn.CuBaLIF((len(weight),), **constants)
        modules += [own, cell]
    net = nn.Sequential(*modules)
    sizes = len(spec["weights"][0][0]), len(spec["weights"][-1])

    def run(x):
        out, _ = nn.run(net, jnp.asarray(x)[:, None])
        return np.asarray(out)[:, 0], None

    def export():
        shapes = {"input": np.array([sizes[0]])}, {"output": np.array([sizes[1]])}
        return exchange.to_nir(net, *shapes, dt=dt)

    return run, export


if __name__ == "__main__":
    driving.main("spyx", load, build)
