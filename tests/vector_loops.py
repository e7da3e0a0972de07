"""Compiles the loops that carry the cost of a run, and counts the vector instructions in them. Runs none of them.

    python vector_loops.py                     as Numba compiles them for this machine
    NUMBA_OPT=0 python vector_loops.py CPU ... the same code, as LLVM's own pipeline compiles it for other processors

Prints JSON: for each processor and loop, the number of instructions of the loop's kind that work on vectors. Arguments
are used for their types alone.
"""

import json
import re
import sys

import llvmlite.binding as llvm
import numba
import numpy as np

from fireprop.engine import chain as engine
from fireprop.engine.chain.constants import new_sums
from fireprop.engine.chain.forward import NO_PARENTS
from fireprop.engine.chain.scratch import new_lanes, new_loop
from fireprop.engine.interface import Part
from fireprop.kernels import lanes as lanes_kernel
from fireprop.kernels.chain import adjoint, look, rates, restart, search, varied, walk
from fireprop.kernels.chain.constants import arrive_back
from fireprop.kernels.graph import (
    ahead,
    along_rates,
    blocks,
    blocks_back,
    blocks_forward,
    by_rates,
    forward_propagation,
)
from fireprop.kernels.graph import walk as walk_of_graphs
from fireprop.kernels.graph.currents import exponential
from fireprop.kernels.graph.layout import BLOCK, CHANNEL, MEMO, NODE, SEGMENT
from fireprop.kernels.graph.varied import Rates, find_each
from fireprop.kernels.log import EVENT, Log

TRIPLES = {"x86-64-v3": "x86_64-unknown-linux-gnu", "x86-64-v4": "x86_64-unknown-linux-gnu"}
OTHER = "aarch64-unknown-linux-gnu"
# An operation on vectors: AVX2 and AVX-512 name it by type and register, NEON by the register's shape.
X86 = r"\bv{operation}\w*{real}\s[^\n]*%[yz]mm"
NEON = r"\bf{operation}\w*\s+v\d+\.{lanes}"
ANY = "(?:mul|add|mla|madd)"  # LLVM writes a fused product and sum as vfmadd or fmla


def loops(dtype):
    """For each loop its function, arguments, an operation that only the loop has there, and the type of its numbers."""
    n_in, n_hidden = 3, 70
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "v_threshold": np.ones(n_hidden), "t_ref": np.zeros(n_hidden)}
    weight, own_weight = np.ones((n_hidden, n_in), dtype), np.ones((n_hidden, n_hidden), dtype)
    chain = engine.lay_out([engine.Layer(weight, **constants, recurrent_weight=own_weight)])
    loop, lanes, times = new_loop(chain), new_lanes(chain), np.zeros(1)
    run = engine.Run(Log(np.empty(0, EVENT), np.zeros((2, 1), int), NO_PARENTS), np.zeros(0), chain)
    by_rates, sums = new_lanes(chain, by_rates=True).by_rates, new_sums(run, [Part("tau_mem", 0)])
    state, decays = loop.layers[0], (0.9, 0.8, 0.1)
    reals = tuple(np.dtype(dtype).type(decay) for decay in decays)
    columns = new_loop(
        engine.lay_out([engine.Layer(weight, **constants | {"tau_mem": 1.0 + np.arange(n_hidden)})])
    ).columns
    moved = loop.layers[0], loop.weight, loop.lanes, loop.lowest, loop.marked, columns, loop.rates, loop.places
    flagged = loop.lanes, loop.flags, columns, loop.rates, loop.places, state
    table = columns, 0, loop.rates, state
    moving = columns, chain.rates, chain.places, state, 72, 0.5
    delays = np.zeros((1, 2))
    gradient = adjoint.Gradient(times, chain.weight, times, delays)
    return {
        "units at an arrival": (look.advance, (loop, 0, decays, 0.5), ANY, dtype),
        "units at a look ahead": (look.mark, (loop, 0, 0.5), ANY, dtype),
        "who may cross": (look.flag_units, (loop, state, 0, 0.5, 0.0), ANY, dtype),
        "crossings": (search.search_all, (loop, 0), "sqrt", "float64"),
        "after a crossing": (restart.look_beyond, (loop, 0, 3), ANY, "float64"),
        "factors of gaps": (walk.fill_factors, (lanes.gaps, 3), ANY, "float64"),
        "derivatives in a gap": (walk.move_lanes, (lanes.all, None, 72, decays), ANY, dtype),
        "slopes of gaps": (rates.fill_slopes, (by_rates.ahead, lanes.gaps, 3), ANY, "float64"),
        "by rates in a gap": (rates.move_lanes, (by_rates, lanes.all, 0, 1, 72, *reals), ANY, dtype),
        "by rates at an arrival": (arrive_back, (sums, by_rates, chain.weight, np.uint64(0), 72, True), ANY, dtype),
        "an arrival backwards": (adjoint.arrive_back, (chain, gradient, lanes, 0, 0, 0, True), ANY, dtype),
        "the time of an arrival backwards": (
            adjoint.sum_layer,
            (None, lanes.sums, lanes.all, np.uint64(72), chain, np.uint64(0), state, np.dtype(dtype).type(0.5)),
            "add",
            "float64",
        ),
        "varied units at an arrival": (varied.advance_varied, (*moved, 0.5, 0, decays, 0.5), ANY, dtype),
        "who may cross of varied units": (varied.flag_varied, (*flagged, 0, 0.5, 0.0), ANY, dtype),
        "crossings of varied units": (lanes_kernel.search_varied, (loop.search, 0, 8), "sqrt", "float64"),
        "factors of varied units": (
            varied.write_factors,
            (columns, np.uint64(0), loop.rates, 0, 1, 0, 64, 0.5),
            ANY,
            "float64",
        ),
        "factors of few pairs": (varied.find_few, (*table, 0.5, 0), ANY, "float64"),
        "derivatives of varied units": (walk.move_varied, (lanes.all, None, *moving), ANY, dtype),
        "slopes of varied units": (walk.move_varied, (lanes.all, by_rates, *moving), ANY, "float64"),
        "by rates of varied units": (
            rates.move_varied,
            (by_rates, lanes.all, 0, 1, 0, 64, 0.5, columns, np.uint64(0), times, times, np.uint64(0)),
            ANY,
            dtype,
        ),
        **loops_of_blocks(dtype),
    }


def loops_of_blocks(dtype):
    """Of graphs, whose derivatives are float64."""
    numbers, factors = np.zeros(70), np.zeros((6, 8))

    def lanes_of(dtype):
        state = np.zeros(70, dtype)
        rows, segments = np.zeros(1, int), np.empty(1, SEGMENT)
        return blocks.Lanes(
            np.empty(1, BLOCK), np.zeros(1, int), state, state, rows, segments, state, factors, np.zeros(70, bool),
            np.zeros(70, int),
        )  # fmt: skip

    state, lanes = lanes_of(dtype), lanes_of("float64")
    flags = np.zeros(80, np.uint8)
    line = np.zeros(70, int), np.zeros(70, bool), np.zeros((7, 80))
    each, each_back = (
        Rates(numbers, numbers, *np.zeros((2, 70), kind), *np.zeros((3, 1, 70), kind)) for kind in (dtype, "float64")
    )
    room = blocks.Blocks(state, state.v, state.v, state.v, flags, flags.view(np.uint64), *line)
    own, nodes, channels, memo = lanes.blocks[0], np.empty(70, NODE), np.empty(70, CHANNEL), np.empty(1, MEMO)
    rows = np.zeros((1, 70))
    by = by_rates.ByRates(numbers, np.empty(70, by_rates.OF_CURRENT), *[numbers] * 5, factors)
    nothing = walk_of_graphs.State(
        np.empty(1, walk_of_graphs.OWN), np.empty(1, walk_of_graphs.CURRENT), *[numbers] * 2, memo
    )
    along = along_rates.AlongRates(*[numbers] * 4, factors, nothing)
    arrays, hit = (state.v, state.v, state.v, state.v, state.v, flags), (0, 0.5, 0.5, 0.5)
    return {
        "a block at an arrival": (blocks.move_lanes, (None, room, own, nodes, channels, memo, 0.5), ANY, dtype),
        "a block of one current at an arrival": (blocks.advance, (*arrays, own, 0, 0.5, hit, None, 0.5), ANY, dtype),
        "a block of two currents at an arrival": (blocks.advance, (*arrays, own, 0, 0.5, hit, hit, 0.5), ANY, dtype),
        "factors of blocks": (blocks.find_all, (*[numbers] * 6, np.uint64(8)), ANY, "float64"),
        "a block of like units backwards": (
            blocks_back.come_back, (numbers, numbers, own, np.zeros((6, 8)), 0), ANY, "float64"
        ),
        "a block of like units forwards": (
            blocks_forward.carry_alike, (numbers, numbers, own, np.zeros((6, 8)), 0), ANY, "float64"
        ),
        "a varied block forwards": (blocks_forward.carry_varied, (each_back, lanes, own), ANY, "float64"),
        "tangents at an arrival at a block": (
            blocks_forward.receive_tangents, (None, lanes, own, 0.5, numbers, 0, 0, 0.1), ANY, "float64"
        ),
        "columns of forward propagation at an arrival": (
            forward_propagation.arrive_row,
            (rows, rows, 0, 0, (0, 70), 0.9, 0.8, 0.1, 1.0, 1.0, rows, 0, 0, 70), ANY, "float64",
        ),
        "columns of forward propagation in a gap": (
            exponential.move_row, (rows, rows, 0, 0, 0, 70, 0.9, 0.8, 0.1), ANY, "float64"
        ),
        "slopes of gaps of blocks": (ahead.fill_slopes, (*[numbers] * 7, np.uint64(8)), ANY, "float64"),
        "by rates in a block of like units": (
            by_rates.move_alike, (*[numbers] * 5, own, factors, factors, 0), ANY, "float64"
        ),
        "by rates in a varied block": (by_rates.move_varied, (each_back, by, lanes, own, 0.5), ANY, "float64"),
        "by rates at an arrival at a block": (
            by_rates.add_arrival, (*[numbers] * 4, own, numbers, 0, 0), ANY, "float64"
        ),
        "tangents along rates in a block of like units": (
            along_rates.drive_alike, (*[numbers] * 6, own, factors, factors, 0), ANY, "float64"
        ),
        "tangents along rates in a varied block": (
            along_rates.drive_varied, (each_back, lanes, lanes, along, own, 0.5), ANY, "float64"
        ),
        "what a block receives": (blocks.receive, (lanes_of(dtype), own, 0, 0), ANY, dtype),
        "who may cross in a block": (blocks.look, (None, room, own, channels, 0.5), ANY, dtype),
        "who may cross in a varied block": (blocks.look, (each, room, own, channels, 0.5), ANY, dtype),
        "factors of each unit of a block": (find_each, (each, own, 0.5), ANY, "float64"),
        "a varied block at an arrival": (blocks.move_lanes, (each, room, own, nodes, channels, memo, 0.5), ANY, dtype),
        "a varied block backwards": (blocks_back.come_back_varied, (each_back, lanes, own), ANY, "float64"),
        "gradients of weights from a block": (blocks_back.add_to_weights, (lanes, own, numbers, 0, 0), ANY, "float64"),
        "what the time of an arrival at a block brings": (
            blocks_back.sum_lanes, (None, lanes, own, 0.5, 0, 0, numbers), ANY, "float64"
        ),
    }  # fmt: skip


def compiled(piece, arguments):
    """A piece as a kernel of its own, for arguments of these types."""
    kernel = numba.njit(nogil=True, _nrt=False, error_model="numpy")(piece.py_func)
    kernel.compile(tuple(numba.typeof(argument) for argument in arguments))
    return kernel


def assembly_for(cpu, code):
    """What LLVM makes of a module's text for a processor, at its highest level."""
    triple = TRIPLES.get(cpu, OTHER)
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    code = re.sub("target triple = .*", f'target triple = "{triple}"', code)
    module = llvm.parse_assembly(re.sub("target datalayout = .*", f'target datalayout = "{machine.target_data}"', code))
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_assembly(module)


def count(assembly, operation, dtype):
    """How many instructions of an operation work on vectors of this type, on x86-64 or on ARM."""
    real, lanes = ("ps", "4s") if dtype == "float32" else ("pd", "2d")
    patterns = (X86.format(operation=f"(?:f?n?{operation})", real=real), NEON.format(operation=operation, lanes=lanes))
    return sum(len(re.findall(pattern, assembly)) for pattern in patterns)


def main(cpus):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    found = {cpu: {} for cpu in cpus or ["host"]}
    for dtype in ("float32", "float64"):
        for name, (piece, arguments, operation, operated) in loops(dtype).items():
            kernel = compiled(piece, arguments)
            for cpu, counts in found.items():
                texts = kernel.inspect_llvm() if cpus else kernel.inspect_asm()
                (text,) = texts.values()
                assembly = assembly_for(cpu, text) if cpus else text
                counts[f"{name}, {dtype}"] = count(assembly, operation, operated)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
