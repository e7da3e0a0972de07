"""Run the tests on every mutant of the kernels and tell which survive: `python -m mutation.run --help`.

The kernels run as plain Python here, where a function can be given another body while the program runs. So pytest
collects the tests once; then each mutant is a forked child that gives the kernels of one file the code of the mutant
and runs, until one fails, the tests that reach the changed function: those that killed its neighbours first, then
the fastest. A test that takes ten times as long as usual has noticed a loop without end.
"""

import argparse
import ast
import gc
import json
import math
import os
import random
import resource
import signal
import sys
import threading
import time
import types
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

os.environ.update(NUMBA_DISABLE_JIT="1", OMP_NUM_THREADS="1", MPLBACKEND="Agg")
HOUSE = Path(__file__).parents[1]
sys.path[:0] = [str(HOUSE / "src"), str(HOUSE / "tests")]

import hypothesis  # noqa: E402 - the environment first
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import torch._dynamo  # noqa: E402 - torch.func imports it at its first call: here, not in every child
from _pytest.runner import runtestprotocol  # noqa: E402

from mutation.mutants import Mutant, mutants_of  # noqa: E402
from mutation.report import described, table  # noqa: E402

KERNELS = HOUSE / "src/fireprop/kernels"
CERTIFY = ("certify", [])  # a check of the others, not part of any result; only where it is asked for by name
LEFT_OUT = {"compiling.py", "status.py", "layout.py", "__init__.py"}  # no physics: how to compile, names of records
TEST_FILES = [
    "parity", "exponential", "membrane", "derivatives", "graph", "ift", "replay", "validity", "simulate",
    "kernels_derivatives", "kernels_currents", "kernels_queues", "kernels_layout", "kernels_chain", "kernels_graph",
    "kernels_replay", "kernels_batches", "kernels_margins",
]  # fmt: skip
UNKNOWN = {"limit": 0.0}
CONSTANTS = (float, int, np.generic, np.ndarray)  # of a module: numbers and tables
LONGEST_TEST = 1.5  # seconds of the processor as plain Python, while it is measured; longer ones are left out
BUDGET = 6.0  # of such seconds of tests for one mutant


def silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def limit() -> None:
    """No more than some GiB, and no hang: a child whose alarm goes off, after so much time of its own, dies of it."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, used + 2**31))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def passes(item: pytest.Item) -> bool:
    reports = runtestprotocol(item, nextitem=None, log=False)
    return all(report.passed or report.skipped for report in reports)


# --------------------------------------------------------------------------------------------- what each test reaches


def measure(item: pytest.Item) -> dict[str, Any]:
    """Whether a test passes, its seconds, and the kernels that it calls, as file:function."""
    codes: set[types.CodeType] = set()

    def note(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    start = time.process_time()
    threading.setprofile(note)
    sys.setprofile(note)
    passed = passes(item)
    sys.setprofile(None)
    seconds = time.process_time() - start
    root = f"{KERNELS}/"
    reaches = {f"{c.co_filename[len(root) :]}:{c.co_name}" for c in codes if c.co_filename.startswith(root)}
    return {"passed": passed, "seconds": seconds, "reaches": sorted(reaches), "limit": math.inf}


def measure_all(items: list[pytest.Item], workers: int, longest: float) -> dict[str, Any]:
    """`measure` of every test that is fast enough, each in a child of its own."""
    found: dict[str, Any] = {}

    def child(k: int, pipe: int) -> None:
        signal.setitimer(signal.ITIMER_PROF, longest)
        os.write(pipe, json.dumps(measure(items[k])).encode())

    for k, answer, _ in in_children(len(items), workers, child):
        result = (
            json.loads(answer) if answer else {"passed": True, "seconds": math.inf, "reaches": [], "limit": longest}
        )
        found[items[k].nodeid] = result
    return found


def in_children(number: int, workers: int, task: Any) -> Any:
    """Run task(k, pipe) for k in range(number) in forked children; yields (k, what it wrote, status)."""
    running: dict[int, tuple[int, int]] = {}
    k = 0
    while k < number or running:
        while k < number and len(running) < workers:
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(read)
                silence()
                limit()
                try:
                    task(k, write)
                    os._exit(0)
                except BaseException:
                    os._exit(3)
            os.close(write)
            running[pid] = (k, read)
            k += 1
        pid, status = os.wait()
        if pid in running:
            done, read = running.pop(pid)
            with os.fdopen(read, "rb") as pipe:
                answer = pipe.read()
            yield done, answer, status


# ------------------------------------------------------------------------------------------------------------ mutants


def importers() -> dict[tuple[str, str], list[tuple[str, str]]]:
    """By module and name, where else the name was imported to: (module, name there)."""
    found = defaultdict(list)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(HOUSE) and file.endswith(".py"):
            for node in ast.walk(ast.parse(Path(file).read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    for alias in node.names:
                        found[node.module, alias.name].append((name, alias.asname or alias.name))
    return found


def become(mutant: Mutant, imported: dict[tuple[str, str], list[tuple[str, str]]]) -> None:
    """Give the loaded module the code and the constants of the mutant."""
    name = "fireprop.kernels." + mutant.file[: -len(".py")].replace("/", ".")
    module = sys.modules[name]
    fresh = types.ModuleType(name)
    exec(compile(mutant.source, str(KERNELS / mutant.file), "exec"), fresh.__dict__)
    for key, value in vars(fresh).items():
        old = vars(module).get(key)
        if isinstance(value, types.FunctionType):
            if value.__module__ == name:
                old.__code__, old.__defaults__ = value.__code__, value.__defaults__
        elif isinstance(value, CONSTANTS):
            setattr(module, key, value)
            for where, alias in imported[name, key]:
                setattr(sys.modules[where], alias, value)
    for key in set(vars(module)) - set(vars(fresh)):
        if isinstance(vars(module)[key], CONSTANTS):
            raise NameError(key)


class Schedule:
    """Which tests a mutant meets, and in which order: what killed its neighbours first, then the fastest."""

    def __init__(self, items: list[pytest.Item], measured: dict[str, Any], budget: float) -> None:
        self.items, self.budget = items, budget
        self.seconds = [measured[item.nodeid]["seconds"] for item in items]
        self.by_function, self.by_file = defaultdict(set), defaultdict(set)
        self.kills: dict[str, Counter[int]] = defaultdict(Counter)
        # of every test function its fastest instance first, then the second of each, and so on
        self.turn, seen = [0] * len(items), Counter[str]()
        for k in sorted(range(len(items)), key=self.seconds.__getitem__):
            function = items[k].nodeid.split("[")[0]
            self.turn[k] = seen[function]
            seen[function] += 1
        for k, item in enumerate(items):
            for place in measured[item.nodeid]["reaches"]:
                self.by_function[place].add(k)
                self.by_file[place.split(":")[0]].add(k)

    def tests(self, mutant: Mutant) -> list[int]:
        place = f"{mutant.file}:{mutant.function}"
        near, wide = self.kills[place], self.kills[mutant.file]
        candidates = self.by_function[place] or self.by_file[mutant.file]  # what runs on import is reached by no test
        order = sorted(candidates, key=lambda k: (-near[k], -wide[k], self.turn[k], self.seconds[k]))
        chosen, total = [], 0.0
        for k in order:
            if total + self.seconds[k] <= self.budget:
                chosen.append(k)
                total += self.seconds[k]
        return chosen

    def killed_by(self, mutant: Mutant, k: int) -> None:
        self.kills[f"{mutant.file}:{mutant.function}"][k] += 1
        self.kills[mutant.file][k] += 1


def run_mutants(mutants: list[Mutant], schedule: Schedule, workers: int, out: Path) -> list[dict[str, Any]]:
    imported = importers()
    results: list[dict[str, Any]] = []
    start = time.monotonic()

    def child(k: int, pipe: int) -> None:
        tests = schedule.tests(mutants[k])
        os.write(pipe, b"s\n")
        signal.setitimer(signal.ITIMER_PROF, 2.0)
        become(mutants[k], imported)
        for test in tests:
            os.write(pipe, b"%d\n" % test)
            signal.setitimer(signal.ITIMER_PROF, 2.0 + 5.0 * schedule.seconds[test])
            if not passes(schedule.items[test]):
                os._exit(1)
        os._exit(0)

    for k, answer, status in in_children(len(mutants), workers, child):
        mutant = mutants[k]
        last = answer.split()[-1]
        killed = status != 0
        if killed and last != b"s":
            schedule.killed_by(mutant, int(last))
        by = schedule.items[int(last)].nodeid if last != b"s" else "import"
        how = "timeout" if os.WIFSIGNALED(status) else "killed"
        entry = mutant._asdict() | {"result": how if killed else "survived", "by": by if killed else ""}
        del entry["source"]
        results.append(entry)
        if not killed:
            print(described(entry), flush=True)
        if len(results) % 20 == 0 or len(results) == len(mutants):
            out.write_text(json.dumps(results, indent=1))
            print(f"-- {len(results)} of {len(mutants)} in {time.monotonic() - start:.0f} s", flush=True)
    return results


# ------------------------------------------------------------------------------------------------------------ the run


class Runner:
    """The pytest plugin that runs mutants in place of the tests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        options = self.options
        session.config.pluginmanager.unregister(name="terminalreporter")
        torch.set_num_threads(1)
        torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))  # what it makes ready once, likewise
        gc.collect()
        gc.freeze()
        baseline = options.out.with_suffix(".tests.json")
        measured = json.loads(baseline.read_text()) if baseline.exists() else {}
        new = [item for item in session.items if measured.get(item.nodeid, UNKNOWN)["limit"] < options.longest]
        if new:
            measured |= measure_all(new, options.workers, options.longest)
            baseline.write_text(json.dumps(measured))
        failing = [item.nodeid for item in session.items if not measured[item.nodeid]["passed"]]
        if failing:
            print("left out, for they fail without a mutant:", *failing, sep="\n    ")
        items = [
            item
            for item in session.items
            if measured[item.nodeid]["passed"]
            and options.shortest <= measured[item.nodeid]["seconds"] < options.longest
        ]
        mutants = chosen(options)
        print(f"{len(mutants)} mutants, {len(items)} of {session.testscollected} tests", flush=True)
        results = run_mutants(mutants, Schedule(items, measured, options.budget), options.workers, options.out)
        print(table(results))
        return True


def chosen(options: argparse.Namespace) -> list[Mutant]:
    """The mutants of the files that are asked for, a seeded sample of each if that is asked for."""
    mutants = []
    again = None
    if options.again:
        entries = [entry for path in options.again for entry in json.loads(path.read_text())]
        again = {(e["file"], e["was"], e["now"]) for e in entries if e["result"] == "survived"}
    for path in sorted(KERNELS.rglob("*.py")):
        name = str(path.relative_to(KERNELS))
        if (
            path.name in LEFT_OUT
            or name not in (options.files or [name])
            or (path.parent.name, options.files) == CERTIFY
        ):
            continue
        every = mutants_of(path, name)
        if again is not None:
            every = [m for m in every if (m.file, m.was, m.now) in again]
        if options.sample and options.sample < len(every):
            every = random.Random(f"{options.seed} {name}").sample(every, options.sample)
        mutants += every
    random.Random(options.seed).shuffle(mutants)  # so that a run that is cut short is a sample
    return mutants


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mutation.run", description=__doc__)
    parser.add_argument("files", nargs="*", help="kernel files, such as membrane.py or graph/state.py; all by default")
    parser.add_argument("--sample", type=int, default=0, help="only as many mutants of each file, drawn with --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of tests for one mutant")
    parser.add_argument("--tests", nargs="*", default=TEST_FILES, help="names of the files of tests, without test_")
    parser.add_argument("--select", default="", help="only tests whose names match this, as pytest's -k")
    parser.add_argument("--longest", type=float, default=LONGEST_TEST, help="leave out tests of more seconds than that")
    parser.add_argument("--shortest", type=float, default=0.0, help="and tests of fewer, where they have run before")
    parser.add_argument("--again", type=Path, nargs="*", help="only those that survived in these results")
    parser.add_argument("--out", type=Path, default=HOUSE / ".mutants" / "results.json")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    quick = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None, phases=quick)
    hypothesis.settings.load_profile("mutants")
    files = [HOUSE / f"tests/test_{name}.py" for name in options.tests]
    ours = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is here before pytest is
    which = ["-m", "not slow", "-k", options.select]
    arguments = [*ours, "-q", "-p", "no:cacheprovider", *which, "-s", "--rootdir", str(HOUSE)]
    sys.exit(pytest.main([*arguments, *(str(f) for f in files if f.exists())], plugins=[Runner(options)]))


if __name__ == "__main__":
    main()
