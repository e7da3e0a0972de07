"""What every program does: read jobs, load and run each network in its tool, write what came out. No fireprop in here.

A tool's program gives two functions.

    load(graph, dt, steps) -> run                the network of a NIR graph in the tool
    build(spec, dt) -> (run, export)             a network of the tool's own modules; export() is its NIR graph
    run(x) -> (out, v)                           x (steps, *inputs); out (steps, units); v (steps,) of unit 0, or None

The graph that `build` is asked for: dense weights, CubaLIF of one tau_mem, tau_syn and threshold, perhaps a loop.
"""

import importlib.metadata
import json
import sys
import warnings

import nir
import numpy as np


class NotBuiltError(Exception):
    """A network that a tool's writer has no branch for, and that was not tried."""


def main(tool, load, build, read=nir.read):
    jobs, out = sys.argv[1:3]
    found = {"version": importlib.metadata.version(tool)}
    with open(jobs) as file:
        todo = json.load(file)
    for job in todo:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found[job["id"]] = measured(job, load, build, read)
            except NotBuiltError as error:
                found[job["id"]] = {"none": str(error)}
            except Exception as error:  # whatever a tool raises is its answer
                text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                found[job["id"]] = {"refuses": text}
    with open(out, "w") as file:
        json.dump(found, file)


def measured(job, load, build, read):
    x = np.zeros((job["steps"], *job["shape"]), np.float32)
    for step, unit in job["spikes"]:
        x[(step, *np.unravel_index(unit, job["shape"]))] += 1.0
    if "spec" in job:
        run, export = build(job["spec"], job["dt"])
        nir.write(job["file"], export())
    else:
        run = load(read(job["file"]), job["dt"], job["steps"])
    out, v = run(x)
    out = np.asarray(out).reshape(job["steps"], -1)
    if job.get("probe") == "output":
        return {"spikes": [], "v": [float(e) for e in out[:, 0]]}
    spikes = [[int(step), int(unit)] for step, unit in zip(*np.nonzero(out), strict=True)]
    return {"spikes": spikes, "v": None if v is None else [float(e) for e in v]}


def stepwise(torch, call, first=None):
    """run(x) of a torch module that takes a step and a state; `call(x, state)` returns (out, state, v)."""

    def run(x):
        state, outs, vs = first, [], []
        with torch.no_grad():
            for now in torch.from_numpy(x):
                out, state, v = call(now[None], state)
                outs.append(out.reshape(-1).numpy())
                vs.append(None if v is None else float(torch.as_tensor(v).reshape(-1)[0]))
        return np.array(outs), None if vs[0] is None else vs

    return run
