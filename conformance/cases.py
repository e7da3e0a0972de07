"""The networks: NIR graphs in the unit of time in which tau_mem is about 1, with the spikes that they get.

A graph here is what its equations say: r = tau_mem, w_in = tau_syn, and a spike is a pulse of area 1. `scaled`
writes it for a time grid: in the unit of a tool, and in one of two forms of the same equations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import nir
import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
GRID = 1 / 25  # inputs and delays are multiples of it, and so whole steps at all resolutions
RESOLUTIONS = (25, 50, 100, 200)  # steps per unit of time
T_END = 2.0
# How a file says the same network. "equations": a spike is a pulse of area 1, as `to_nir` writes. "grid": a spike is 1
# for one step, r = tau_mem / dt and w_in = tau_syn / dt, as tools with a time grid write.
FORMS = ("equations", "grid")


@dataclass(frozen=True)
class Case:
    """A network and its inputs.

    nodes   the NIR nodes that it is about, as the table names them
    build   makes the graph
    trains  of each input, the firing times
    probe   what is compared instead of spikes: "potential" of its only unit, which then does not fire, or "output",
            where the network gives out a potential
    """

    name: str
    nodes: str
    build: Callable[[], nir.NIRGraph]
    trains: tuple[tuple[float, ...], ...]
    probe: Literal["", "potential", "output"] = ""
    note: str = ""


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def cuba(n: int, shape: tuple[int, ...] | None = None, **other: Any) -> nir.CubaLIF:
    shape = shape or (n,)
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0, **other}
    full = {
        name: np.full(shape, value) if np.ndim(value) == 0 else np.array(value) for name, value in constants.items()
    }
    return nir.CubaLIF(r=full["tau_mem"].copy(), w_in=full["tau_syn"].copy(), **full)


def silent_cuba() -> nir.CubaLI:
    one = np.ones(1)
    return nir.CubaLI(tau_mem=one, tau_syn=0.5 * one, r=one, w_in=0.5 * one, v_leak=0.0 * one)


def graph(nodes: dict[str, Any], edges: list[tuple[str, str]]) -> nir.NIRGraph:
    return nir.NIRGraph(nodes, edges)


def chain(*nodes: Any, inputs: tuple[int, ...], loop: Array | None = None) -> nir.NIRGraph:
    """Nodes one after the other; with `loop`, the last one feeds itself by this weight."""
    named = {f"node_{k}": node for k, node in enumerate(nodes)}
    names = ["input", *named, "output"]
    edges = list(pairwise(names))
    last = names[-2]
    # tools look for the node "input" first
    every = {"input": nir.Input(np.array(inputs)), **named, "output": nir.Output(nodes[-1].output_type["output"])}
    if loop is not None:
        every["loop"] = nir.Linear(loop)
        edges += [(last, "loop"), ("loop", last)]
    return nir.NIRGraph(every, edges)


def linear(values: Any) -> nir.Linear:
    return nir.Linear(np.array(values, float))


def random_weight(n_out: int, n_in: int, mean: float, seed: int) -> Array:
    return rng(seed).normal(mean, 0.3 * mean, (n_out, n_in)).round(2)


PAIR, OTHER = [[3.2, 2.6]], [[2.6, 3.2]]
LOOP = np.array([[0.0, 1.0, -0.8], [0.6, 0.0, 0.9], [-0.5, 0.7, 0.0]])
DENSE = random_weight(4, 3, 2.4, 1)
ONE = ((0.2,),)
TWO = ((0.2, 0.8, 1.4), (0.4, 1.0))
THREE = ((0.2, 1.0), (0.32, 1.6), (0.6, 0.8))
NINE = tuple(((0.2 + 0.12 * k), 1.2 + 0.08 * k) for k in range(9))
SIXTEEN = tuple(((0.2 + 0.08 * (k % 7)),) for k in range(16))


def pooled(pool: type, weight: float) -> Callable[[], nir.NIRGraph]:
    def build() -> nir.NIRGraph:
        node = pool(kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([0, 0]))
        node.input_type, node.output_type = {"input": np.array([1, 4, 4])}, {"output": np.array([1, 2, 2])}
        flat = nir.Flatten({"input": np.array([1, 2, 2])}, start_dim=0, end_dim=-1)
        return chain(
            node, flat, linear(np.diag([weight, 0.9 * weight, 1.1 * weight, 1.2 * weight])), cuba(4), inputs=(1, 4, 4)
        )

    return build


def nested() -> nir.NIRGraph:
    """As the case "recurrent", with the neurons and their loop in a graph of their own."""
    ends = nir.Input(np.array([3])), nir.Output(np.array([3]))
    inner = {"input": ends[0], "lif": cuba(3), "w_rec": nir.Linear(LOOP), "output": ends[1]}
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    return chain(linear(random_weight(3, 3, 2.4, 1)), nir.NIRGraph(inner, edges), inputs=(3,))


def affine() -> nir.NIRGraph:
    return chain(nir.Affine(np.array(PAIR), np.array([0.7])), cuba(1), inputs=(2,))


def convolved_in_line() -> nir.NIRGraph:
    weight = rng(6).normal(2.2, 0.4, (1, 1, 3)).round(2)
    node = nir.Conv1d(input_shape=6, weight=weight, stride=1, padding=0, dilation=1, groups=1, bias=np.zeros(1))
    flat = nir.Flatten({"input": np.array([1, 4])}, start_dim=0, end_dim=-1)
    return chain(node, flat, linear(np.eye(4)), cuba(4), inputs=(1, 6))


def convolved() -> nir.NIRGraph:
    weight = rng(5).normal(1.6, 0.3, (1, 1, 2, 2)).round(2)
    node = nir.Conv2d(input_shape=(3, 3), weight=weight, stride=1, padding=0, dilation=1, groups=1, bias=np.zeros(1))
    flat = nir.Flatten({"input": np.array([1, 2, 2])}, start_dim=0, end_dim=-1)
    return chain(node, flat, linear(np.eye(4)), cuba(4), inputs=(1, 3, 3))


CASES = [
    Case(
        "potential", "CubaLIF, potential", lambda: chain(linear([[2.0]]), cuba(1), inputs=(1,)), ONE,
        probe="potential",
    ),
    Case("CubaLI", "CubaLI, its output", lambda: chain(linear(PAIR), silent_cuba(), inputs=(2,)), TWO, probe="output"),
    Case("one unit", "Linear, CubaLIF", lambda: chain(linear(PAIR), cuba(1), inputs=(2,)), TWO),
    Case("dense", "Linear, 3 to 4 units", lambda: chain(linear(DENSE), cuba(4), inputs=(3,)), THREE),
    Case(
        "tau per unit", "CubaLIF, tau per unit",
        lambda: chain(
            linear(random_weight(3, 3, 2.4, 1)), cuba(3, tau_mem=[0.8, 1.0, 1.4], tau_syn=[0.3, 0.5, 0.7]), inputs=(3,)
        ),
        THREE,
    ),
    Case(
        "threshold per unit", "CubaLIF, v_threshold per unit",
        lambda: chain(linear(random_weight(3, 3, 2.4, 1)), cuba(3, v_threshold=[0.8, 1.0, 1.3]), inputs=(3,)), THREE,
    ),
    Case("v_leak", "CubaLIF, v_leak = 0.6", lambda: chain(linear(PAIR), cuba(1, v_leak=0.6), inputs=(2,)), TWO),
    Case(
        "v_reset", "CubaLIF, v_reset = 0.3",
        lambda: chain(linear(PAIR), cuba(1, v_reset=0.3, v_leak=0.3), inputs=(2,)), TWO,
        note="v_leak = 0.3, v(0) = 0.3",
    ),
    Case("affine", "Affine, bias = 0.7", affine, TWO),
    Case("scale", "Scale", lambda: chain(nir.Scale(np.array([1.5, 0.6])), linear(OTHER), cuba(1), inputs=(2,)), TWO),
    Case("delay", "Delay", lambda: chain(nir.Delay(np.array([0.2, 0.4])), linear(PAIR), cuba(1), inputs=(2,)), TWO),
    Case("conv 1d", "Conv1d, Flatten", convolved_in_line, NINE[:6]),
    Case("conv", "Conv2d, Flatten", convolved, NINE),
    Case("sum pool", "SumPool2d, Flatten", pooled(nir.SumPool2d, 2.4), SIXTEEN),
    Case("average pool", "AvgPool2d, Flatten", pooled(nir.AvgPool2d, 9.6), SIXTEEN),
    Case(
        "two layers", "two layers",
        lambda: chain(linear(DENSE), cuba(4), linear(random_weight(2, 4, 1.6, 2)), cuba(2), inputs=(3,)),
        THREE,
    ),
    Case(
        "recurrent", "recurrence, flat graph",
        lambda: chain(
            linear(random_weight(3, 3, 2.4, 1)), cuba(3), inputs=(3,),
            loop=LOOP,
        ),
        THREE,
    ),
    Case("nested", "recurrence, nested graph", nested, THREE),
    Case(
        "LIF", "LIF",
        lambda: chain(
            nir.Affine(np.array([[0.45, 0.3]]), np.zeros(1)),
            nir.LIF(tau=np.ones(1), r=np.ones(1), v_leak=np.zeros(1), v_threshold=np.ones(1), v_reset=np.zeros(1)),
            inputs=(2,),
        ),
        ((0.2, 0.4, 0.6, 1.2, 1.4), (0.52, 0.68, 1.6, 1.8)),
    ),
    Case(
        "LI", "LI, its output",
        lambda: chain(
            nir.Affine(np.array([[0.45, 0.3]]), np.zeros(1)),
            nir.LI(tau=np.ones(1), r=np.ones(1), v_leak=np.zeros(1)),
            inputs=(2,),
        ),
        TWO, probe="output",
    ),
    Case(
        "IF", "IF",
        lambda: chain(
            nir.Affine(np.array([[0.4, 0.25]]), np.zeros(1)),
            nir.IF(r=np.ones(1), v_threshold=np.ones(1), v_reset=np.zeros(1)), inputs=(2,),
        ),
        ((0.2, 0.4, 0.6, 1.2, 1.4), (0.52, 0.68, 1.6, 1.8)),
    ),
]  # fmt: skip
BY_NAME = {case.name: case for case in CASES}


JUMPING = nir.LIF | nir.IF | nir.LI  # whose potential jumps at an input spike; fireprop refuses them


def scaled(source: nir.NIRGraph, form: str, steps: int, dt: float, factor: float = 1.0) -> nir.NIRGraph:
    """The same network on a grid with `steps` of dt per unit of time; all weights times `factor`, which is for spikes:
    a constant input stays."""
    s = steps * dt  # of one unit of time
    pulse = 1.0 / s if form == "equations" else 1.0 / steps  # weight of a spike, of the form
    nodes: dict[str, Any] = {}
    jumps = any(isinstance(node, JUMPING) for node in source.nodes.values())
    weight = factor * (1.0 if jumps else pulse)
    for name, node in source.nodes.items():
        nodes[name] = _scaled(node, form, s, dt, weight, pulse, factor)
    return nir.NIRGraph(nodes, source.edges)


def _scaled(node: Any, form: str, s: float, dt: float, weight: float, pulse: float, factor: float) -> Any:
    on_grid = form == "grid"
    if isinstance(node, nir.NIRGraph):
        inner = {name: _scaled(own, form, s, dt, weight, pulse, factor) for name, own in node.nodes.items()}
        return nir.NIRGraph(inner, node.edges)
    if isinstance(node, nir.Linear):
        return nir.Linear(node.weight * weight)
    if isinstance(node, nir.Affine):
        return nir.Affine(node.weight * weight, node.bias * pulse**2)
    if isinstance(node, nir.Delay):
        return nir.Delay(node.delay * s)
    if isinstance(node, nir.CubaLIF):
        tau_mem, tau_syn = node.tau_mem * s, node.tau_syn * s
        r, w_in = (tau_mem / dt, tau_syn / dt) if on_grid else (tau_mem.copy(), tau_syn.copy())
        return nir.CubaLIF(
            tau_mem=tau_mem, tau_syn=tau_syn, r=r, w_in=w_in, v_leak=node.v_leak, v_threshold=node.v_threshold,
            v_reset=node.v_reset,
        )  # fmt: skip
    if isinstance(node, nir.CubaLI):
        tau_mem, tau_syn = node.tau_mem * s, node.tau_syn * s
        r, w_in = (tau_mem / dt, tau_syn / dt) if on_grid else (tau_mem.copy(), tau_syn.copy())
        return nir.CubaLI(tau_mem=tau_mem, tau_syn=tau_syn, r=r, w_in=w_in, v_leak=node.v_leak)
    if isinstance(node, nir.LIF | nir.LI):
        tau = node.tau * s
        r = tau / dt if on_grid else tau.copy()
        if isinstance(node, nir.LI):
            return nir.LI(tau=tau, r=r, v_leak=node.v_leak)
        return nir.LIF(tau=tau, r=r, v_leak=node.v_leak, v_threshold=node.v_threshold, v_reset=node.v_reset)
    if isinstance(node, nir.IF):
        return nir.IF(r=node.r / dt if on_grid else node.r, v_threshold=node.v_threshold, v_reset=node.v_reset)
    return node
