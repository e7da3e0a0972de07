"""docs/conformance.md, from verdicts."""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from conformance.cases import CASES, FORMS, RESOLUTIONS, T_END
from conformance.environments import NAMES
from conformance.judging import MARGIN, SPECS, Verdict, slope

WORDS = {"agrees": "agrees", "factor": "factor", "differs": "**differs**", "refuses": "refuses", "none": "-"}
TITLES = {
    "equations": "Files as the equations say",
    "grid": "Files for a time grid",
    "reverse": "Files that the tools write",
}
# What was read in the source of a tool where it differs, or tried: by tool, and by case, form and
# case, or "reverse".
CAUSES = {
    ("norse", "reverse"): "the writer gives dt / tau_inv as a time constant; the modules have 1 / tau_inv",
    ("spyx", "reverse"): "the writer gives beta, the decay in a step, as r, and no w_in",
    ("norse", "v_leak"): "the reader gives v_leak to the current too, which then decays to it",
    ("norse", "v_reset"): "the reader does not read v_reset, and gives v_leak to the current too",
    ("norse", "scale"): "the reader has no branch for Scale, and nirtorch then puts nothing in its place",
    ("norse", "delay"): "the reader has no branch for Delay, and nirtorch then puts nothing in its place",
    ("norse", "CubaLI"): "the reader has no branch for CubaLI, and nirtorch then puts nothing in its place",
    ("norse", "LI"): "the reader has no branch for LI, and nirtorch then puts nothing in its place",
    ("norse", "conv 1d"): "the reader has no branch for Conv1d, and nirtorch then puts nothing in its place",
    ("norse", "recurrent"): "the same network as a nested graph agrees",
    ("snntorch", "grid recurrent"): "the same network as a nested graph agrees",
    ("rockpool", "grid recurrent"): "the same network as a nested graph agrees",
    ("norse", "average pool"): "the reader has no branch for AvgPool2d, and nirtorch then puts nothing in its place",
    ("rockpool", "v_leak"): "the reader takes v_leak as a bias that is added in each step",
    ("rockpool", "v_reset"): "the reader does not read v_reset, and takes v_leak as a bias that is added in each step",
    ("rockpool", "LI"): "the reader makes tau an integer",
    ("rockpool", "LIF"): "the reader asks for node.tau_mem; the field of nir.LIF is tau",
    ("rockpool", "one unit"): "the reader takes dt = tau_mem / (1 + r) from the file, and does not read w_in",
    ("jaxsnn", "tau per unit"): "the reader takes the constants of the first unit for all",
    ("jaxsnn", "threshold per unit"): "the reader takes the constants of the first unit for all",
    ("jaxsnn", "v_leak"): "the reader reads v_leak, and the neurons do not use it",
    ("jaxsnn", "v_reset"): "the neurons do not use v_leak",
    ("sinabs", "one unit"): "the reader has no branch for Linear and CubaLIF",
    ("sinabs", "CubaLI"): "nir 1.0.4, which sinabs asks for, has no CubaLI",
    ("sinabs", "conv 1d"): "the reader asks for the method detach of node.weight, which is an array",
    ("sinabs", "conv"): "the reader has no branch for Linear and CubaLIF",
    ("sinabs", "affine"): "the reader has no branch for CubaLIF; what comes out is not a spike train",
    ("spyx", "scale"): "the reader has no branch for Scale, and leaves the node out",
    ("spyx", "delay"): "the reader has no branch for Delay, and leaves the node out",
    ("spyx", "CubaLI"): "the reader has no branch for CubaLI, and leaves the node out",
    ("spyx", "conv 1d"): "the reader has no branch for Conv1d, and leaves the node out",
    ("spyx", "average pool"): "the reader has no branch for AvgPool2d, and leaves the node out",
    ("spyx", "affine"): "the reader reads neither r nor w_in, so a bias and a weight have different factors",
    ("spyx", "v_leak"): "the reader does not read v_leak",
    ("spyx", "v_reset"): "the reader does not read v_leak and v_reset",
}


@dataclass(frozen=True)
class Measured:
    """The version of a tool, and its verdicts by direction and case."""

    version: str
    verdicts: dict[str, dict[str, Verdict]]


def text(found: dict[str, Measured]) -> str:
    return "\n".join(_lines(found)) + "\n"


def _lines(found: dict[str, Measured]) -> Iterator[str]:
    yield from (
        "# Conformance: the same NIR file in several tools",
        "",
        *wrap(
            """fireprop writes nodes of NIR and small networks. Other tools read them and run them on a time grid. Their
            spike times are compared with the exact ones of fireprop. The error must fall with the step of the grid, in
            proportion to it. In the other direction the tools write networks of their own modules, and fireprop
            reads them."""
        ),
        "",
        "```sh",
        'pip install "fireprop[nir]"            # in a clone',
        "python -m conformance                  # all tools, about 20 minutes; each gets an environment of its own",
        "python -m conformance norse --cases delay v_leak",
        "python -m conformance --publish        # writes this page from what was measured last",
        "```",
        "",
        "Each tool runs by its own reader and writer of NIR. Do not edit this page.",
        "",
        "| tool | version |",
        "|---|---|",
    )
    for tool, measured in found.items():
        yield f"| {NAMES[tool]} | {measured.version} |"
    yield from ("", "## What the words mean", "", "| word | meaning |", "|---|---|")
    for word, meaning in MEANINGS.items():
        yield f"| {word} | {' '.join(meaning.split())} |"
    yield from (
        "",
        *wrap(
            f"""Runs last {T_END:g} tau_mem, at {", ".join(map(str, RESOLUTIONS))} steps per tau_mem. All input times
            and delays are whole steps. dt in the file is 1e-4, and 1 for sinabs, whose time constants are numbers
            of steps. A spike on the grid is a 1 in one step. tau_syn is 0.5 tau_mem unless a case says otherwise.
            The reference for LIF, LI and IF, which fireprop refuses, is their closed form. "Its output" is the
            potential that CubaLI or LI gives out after each step. It may be a step early or late."""
        ),
        "",
        *wrap(
            """sinabs 3.1.3 asks for nir 1.0.4. Its `nir.read` refuses every file with `v_reset`, which nir 1.0.8
            always writes. The suite removes the field where it is 0."""
        ),
        "",
        *wrap(
            """jaxsnn 0.3.0 takes weights for (in, out), where NIR has (out, in), and refuses what does not fit then. So
            the suite gives it the transposed weights. It runs event by event. Its spikes are put on the grid
            afterwards, so their errors too fall with the step."""
        ),
    )
    for direction in DIRECTIONS:
        yield from ("", f"## {TITLES[direction]}", "", *wrap(INTRODUCTIONS[direction]), "")
        yield from _table(found, direction)
    yield from ("", "## Where tools differ", "")
    yield from wrap(
        """The first unit that differs, at the finest resolution, with times in tau_mem. `python -m conformance TOOL
        --cases CASE` shows one again, unless a
        tool wrote the file. The networks, of few units each, are in `conformance/cases.py`."""
    )
    yield from (
        "",
        "| tool | file | case | what it does | cause or remark |",
        "|---|---|---|---|---|",
    )
    for tool, direction, case, verdict in _of_status(found, "differs"):
        seen = verdict.seen or f"errors {', '.join(f'{error:.3f}' for error in verdict.errors.values())}"
        yield f"| {NAMES[tool]} | {direction} | {case} | {seen} | {_cause(tool, direction, case)} |"
    yield from ("", "## What tools refuse", "", "| tool | file | message | cases |", "|---|---|---|---|")
    messages: dict[tuple[str, str, str], list[str]] = {}
    for tool, direction, case, verdict in _of_status(found, "refuses"):
        messages.setdefault((tool, direction, verdict.detail), []).append(case)
    for (tool, direction, message), names in messages.items():
        causes = "; ".join(dict.fromkeys(filter(None, (_cause(tool, direction, case) for case in names))))
        told = message.replace("|", "\\|") + (f" ({causes})" if causes else "")
        yield f"| {NAMES[tool]} | {direction} | {told} | {', '.join(names)} |"


def wrap(paragraph: str) -> list[str]:
    return textwrap.wrap(" ".join(paragraph.split()), 125, break_on_hyphens=False)


def _of_status(found: dict[str, Measured], status: str) -> Iterator[tuple[str, str, str, Verdict]]:
    for tool, measured in found.items():
        for direction in DIRECTIONS:
            for case, verdict in measured.verdicts[direction].items():
                if verdict.status == status:
                    yield tool, direction, case, verdict


def _cause(tool: str, direction: str, case: str) -> str:
    names = ("reverse",) if direction == "reverse" else (f"{direction} {case}", case)
    return next((CAUSES[tool, name] for name in names if (tool, name) in CAUSES), "")


DIRECTIONS = (*FORMS, "reverse")
MEANINGS = {
    "agrees": f"""at {max(RESOLUTIONS)} steps per tau_mem each spike is within 0.05 tau_mem of the exact one, and a
    potential within 0.05. Spikes of the last {MARGIN:g} tau_mem may be missing; in the last {2 * MARGIN:g} there may
    be too many. The error falls with the step, or is at most two steps. The brackets give the power with which it
    falls: 1 is first order""",
    "factor": """agrees if all weights of the file are multiplied by this factor. The factor was found with the case
    "Linear, CubaLIF", with LIF, also for LI, or with IF""",
    "**differs**": "another number of spikes, or an error that does not fall",
    "refuses": "an error of the reader or the writer. The messages are below",
    "-": "not measured",
}
INTRODUCTIONS = {
    "equations": """The form that `to_nir` writes: r = tau_mem, w_in = tau_syn, and a spike is a pulse of area 1. A
    tool in which a spike has the area dt needs the factor 1/dt.""",
    "grid": """The same networks with r = tau_mem / dt, w_in = tau_syn / dt, and weights for spikes of area dt. For
    files of this form `from_nir` asks for `spike_area`.""",
    "reverse": """Networks of CubaLIF, built of the tool's own modules, with one tau_mem, tau_syn and threshold. The
    reference is what the tool itself computes as its step falls. `from_nir` was tried with all three values of
    `spike_area`.""",
}


def _table(found: dict[str, Measured], direction: str) -> Iterator[str]:
    yield f"| case | {' | '.join(NAMES[tool] for tool in found)} |"
    yield "|---|" + "---|" * len(found)
    names = list(SPECS) if direction == "reverse" else [case.name for case in CASES]
    titles = {case.name: case.nodes for case in CASES}
    for name in names:
        cells = [_cell(measured.verdicts[direction][name]) for measured in found.values()]
        yield f"| {name if direction == 'reverse' else titles[name]} | {' | '.join(cells)} |"


def _cell(verdict: Verdict) -> str:
    power = slope(verdict.errors)
    shown = f" ({power:.2f})" if not math.isnan(power) else ""
    if verdict.status == "agrees":
        return f"agrees{', ' + verdict.detail if verdict.detail != '1' else ''}{shown}"
    return f"factor {verdict.detail}{shown}" if verdict.status == "factor" else WORDS[verdict.status]
