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
