"""The survivors that are no gap of the tests, with the reason: `survivors.toml`."""

from functools import cache
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


@cache
def reasons() -> dict[tuple[str, str, str], str]:
    """By file (or "*" for any), line before and line after."""
    path = Path(__file__).parent / "survivors.toml"
    if not path.exists():
        return {}
    entries = tomllib.loads(path.read_text())
    return {
        (entry["file"], entry["was"], now): entry["why"]
        for entry in entries.get("survivor", [])
        for now in entry["now"]
    }


def explained(entry: dict[str, Any]) -> bool:
    return any((file, entry["was"], entry["now"]) in reasons() for file in (entry["file"], "*"))


def outdated(kernels: Path) -> list[str]:
    """Lines that have a reason but are no longer in their file."""
    texts = {file: " ".join((kernels / file).read_text().split()) for file, _, _ in reasons() if file != "*"}
    return sorted({f"{file}: {was}" for file, was, _ in reasons() if file != "*" and was not in texts[file]})
