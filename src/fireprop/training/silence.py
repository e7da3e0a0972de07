"""What the closing lines of a training run say of units that do not fire."""

from collections.abc import Mapping
from typing import Any

PAGE = "docs/silent.md"


def remarks(result: Mapping[str, Any], *, patient: bool = False, k: int = 1) -> list[str]:
    """What a user should think of the silent units of a run, a line each; none where nothing is silent.

    result   what `training.train` returns. One of an older version, which did not count, gives no remark
    patient  whether the objective has a patience, so that a silent unit of a label has a gradient
    k        how many spikes of the unit of a label the objective asks for
    """
    if "silent" not in result:
        return []
    best, last = result["silent"]["best_epoch"], result["silent"]["last_epoch"]
    lines = []
    if best["hidden"] and sum(best["hidden"]):
        total = sum(result["units"]["hidden"])
        lines.append(
            f"{sum(best['hidden'])} of {total} hidden units never fired in epoch {result['best_epoch']}: "
            "silent units have no gradient, so gradient descent does not wake them"
        )
    if best["outputs"]:
        classless = all(result.get(name, 0.0) is None for name in ("test_accuracy", "validation_accuracy"))
        why = "" if classless else ": their classes are never predicted"
        why += "" if classless or patient else ", and they have no gradient"
        total, epoch = result["units"]["outputs"], result["best_epoch"]
        lines.append(f"{best['outputs']} of {total} output units never fired in epoch {epoch}{why}")
    if last["labels"]:
        lines.append(
            f"{last['labels']:.2%} of the training samples did not make the output unit of their label fire"
            f"{f' {k} times' if k > 1 else ''} in epoch {result['epochs']}: "
            + (
                "patience gives these units a gradient, so that more epochs may help"
                if patient
                else "a missing spike has no gradient"
            )
        )
    return [*lines, f"more on silent units: {PAGE}"] if lines else []
