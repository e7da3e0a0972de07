"""What a sweep tries: a task, its settings, and the space of those that differ between trials."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import fireprop
from fireprop.plans import Plan
from fireprop.recipes import configure
from fireprop.runs import RunError, write_first
from fireprop.sweeping.space import Space, first, others, space_of
from fireprop.tasks import PLANS, TASKS, Config
from fireprop.training import EventsConfig, plan_for_events
from fireprop.training.events import DEFAULT, unused

SWEEP = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A task, and the settings to try.

    task      a name of `tasks.TASKS`, or a file of events
    space     setting to a list of choices, or to {"low": ..., "high": ..., "log": ..., "step": ...}. A name is a field
              of `tasks.Config`, or of `training.EventsConfig` for a file
    settings  those that are the same in all trials
    labels    a file of labels, where the file of events has none
    recipe    of the task
    seed      of what the sampler draws, and of every trial, unless the space has the setting seed
    prune     end a trial early if its accuracy is below the median of the others after as many epochs

    The first values of all settings together must be valid, and each other value beside them. Raises ValueError that
    names the setting where they are not, where it is unknown, or both in space and settings; and as
    `training.plan_for_events` does. Also for a setting, a recipe or labels that no trial would use.

    >>> Sweep(task="xor", space={"lr": [0.001, 0.01]}).plan({"lr": 0.01}).lr
    0.01
    """

    task: str
    space: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: str | None = None
    recipe: str | None = None
    seed: int = 0
    prune: bool = True

    def __post_init__(self) -> None:
        if self.task in PLANS and self.task not in TASKS:
            raise ValueError(f"task = {self.task!r}: a sweep compares accuracies, and this task has no classes")
        if "targets" in self.settings:
            raise ValueError(
                "settings['targets']: a sweep compares accuracies, and targets have no classes; leave it out"
            )
        twice = next((name for name in self.space if name in self.settings), None)
        if twice is not None:
            raise ValueError(f"{twice} = {self.settings[twice]}: the space has it too; give it in one place")
        self._require_used()
        base = self.base
        for name, value in others(self.parsed):
            try:
                replace(base, **{name: value})
            except (ValueError, TypeError) as error:
                raise ValueError(f"space: {error}") from error

    def _require_used(self) -> None:
        """Refuse what no trial would read."""
        if self.task in TASKS:
            if self.labels is not None:
                raise ValueError(f"labels = {self.labels!r}: {self.task} has labels of its own; leave it out")
            return
        if self.recipe is not None:
            raise ValueError(f"recipe = {self.recipe!r}: it does not apply to a file of events; leave it out")
        readouts = cast(tuple[Any, ...], self.parsed.get("readout", (self.settings.get("readout", DEFAULT),)))
        for name, value in {**self.settings, **self.space}.items():
            if all(unused(readout, {name: value}) for readout in readouts):
                which = " or ".join(map(repr, readouts))
                raise ValueError(f"{name} = {value!r}: no trial uses it, with readout = {which}; leave it out")

    @cached_property
    def parsed(self) -> Space:
        return space_of(self.space, Config if self.task in TASKS else EventsConfig)

    @cached_property
    def base(self) -> Plan:
        """The settings of a trial that has the first value of each setting."""
        try:
            return self.plan(first(self.parsed))
        except TypeError as error:
            raise ValueError(f"space: {error}") from error

    def plan(self, values: Mapping[str, Any]) -> Plan:
        """The settings of a trial, as of `fireprop train` with these values."""
        changes = {"seed": self.seed, **self.settings, **values}
        if self.task in TASKS:
            return configure(self.task, self.recipe, **changes)
        idle = unused(changes.get("readout", DEFAULT), changes)  # another trial has another read-out, which uses them
        used = {name: value for name, value in changes.items() if name not in idle}
        return plan_for_events(self.task, self.labels, **used)[0]

    def record(self, folder: Path) -> None:
        """Write the sweep into the folder of its study. Raises RunError if that is of another one."""
        own = json.loads(json.dumps(self._described()))
        content = write_first(folder / SWEEP, (json.dumps(own, indent=2) + "\n").encode())
        try:
            found = json.loads(content)
            differing = [
                (name, there.get(name), here[name])
                for here, there in ((own, found), (own["settings"], found.get("settings", {})))
                for name in here
                if name != "settings" and there.get(name) != here[name]
            ]
        except (ValueError, AttributeError) as error:
            raise RunError(f"{folder / SWEEP} is damaged ({error}): give another folder") from error
        if differing:
            name, there, here = (part if k == 0 else json.dumps(part) for k, part in enumerate(differing[0]))
            raise RunError(
                f"{folder} is the study of another sweep: its {name} is {there}, here it is {here}. Give what began "
                "it, or another folder"
            )

    def _described(self) -> dict[str, Any]:
        """All that has to be the same in all processes. Where the data lie is not."""
        plan = {name: value for name, value in self.base.to_dict().items() if name not in ("data", "labels")}
        return {
            "version": fireprop.__version__,
            "space": dict(self.space),
            "recipe": self.recipe,
            "seed": self.seed,
            "prune": self.prune,
            "settings": plan,
        }
