"""Results as JSON: each in the cache folder as soon as it is measured, and the published ones in docs/benchmarks."""

import datetime
import json
import os
from pathlib import Path
from typing import Any

from benchmarks import HOUSE, environments, machine

LATEST = HOUSE / "docs" / "benchmarks" / "latest.json"
Result = dict[str, Any]


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


def publish(section: str) -> Result:
    """Take the parts of a section into docs/benchmarks/latest.json; all that it now holds."""
    latest = json.loads(LATEST.read_text()) if LATEST.exists() else {}
    latest[section] = {**latest.get(section, {}), **kept(section)}
    _write(LATEST, latest)
    return latest


def _folder() -> Path:
    return environments.cache_folder() / "results"


def _write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first: an interruption leaves no half a file.
    new = path.with_suffix(".new")
    new.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")
    os.replace(new, path)
