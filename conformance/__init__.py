"""Networks in NIR, read and written by several tools, and compared with exact spike times: `python -m conformance`."""

from pathlib import Path

HOUSE = Path(__file__).parents[1]
PROGRAMS = Path(__file__).parent / "programs"
PAGE = HOUSE / "docs" / "conformance.md"
