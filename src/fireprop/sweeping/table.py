"""The trials of a study as a table and as a picture, in its folder."""

import json
from pathlib import Path
from typing import Any

from fireprop.runs import RunFolder
from fireprop.sweeping.study import read_trials

TABLE, PICTURE = "trials", "accuracy_against_spikes"


def write_table(folder: str | Path) -> list[Path]:
    """Write the trials of a study into its folder, best first, as trials.csv and accuracy_against_spikes.png.

    Returns the paths of the files; the picture needs a trial that is complete. Raises as `read_trials` does, and
    RunError if a file cannot be written.
    """
    from fireprop import plotting

    rows, out = read_trials(folder), RunFolder(Path(folder))
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    lines: list[dict[str, Any]] = [
        {
            "trial": row.number,
            "state": row.state,
            "part": row.part,
            "accuracy": row.accuracy,
            "spikes_per_sample": row.spikes_per_sample,
            **{name: setting_text(row.settings[name]) if name in row.settings else None for name in names},
            "error": row.error,
        }
        for row in rows
    ]
    paths = [out.write_table(TABLE, lines)]
    done = [row for row in rows if row.state == "complete"]
    if done:
        figure = plotting.accuracy_against_spikes(
            [row.spikes_per_sample or 0.0 for row in done],
            [row.accuracy or 0.0 for row in done],
            names=[str(row.number) for row in done],
        )
        paths.append(out.save_figure(PICTURE, figure))
    return paths


def setting_text(value: Any) -> str:
    """A setting as a space file has it, every digit included."""
    return value if isinstance(value, str) else json.dumps(value)
