"""How a fixture is written: one JSON file for each source and case, a line for each of its parts."""

import json
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "src/fireprop/evidence/parity/data"


def write(fixture):
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in fixture.items())
    path = FOLDER / f"{fixture['source']}_{fixture['case']}.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return path


def make(source, version, name, case, spikes, loss, gradients, settings, tolerance, why):
    """A fixture in its order of parts. `gradients` is None where the source has none, or a dict of the kinds it has."""
    return {
        "source": source,
        "version": version,
        "case": name,
        "made_by": f"parity/make_{source}.py",
        "settings": settings,
        **case,
        "spikes": spikes,
        "loss": loss,
        "gradients": gradients,
        "tolerance": tolerance,
        "why": why,
    }
