"""The space of a sweep: the choices, or the range, of each setting."""

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np

from fireprop import arguments
from fireprop.datasets.files import opened
from fireprop.plans import Plan
from fireprop.training.events import OWN

if TYPE_CHECKING:
    from optuna import Trial

RANGE = ("low", "high", "log", "step")
WHOLE = 1e-9  # by how much a number of steps may miss a whole one, in steps


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included.

    log   draw their logarithms evenly
    step  only low, low + step, low + 2 step, ...; None: all numbers
    """

    low: Any
    high: Any
    log: bool = False
    step: Any = None


Space: TypeAlias = Mapping[str, tuple[Any, ...] | Range]


def read_space(path: str | Path) -> dict[str, Any]:
    """The content of a space file, a JSON object. Raises ValueError if it cannot be read, or is none."""
    with opened(path) as file:
        content = file.read()
    try:
        values = json.loads(content, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(
            f'{path} is not a JSON object: give {{"lr": [0.001, 0.01]}}, or another setting and its choices'
        )
    return values


def space_of(values: Mapping[str, Any], kind: type[Plan]) -> dict[str, tuple[Any, ...] | Range]:
    """The choices or the range of each setting, from plain values.

    values  setting to a list of choices, or to a mapping with low and high and, if need be, log or step
    kind    whose settings they are

    Raises ValueError, with the name of the setting, for one that is unknown or what is no choice or range of it.
    """
    if not values:
        raise ValueError("space has no setting: give at least one")
    hints, known = get_type_hints(kind), [field.name for field in fields(kind) if field.name not in OWN]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"space[{name!r}]: there is no such setting{f'; did you mean {near[0]}?' if near else ''}")
    return {name: _entry(f"space[{name!r}]", entry, hints[name]) for name, entry in values.items()}


def first(space: Space) -> dict[str, Any]:
    """The first choice, or the low end, of every setting."""
    return {name: entry.low if isinstance(entry, Range) else entry[0] for name, entry in space.items()}


def others(space: Space) -> Iterator[tuple[str, Any]]:
    """Each setting with each of its other choices, or the high end."""
    for name, entry in space.items():
        for value in (entry.high,) if isinstance(entry, Range) else entry[1:]:
            yield name, value


def draw(space: Space, trial: "Trial", seed: int) -> dict[str, Any]:
    """The settings of a trial: those that it has, and the others drawn by Optuna's tree-structured Parzen estimator.

    Each draw has a generator of its own. Processes do not draw the same side by side, and a process that goes on with
    a trial draws what the killed one would have drawn.
    """
    import optuna

    values = {}
    for k, (name, entry) in enumerate(space.items()):
        own = np.random.SeedSequence([seed, trial.number, k]).generate_state(1)[0]
        trial.study.sampler = optuna.samplers.TPESampler(seed=int(own))
        values[name] = _drawn(name, entry, trial)
    return values


def _drawn(name: str, entry: tuple[Any, ...] | Range, trial: "Trial") -> Any:
    if isinstance(entry, Range) and isinstance(entry.low, int):
        return trial.suggest_int(name, entry.low, entry.high, log=entry.log, step=entry.step or 1)
    if isinstance(entry, Range):
        return trial.suggest_float(name, entry.low, entry.high, log=entry.log, step=entry.step)
    # Optuna takes no lists. As texts, 1 and true are two choices.
    texts = {json.dumps(choice): choice for choice in entry}
    return texts[trial.suggest_categorical(name, list(texts))]


def _entry(name: str, entry: Any, hint: Any) -> tuple[Any, ...] | Range:
    if isinstance(entry, list):
        texts = [json.dumps(choice) for choice in entry]
        for k, text in enumerate(texts):
            if text in texts[:k]:
                raise ValueError(f"{name}[{k}] = {text}: it is there twice; give each choice once")
        if not entry:
            raise ValueError(f"{name} is an empty list: give at least one choice")
        return tuple(tuple(choice) if isinstance(choice, list) else choice for choice in entry)
    if isinstance(entry, dict):
        return _range(name, entry, _number(hint))
    raise ValueError(f'{name} = {json.dumps(entry)}: give a list of choices, or a range {{"low": ..., "high": ...}}')


def _range(name: str, entry: dict[str, Any], kind: type | None) -> Range:
    if kind is None:
        raise ValueError(f"{name} is a range, but the setting is no number: give a list of choices")
    strange = next((key for key in entry if key not in RANGE), None)
    missing = next((key for key in ("low", "high") if key not in entry), None)
    if strange is not None:
        raise ValueError(f"{name}[{strange!r}]: a range has only {', '.join(RANGE)}")
    if missing is not None:
        raise ValueError(f"{name}[{missing!r}] is missing: a range has low and high")
    ends = {key: entry[key] for key in ("low", "high", "step") if entry.get(key) is not None}
    try:
        numbers = {key: _checked(f"{name}[{key!r}]", value, kind) for key, value in ends.items()}
        found = Range(**numbers, log=arguments.flag(f"{name}['log']", entry.get("log", False)))
    except TypeError as error:
        raise ValueError(str(error)) from error
    _require_sound(name, found)
    return found


def _require_sound(name: str, found: Range) -> None:
    if found.low > found.high:
        raise ValueError(f"{name}: low = {found.low} is above high = {found.high}; exchange them")
    if found.log and found.low <= 0:
        raise ValueError(f"{name}['low'] = {found.low}: a range with log begins above 0")
    if found.step is None:
        return
    if found.log:
        raise ValueError(f"{name} has log and step: leave one of them out")
    if found.step <= 0:
        raise ValueError(f"{name}['step'] = {found.step}: give a step above 0")
    steps = (found.high - found.low) / found.step
    if abs(steps - round(steps)) > WHOLE:
        last = found.low + math.floor(steps) * found.step
        raise ValueError(f"{name}['high'] = {found.high} is not low and whole steps: the last one ends at {last:.12g}")


def _checked(name: str, value: Any, kind: type) -> Any:
    return arguments.integer(name, value) if kind is int else float(arguments.number(name, value))


def _number(hint: Any) -> type | None:
    """int or float, if a setting of this type is such a number, or None in its place."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    return hint if hint in (int, float) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"{twice!r} is there twice; give each name once")
    return found


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
