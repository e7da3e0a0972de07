"""`python -m conformance [TOOL ...] [--cases NAME ...] [--publish]`: a table of tools and NIR nodes.

With --cases, the other direction is not measured. Verdicts are kept in the cache folder, the last one of each case and
one version; `--publish` writes docs/conformance.md from those of all tools.
"""

import argparse
import json
from dataclasses import asdict

from conformance import PAGE, page
from conformance.cases import BY_NAME, CASES, FORMS
from conformance.environments import REQUIREMENTS, cache_folder
from conformance.judging import SPECS, Tool, Verdict, judge, reverse, slope


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("tools", nargs="*", help=f"of {', '.join(REQUIREMENTS)}; default all, or none with --publish")
    parser.add_argument("--cases", nargs="*", choices=list(BY_NAME), help="default all")
    parser.add_argument("--publish", action="store_true", help="write docs/conformance.md from what was measured last")
    given = parser.parse_args()
    unknown = [name for name in given.tools if name not in REQUIREMENTS]
    if unknown:
        parser.error(f"{unknown[0]}: the tools are {', '.join(REQUIREMENTS)}")
    for name in given.tools or ([] if given.publish else REQUIREMENTS):
        tool = Tool(name)
        chosen = [case for case in CASES if given.cases is None or case.name in given.cases]
        found = {form: judge(tool, chosen, form) for form in FORMS}
        if given.cases is None:
            found["reverse"] = reverse(tool)
        for direction, verdicts in found.items():
            for case, verdict in verdicts.items():
                print(f"{name}, {direction}, {case}: {line(verdict)}", flush=True)
        keep(tool, found)
    if given.publish:
        PAGE.write_text(page.text({name: kept(name) for name in REQUIREMENTS}))


def line(verdict: Verdict) -> str:
    errors = ", ".join(f"{error:.4f}" for error in verdict.errors.values())
    return f"{verdict.status}: {verdict.detail}; slope {slope(verdict.errors):.2f} ({errors}) {verdict.seen}"


def keep(tool: Tool, found: dict[str, dict[str, Verdict]]) -> None:
    file = cache_folder() / "results" / f"{tool.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(file.read_text()) if file.exists() else {}
    told = before["verdicts"] if before.get("version") == tool.version else {}  # one version, one table
    for direction, verdicts in found.items():
        told[direction] = {**told.get(direction, {}), **{case: asdict(v) for case, v in verdicts.items()}}
    file.write_text(json.dumps({"version": tool.version, "verdicts": told}, indent=1))


def kept(name: str) -> page.Measured:
    file = cache_folder() / "results" / f"{name}.json"
    if not file.exists():
        raise SystemExit(f"{name} was not measured: python -m conformance {name}")
    told = json.loads(file.read_text())
    wanted = {form: [case.name for case in CASES] for form in FORMS} | {"reverse": list(SPECS)}
    for direction, cases in wanted.items():
        missing = [case for case in cases if case not in told["verdicts"].get(direction, {})]
        if missing:
            raise SystemExit(f"{name}: {direction}, {missing[0]} was not measured: python -m conformance {name}")
    verdicts = {
        direction: {
            case: Verdict(v["status"], v["detail"], {int(n): e for n, e in v["errors"].items()}, v["seen"])
            for case, v in of_direction.items()
        }
        for direction, of_direction in told["verdicts"].items()
    }
    return page.Measured(told["version"], verdicts)


if __name__ == "__main__":
    main()
