"""Results as JSON: each in the cache folder as soon as it is measured, and the published ones in docs/benchmarks.

Each part carries the machine, the versions and the commit that it was measured with. What was measured in a work tree
with changes carries `-dirty` behind its commit and cannot be published.
"""

import datetime
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks import HOUSE, environments, machine

LATEST = HOUSE / "docs" / "benchmarks" / "latest.json"
Result = dict[str, Any]


class NotPublishable(Exception):
    """No clean commit holds what was, or would be, measured."""


def keep(section: str, part: str, values: Any, *, quick: bool) -> Result:
    """Store what a part of a section has measured, with the machine and the day."""
    result = {
        "machine": machine.describe(),
        "day": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "quick": quick,
        "values": values,
    }
    _write(_folder() / section / f"{part}.json", result)
    return result


def kept(section: str) -> dict[str, Result]:
    """All parts of a section that have been measured here, each as it was last."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((_folder() / section).glob("*.json"))}


def check_tree() -> None:
    """Raise NotPublishable unless the work tree is what a commit holds, apart from the files that publishing writes."""
    commit = machine.commit()
    if commit is None:
        raise NotPublishable("publishing needs a git clone, whose commit says what was measured")
    if commit.endswith(machine.DIRTY):
        files = machine.changes()
        raise NotPublishable(f"the work tree has changes ({', '.join(files[:3])}): commit them, then measure again")


def check_parts(section: str, *, apart_from: Collection[str] = ()) -> None:
    """Raise NotPublishable if a kept part of the section, apart from these, was not measured at a clean commit.

    Nor may a quick run take the place of a whole one.
    """
    latest = published().get(section, {})
    for part, result in kept(section).items():
        commit = result["machine"]["commit"]
        if part not in apart_from and result["quick"] and not latest.get(part, result)["quick"]:
            raise NotPublishable(f"{section}, {part} was measured by a quick run, but published of a whole one")
        if part not in apart_from and (commit is None or commit.endswith(machine.DIRTY)):
            raise NotPublishable(
                f"{section}, {part} was measured in a work tree with changes ({commit}): measure it again"
            )


def publish(section: str) -> Result:
    """Take the parts of a section into docs/benchmarks/latest.json and return all that it now holds.

    Raises NotPublishable if a part was not measured at a clean commit; then nothing is written.
    """
    check_parts(section)
    latest = published()
    latest[section] = {**latest.get(section, {}), **kept(section)}
    _write(LATEST, latest)
    return latest


def published() -> Result:
    """All that docs/benchmarks/latest.json holds, by section."""
    latest: Result = json.loads(LATEST.read_text()) if LATEST.exists() else {}
    return latest


def _folder() -> Path:
    return environments.cache_folder() / "results"


def _write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first: an interruption leaves no half a file.
    new = path.with_suffix(".new")
    new.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")
    os.replace(new, path)
