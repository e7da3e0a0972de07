"""Malformed and hostile graphs and files in NIR: each is refused in words, in bounded memory and time."""

import math
import re
import resource
import sys
import time
from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest
import torch

from fireprop.interop.nir import between, flat, from_nir, read_nir, signals, stencils, to_nir
from fireprop.nn import LIF, Sequential

ONE, HUGE = np.ones(2), 2**31


def cell(n=2, **constants):
    names = ("tau_syn", "tau_mem", "r", "w_in", "v_threshold")
    return nir.CubaLIF(**{**dict.fromkeys(names, np.ones(n)), "v_leak": np.zeros(n), **constants})


def graph(nodes=None, edges=None):
    """A graph of an Input, a Linear, a CubaLIF and an Output, whose shapes nir does not check."""
    every = {"in": nir.Input(np.array([3])), "w": nir.Linear(np.ones((2, 3))), "cell": cell()}
    every |= {"out": nir.Output(np.array([2])), **(nodes or {})}
    return nir.NIRGraph(every, list(pairwise(every)) if edges is None else edges, type_check=False)


# --- files ---


def edited(change):
    """A file in which `change` has edited the group of the graph."""

    def make(path):
        nir.write(path, graph())
        with h5py.File(path, "r+") as file:
            change(file["node"])

    return make


def put(name, value, **options):
    """A file with another value in the place of an entry."""

    def change(node):
        if name in node:
            del node[name]
        node.create_dataset(name, **({"data": value} if value is not None else {}), **options)

    return edited(change)


def without(name):
    return edited(lambda node: node.__delitem__(name))


def cell_with(name, value, **options):
    return put(f"nodes/cell/{name}", value, **options)


def cut(share):
    def make(path):
        nir.write(path, graph())
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return make


def plain_text(path):
    path.write_text("layers: 3\n" * 100)


def folder(path):
    path.mkdir()


def absent(path):
    pass


def other_content(path):
    with h5py.File(path, "w") as file:
        file["weights"] = np.ones(3)


def one_node(path):
    nir.write(path, nir.Linear(np.ones((2, 3))))


def own_parent(node):
    node["nodes/cell/metadata"] = node["nodes"]


def linked(link):
    def change(node):
        del node["nodes/w/weight"]
        node["nodes/w/weight"] = link

    return edited(change)


def shared(node):
    node["nodes/twin"] = node["nodes/w"]


def deep_groups(node):
    group = node["nodes/cell"].create_group("metadata")
    for _ in range(500):
        group = group.create_group("a")


def deep_graphs(node):
    inner = node["nodes"]
    for _ in range(150):
        outer = inner.create_group("sub")
        outer["type"] = "NIRGraph"
        outer["edges"] = np.zeros((0, 2))
        inner = outer.create_group("nodes")


def huge_chunk(node):
    del node["nodes/w/weight"]
    node["nodes/w"].create_dataset("weight", (2, 3), "f4", maxshape=(None, None), chunks=(2**14, 2**15), compression=1)


def elsewhere(node):
    del node["nodes/w/weight"]
    node["nodes/w"].create_dataset("weight", (2, 3), "f8", external="/dev/zero")


def damaged_chunk(path):
    nir.write(path, graph({"w": nir.Linear(np.random.default_rng(0).normal(size=(200, 300)))}))
    with h5py.File(path, "r") as file:
        chunk = file["node/nodes/w/weight"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + 200] = bytes(200)
    path.write_bytes(content)


def with_length(number):
    def make(path):
        nir.write(path, graph())
        with h5py.File(path, "r") as file:
            at = file["node/edges"].id.get_offset()
        content = bytearray(path.read_bytes())
        content[at : at + 4] = number.to_bytes(4, "little")
        path.write_bytes(content)

    return make


def heap_without_an_end(path):
    nir.write(path, graph())
    content = bytearray(path.read_bytes())
    free = content.index(b"GCOL") + 16
    while content[free : free + 2] != bytes(2):
        free += 16 + (int.from_bytes(content[free + 8 : free + 16], "little") + 7) // 8 * 8
    content[free : free + 16] = bytes(16)
    path.write_bytes(content)


FILES = {
    "absent": (absent, "cannot read {path}: No such file"),
    "a folder": (folder, "cannot read {path}: Is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "{path} is no HDF5 file, or it is damaged"),
    "text": (plain_text, "{path} is no HDF5 file, or it is damaged"),
    "cut in the middle": (cut(0.5), "{path} is no HDF5 file, or it is damaged (Unable to synchronously open file (t"),
    "cut at the start": (cut(0.005), "{path} is no HDF5 file, or it is damaged"),
    "a damaged chunk": (damaged_chunk, "cannot read /node/nodes/w/weight ("),
    "a heap without an end": (heap_without_an_end, "{path} is damaged: its heap of texts at byte "),
    "a text of 4 GiB": (with_length(2**32 - 1), "/node/edges is damaged: a text is longer than the file"),
    "a text of 3 bytes": (with_length(3), "cannot read /node/edges ("),
    "texts in chunks": (put("edges", [["in", "w"]], chunks=(1, 2)), "/node/edges has its texts in chunks: write them"),
    "other content": (other_content, "has no NIR graph: it has no group 'node', but 'weights'"),
    "no content": (lambda path: h5py.File(path, "w").close(), "it has no group 'node', but nothing"),
    "one node": (one_node, "holds a Linear: from_nir reads a NIRGraph: put the node into one"),
    "no nodes": (without("nodes"), "the graph: nodes is missing: a NIRGraph has type, nodes, edges, metadata"),
    "no edges": (without("edges"), "the graph: edges is missing"),
    "no type": (without("nodes/cell/type"), "node cell: its type is missing: give the name of a node of NIR"),
    "another type": (cell_with("type", "Neuron"), "node cell: type = 'Neuron': give the name of a node of NIR"),
    "a type of nir": (cell_with("type", "read"), "node cell: type = 'read'"),
    "a number as type": (cell_with("type", 3.0), "node cell: type = 3.0"),
    "a huge text as type": (cell_with("type", "A" * 10**6), f"node cell: type = '{'A' * 56}...: give"),
    "no tau_mem": (without("nodes/cell/tau_mem"), "node cell: tau_mem is missing: a CubaLIF has type, tau_syn"),
    "another constant": (cell_with("t_ref", ONE), "node cell: t_ref is unknown: a CubaLIF has type, tau_syn, tau_mem"),
    "a check of types": (put("type_check", True), "the graph: type_check is unknown"),
    "an array as node": (put("nodes/cell", ONE), "node cell is no group: give a group with its type"),
    "an array as nodes": (put("nodes", ONE), "the graph: nodes is no group"),
    "an array as metadata": (cell_with("metadata", ONE), "node cell: metadata is no group"),
    "a group as array": (edited(lambda node: node.create_group("nodes/cell/x").move), "node cell: x is unknown"),
    "numbers as edges": (put("edges", np.ones((3, 2))), "edges is no array of pairs"),
    "triples as edges": (put("edges", [["in", "w", "cell"]]), "/node/edges is text of shape (1, 3)"),
    "one end": (put("edges", ["in"]), "edges is no array of pairs"),
    "an edge in no UTF-8": (put("edges", np.array([[b"\xff", b"w"]])), "cannot read /node/edges ("),
    "an edge to nowhere": (put("edges", [["in", "gone"]]), "the graph: edge in -> gone: there is no node gone"),
    "2^31 units": (put("nodes/in/shape", np.array([HUGE])), "its input 2147483648 entries: give (out, 2147483648)"),
    "2^62 units": (put("nodes/in/shape", np.array([HUGE, HUGE])), "node in: shape (2147483648, 2147483648): give the"),
    "a weight of 2^62": (put("nodes/w/weight", None, shape=(HUGE, HUGE), dtype="f8", chunks=(9, 9)),
                         "/node/nodes/w/weight needs 36893488147419103232 bytes ((2147483648, 2147483648) of float64)"),
    "2^31 taus": (cell_with("tau_mem", None, shape=(HUGE,), dtype="f4", chunks=(9,)), "tau_mem needs 8589934592 bytes"),
    "2^31 edges": (put("edges", None, shape=(HUGE, 2), dtype=h5py.string_dtype(), chunks=(9, 2)), "/node/edges needs"),
    "a shape of 2^20 axes": (put("nodes/in/shape", np.ones(2**20, int)), "shape has 1048576 entries: give one for"),
    "a chunk of 2 GiB": (edited(huge_chunk), "weight needs 2147483648 bytes"),
    "a group in itself": (edited(own_parent), "/node/nodes/cell/metadata is a link"),
    "a node twice": (edited(shared), "/node/nodes/w is a link: store what it leads to in its place"),
    "a link to nowhere": (linked(h5py.SoftLink("/nowhere")), "/node/nodes/w/weight is a link"),
    "a link to a file": (linked(h5py.ExternalLink("/dev/zero", "/")), "/node/nodes/w/weight is a link"),
    "numbers of a file": (edited(elsewhere), "/node/nodes/w/weight lies in another file"),
    "500 groups": (edited(deep_groups), "groups are nested more than 208 deep"),
    "150 graphs": (edited(deep_graphs), "nested more than"),
    "no dataspace": (cell_with("r", h5py.Empty("f8")), "/node/nodes/cell/r is empty"),
    "records": (cell_with("r", np.zeros(2, [("a", "f8")])), "/node/nodes/cell/r holds [('a', '<f8')]: give numbers"),
    "lists": (cell_with("r", None, shape=(2,), dtype=h5py.vlen_dtype("f8")), "/node/nodes/cell/r holds object: give"),
    "texts": (cell_with("r", ["a", "b"]), "node cell: r holds object: give numbers"),
    "complex numbers": (cell_with("r", np.ones(2, complex)), "node cell: r is torch.complex128: give real numbers"),
    "truths": (cell_with("r", np.ones(2, bool)), "node cell: r is torch.bool: give real numbers"),
    "a weight of one axis": (put("nodes/w/weight", ONE), "node w: no Linear has such constants (Weight must be at"),
    "a scalar as weight": (put("nodes/w/weight", 1.0), "node w: no Linear has such constants"),
    "a weight of no rows": (put("nodes/w/weight", np.ones((0, 3))), "node w: weight has shape (0, 3): give (out, in)"),
    "no units": (put("nodes/in/shape", np.zeros(0, int)), "node w: weight has shape (2, 3), its input 1 entries"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def bounded():
    """At most 256 MB more than before, and few seconds."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    yield
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used * (1 if sys.platform == "darwin" else 1024) < 256 * 2**20
    assert time.perf_counter() - start < 5.0


@pytest.mark.parametrize(("make", "text"), FILES.values(), ids=FILES)
def test_a_hostile_file_is_refused(tmp_path, make, text):
    path = tmp_path / "net.nir"
    make(path)
    with pytest.raises((ValueError, TypeError), match=re.escape(text.replace("{path}", str(path)))):
        from_nir(read_nir(path))


def test_a_file_that_is_larger_than_the_limit_is_refused_and_read_with_another(tmp_path):
    path = tmp_path / "net.nir"
    nir.write(path, to_nir(LIF(100, 100, tau_mem=1.0, tau_syn=0.5)))
    with pytest.raises(ValueError, match=r"/weight needs 40000 bytes .* at most 40000 of a file .*: raise max_bytes"):
        read_nir(path, max_bytes=40_000)
    assert len(read_nir(path, max_bytes=100_000).nodes) == 4


def test_texts_count_towards_the_limit(tmp_path):
    path = tmp_path / "net.nir"
    put("edges", np.full((200, 2), "x" * 10**4, dtype=object), dtype=h5py.string_dtype())(path)
    with pytest.raises(
        ValueError, match=r"/node/edges needs 4051200 bytes \(400 texts\), but read_nir reads at most 1000000 "
    ):
        read_nir(path, max_bytes=10**6)


def equal(mine, theirs):
    if isinstance(mine, nir.NIRGraph):
        assert list(mine.nodes) == list(theirs.nodes)
        assert mine.edges == theirs.edges
    for name, value in vars(theirs).items():
        own = getattr(mine, name)
        if name == "nodes":
            assert all(equal(own[key], value[key]) for key in value)
        elif isinstance(value, np.ndarray):
            assert own.dtype == value.dtype
            assert np.array_equal(own, value)
        elif name == "metadata":
            assert own.keys() == value.keys()
            assert all(np.array_equal(own[key], value[key]) for key in value)
    return type(mine) is type(theirs)


def test_a_graph_is_read_as_nir_reads_it(rng, tmp_path):
    path, shape = tmp_path / "net.nir", (2, 6, 6)
    inner = nir.NIRGraph.from_list(nir.Input(np.array([18])), nir.Affine(np.eye(18), np.ones(18)), cell(18))
    nodes = [
        nir.Input(np.array(shape)), nir.Conv2d((6, 6), np.ones((2, 2, 3, 3)), 1, "same", 1, 1, np.ones(2)),
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])), nir.Flatten(np.array([2, 3, 3]), 0),
        nir.Scale(np.ones(18)), nir.Delay(np.ones(18)), inner,
    ]  # fmt: skip
    every = {str(k): node for k, node in enumerate(nodes)} | {"out": nir.Output(np.array([18]))}
    mask = np.eye(2, dtype=bool)
    every["0"].metadata = {"a": "text", "mask": mask, "numbers": np.ones(3, np.float32)}
    nir.write(path, nir.NIRGraph(every, list(pairwise(every)), metadata={"tool": "none"}, type_check=False))
    assert equal(read_nir(path), nir.read(path, type_check=False))
    layers = (
        LIF(3, 4, tau_mem=1.0, tau_syn=0.5, recurrent=True, mask=torch.ones(4, 3) > 0),
        LIF(4, 2, tau_mem=1.0, tau_syn=1.0),
    )
    nir.write(path, to_nir(Sequential(*layers)))
    assert equal(read_nir(path), nir.read(path))


def test_single_half_and_whole_numbers_are_read(tmp_path):
    path, net = tmp_path / "net.nir", graph({"w": nir.Linear(np.array([[0.1, 0.2, 0.3], [1, 2, 3]], np.float16))})
    net.nodes["cell"].r = np.array([1, 2], np.uint8)
    nir.write(path, net)
    (layer,) = from_nir(read_nir(path))
    assert torch.equal(
        layer.weight.detach(), torch.from_numpy(net.nodes["w"].weight).double() * torch.tensor([[1.0], [2.0]])
    )


# --- graphs in memory ---


def two_graphs_in_each_other():
    first, second = graph(), graph()
    first.nodes["sub"], second.nodes["sub"] = second, first
    return first


def doubled(levels):
    inner = graph()
    for _ in range(levels):
        inner = graph({"a": inner, "b": inner})
    return inner


def one_path():
    return graph({"rnn": graph({"a/b": cell()}), "rnn/a": graph({"b": cell()})})


def diamonds(*behind, n=10):
    """2**n paths of different delays, and nodes behind them."""
    nodes, edges, last = {"in": nir.Input(np.array([2]))}, [], "in"
    for k in range(n):
        nodes |= {f"late{k}": nir.Delay(np.full(2, 2.0**k)), f"join{k}": nir.Flatten(np.array([2]), 0)}
        edges += [(last, f"join{k}"), (last, f"late{k}"), (f"late{k}", f"join{k}")]
        last = f"join{k}"
    nodes |= {str(k): node for k, node in enumerate(behind)} | {"cell": cell(), "out": nir.Output(np.array([2]))}
    names = [last, *map(str, range(len(behind))), "cell", "out"]
    return nir.NIRGraph(nodes, edges + list(pairwise(names)), type_check=False)


def two_huge_paths():
    same = nir.Flatten(np.array([HUGE]), 0)
    edges = [("in", "w"), ("in", "sum"), ("w", "sum"), ("sum", "cell"), ("cell", "out")]
    return graph({"in": nir.Input(np.array([HUGE])), "w": same, "sum": same}, edges)


def many_cells(n):
    cells = {f"cell{k}": cell(100) for k in range(n)}
    nodes = {"in": nir.Input(np.array([100])), "w": nir.Linear(np.ones((100, 100))), **cells}
    edges = [("in", "w"), *(("w", name) for name in cells), ("cell0", "output")]
    return nir.NIRGraph({**nodes, "output": nir.Output(np.array([100]))}, edges, type_check=False)


def many_scales(n):
    scales = {f"s{k}": nir.Scale(np.full(100, 2.0)) for k in range(n)}
    nodes = {"in": nir.Input(np.array([100])), "w": nir.Linear(np.ones((100, 100))), **scales, "cell": cell(100)}
    return nir.NIRGraph(nodes | {"out": nir.Output(np.array([100]))}, [*pairwise([*nodes, "out"])], type_check=False)


def convolution(**changes):
    options = {
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "bias": np.ones(1),
        "weight": np.ones((1, 1, 2, 2)),
    }
    node = nir.Conv2d(None, **options)
    for name, value in changes.items():
        setattr(node, name, value)
    shape = {"in": nir.Input(np.array([1, 4, 4]))}
    return nir.NIRGraph({**shape, "conv": node, "cell": cell(9), "out": nir.Output(np.array([9]))},
                        [("in", "conv"), ("conv", "cell"), ("cell", "out")], type_check=False)  # fmt: skip


def changed(net, **constants):
    vars(net.nodes["cell"]).update(constants)
    return net


def with_cell(**constants):
    return lambda: graph({"cell": cell(**constants)})


def shaped(shape):
    return lambda: graph({"in": nir.Input(shape)})


GRAPHS = {
    "no nodes": (lambda: nir.NIRGraph({}, [], type_check=False), "the graph has no Input node: give one"),
    "no edges": (lambda: graph(edges=[]), "node w: no node leads to it: connect the Input or a neuron to it"),
    "tau < 0": (with_cell(tau_mem=-ONE), "node cell: tau_mem[0] = -1.0: give a finite number > 0"),
    "tau = 0": (with_cell(tau_syn=0 * ONE), "node cell: tau_syn[0] = 0.0: give a finite number > 0"),
    "tau = inf": (with_cell(tau_syn=math.inf * ONE), "node cell: tau_syn[0] = inf: give a finite number > 0"),
    "tau = nan": (with_cell(tau_mem=math.nan * ONE), "node cell: tau_mem[0] = nan: give a finite number > 0"),
    "threshold = nan": (with_cell(v_threshold=math.nan * ONE), "node cell: v_threshold[0] = nan: give finite numbers"),
    "threshold = 0": (with_cell(v_threshold=0 * ONE), "node cell: v_threshold[0] - v_reset[0] = 0.0: give a threshold"),
    "leak = inf": (with_cell(v_leak=math.inf * ONE), "node cell: v_leak[0] = inf: give finite numbers"),
    "tiny tau": (with_cell(tau_mem=5e-324 * ONE), "node cell: "),
    "another size": (lambda: changed(graph(), r=np.ones(3)), "node cell: r has 3 entries, its input 2"),
    "size 0": (lambda: graph({"cell": cell(0)}), "node cell: tau_syn has 0 entries, its input 2: they must be equal"),
    "objects": (with_cell(r=np.array([1.0, None])), "node cell: r holds object: give numbers"),
    "half objects": (with_cell(r=np.array([[1.0], [1.0, 2.0]], dtype=object)), "node cell: r holds object: give"),
    "dates": (with_cell(r=np.array(["2020-01-01"] * 2, "M8[D]")), "node cell: r holds datetime64[D]: give numbers"),
    "a shape of nan": (shaped(np.array([math.nan])), "node in: shape (nan,): give the positive sizes"),
    "a shape of 0": (shaped(np.array([0])), "node in: shape (0,): give the positive sizes of one sample"),
    "a shape of parts": (shaped(np.array([1.5])), "node in: shape (1.5,): give the positive sizes of one sample"),
    "a shape of texts": (shaped(np.array(["a"])), "node in: shape ('a',): give the positive sizes of one sample"),
    "2^20 axes": (shaped(np.ones(2**20, int)), "node in: its shape has 1048576 axes: give at most 64"),
    "an edge twice": (lambda: graph(edges=[("in", "w")] * 2), "the graph: edge in -> w is given twice: give it once"),
    "edges as dict": (lambda: graph(edges={"in": "w"}), "the graph: edges is a dict: give a list of pairs"),
    "a number as name": (lambda: graph({3: cell()}, []), "the graph: a name of a node = 3: give a string"),
    "a name of 10^6": (lambda: graph({"a" * 10**6: cell()}), "aaa... has a name of 1000000 characters: give"),
    "one path": (one_path, "graph rnn/a: two nodes have the path rnn/a/b: rename one of them"),
    "graphs in each other": (two_graphs_in_each_other, "graph sub/sub: a graph contains itself: give a copy of it"),
    "2^60 graphs": (lambda: doubled(60), "more than 10000 nodes and nested graphs: split the network"),
    "1024 paths": (diamonds, "node join9: more than 1000 paths of different delays lead to it"),
    "a dense sum": (lambda: diamonds(n=9), "node cell: a weight (1024, 2) has 2048 entries, more than 1000"),
    "products": (lambda: diamonds(nir.Linear(np.eye(2)), nir.Linear(np.eye(2)), n=8), "node 1: a weight (2, 512) has"),
    "scaled paths": (lambda: diamonds(nir.Linear(np.eye(2)), nir.Scale(ONE), n=8), "node 1: a weight (1024,) has 1024"),
    "2^31 in two paths": (two_huge_paths, "node sum: a weight (4294967296,) has 4294967296 entries"),
    "a weight for many": (lambda: many_cells(40), "node cell19: the weights and delays of the graph have 210000 ent"),
    "many weights": (lambda: many_scales(40), "node s19: the weights and delays of the graph have 210000 ent"),
    "stride 0": (lambda: convolution(stride=0), "node conv: stride = 0: give at least 1"),
    "stride nan": (lambda: convolution(stride=np.array([math.nan, 1])), "node conv: stride = array([nan,  1.])"),
    "padding 2^40": (lambda: convolution(padding=2**40), "node conv: padding = 1099511627776: give an integer"),
    "padding 2^30": (lambda: convolution(padding=2**30), "node conv: it has more than 1000 synapses: split it"),
    "groups 0": (lambda: convolution(groups=0), "node conv: groups = 0: give at least 1"),
    "no taps": (lambda: convolution(weight=np.ones((1, 1, 0, 2))), "node conv: weight has shape (1, 1, 0, 2)"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "text"), GRAPHS.values(), ids=GRAPHS)
def test_a_hostile_graph_is_refused(monkeypatch, make, text):
    small = text.startswith(("node cell: a weight", "node 1: a weight", "node conv: it has"))
    if small:
        monkeypatch.setattr(signals, "MAX_DENSE", 1000)
        monkeypatch.setattr(stencils, "MAX_SYNAPSES", 1000)
    monkeypatch.setattr(between, "MAX_TOTAL", 200_000)
    monkeypatch.setattr(flat, "MAX_NODES", 10_000)
    with pytest.raises((ValueError, TypeError), match=re.escape(text)):
        from_nir(make())
