"""What the closing lines of a training run say of units that do not fire."""

from collections.abc import Mapping
from typing import Any

PAGE = "docs/silent.md"


def remarks(result: Mapping[str, Any]) -> list[str]:
    """What a user should think of the silent units of a run, a line each; none where nothing is silent.

    result  what `training.train` returns. One of an older version, which did not count, gives no remark
    """
    if "silent" not in result:
        return []
    best, last = result["silent"]["best_epoch"], result["silent"]["last_epoch"]
    lines = []
    if best["hidden"] and sum(best["hidden"]):
        total = sum(result["units"]["hidden"])
        lines.append(
            f"{sum(best['hidden'])} of {total} hidden units never fired in epoch {result['best_epoch']}: "
            "they cost nothing, and cannot learn while they are silent"
        )
    if best["outputs"]:
        lines.append(
            f"{best['outputs']} of {result['units']['outputs']} output units never fired in epoch "
            f"{result['best_epoch']}: their classes are never predicted, and no gradient wakes them"
        )
    if last["labels"]:
        lines.append(
            f"{last['labels']:.2%} of the training samples left the unit of their label silent in epoch "
            f"{result['epochs']}: they count as late as t_end, which raises the loss, and have no gradient there"
        )
    return [*lines, f"more on silent units: {PAGE}"] if lines else []
