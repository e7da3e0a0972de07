"""Prints the lowest versions that pyproject.toml admits, of what fireprop and its tests need, as constraints for pip.

    python .ci/lowest.py > lowest.txt && pip install -c lowest.txt ".[test]"

Each package gets the lowest version of which pip finds a wheel for this Python. torch and torchvision are left out:
their old wheels bring CUDA along.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings tomli along
    import tomli as tomllib

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
LEFT_OUT = {"torch", "torchvision"}


def main() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    sys.stdout.writelines(f"{line}\n" for line in constraints(project, ["test"], versions))


def constraints(project: dict[str, Any], extras: Iterable[str], find: Callable[[str], list[Version]]) -> list[str]:
    """Sorted `name==version`. `find` gives the versions of a package. Raises ValueError where none is admitted."""
    bounds: dict[str, list[Requirement]] = {}
    for requirement in required(project, extras):
        if requirement.name not in LEFT_OUT and (requirement.marker is None or requirement.marker.evaluate()):
            bounds.setdefault(requirement.name, []).append(requirement)
    return sorted(f"{name}=={lowest(name, bounds[name], find(name))}" for name in bounds)


def required(project: dict[str, Any], extras: Iterable[str]) -> Iterator[Requirement]:
    """The requirements of the project and of its extras, with those of extras that they name."""
    yield from map(Requirement, project["dependencies"])
    for extra in extras:
        for requirement in map(Requirement, project["optional-dependencies"][extra]):
            if requirement.name == project["name"]:
                yield from required(project, requirement.extras)
            else:
                yield requirement


def lowest(name: str, requirements: list[Requirement], found: list[Version]) -> Version:
    """The lowest version that every requirement admits; no pre-release."""
    admitted = [v for v in found if not v.is_prerelease and all(v in each.specifier for each in requirements)]
    if not admitted:
        raise ValueError(f"{', '.join(map(str, requirements))}: pip finds no wheel of {name} for this Python")
    return min(admitted)


def versions(name: str) -> list[Version]:
    command = [sys.executable, "-m", "pip", "index", "versions", "--only-binary=:all:", name]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return list(listed(told))


def listed(told: str) -> Iterator[Version]:
    """What stands on the line "Available versions: 1.1, 1.0", but for names of versions before there was a rule."""
    (line,) = [line for line in told.splitlines() if line.startswith("Available versions:")]
    for each in line.partition(":")[2].split(","):
        with contextlib.suppress(InvalidVersion):
            yield Version(each.strip())


if __name__ == "__main__":
    main()
