"""What a run prints: each survivor with the reason beside its line, and the scores."""

from collections import Counter, defaultdict
from typing import Any


def described(entry: dict[str, Any]) -> str:
    """A survivor: its place, the line before and after, and the reason."""
    why = f"reason: {entry['reason']}" if entry["reason"] else "unexplained"
    return f"{entry['file']}:{entry['line']} {entry['function']}\n    {entry['was']}\n    {entry['now']}\n    {why}"


def table(results: list[dict[str, Any]]) -> str:
    """Per file: mutants, killed, survivors with a reason and without, and the score: killed / mutants."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in results:
        kind = "killed" if entry["result"] != "survived" else "explained" if entry["reason"] else "unexplained"
        rows[entry["file"]][kind] += 1
        rows["all"][kind] += 1
    lines = [f"{'file':32}{'mutants':>9}{'killed':>9}{'explained':>11}{'unexplained':>13}{'score':>9}"]
    for name in sorted(rows, key=lambda name: (name == "all", name)):
        row, total = rows[name], rows[name].total()
        score = row["killed"] / total
        lines.append(f"{name:32}{total:9}{row['killed']:9}{row['explained']:11}{row['unexplained']:13}{score:9.1%}")
    return "\n".join(lines)
