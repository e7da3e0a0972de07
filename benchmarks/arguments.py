"""What a benchmark says of arguments that it cannot use."""

import argparse
import contextlib
from collections.abc import Iterator

from fireprop.datasets import MissingDataError


@contextlib.contextmanager
def in_one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End with the usage and the text of an error, without a traceback: for code that reads settings and data."""
    try:
        yield
    except (ValueError, MissingDataError) as error:
        parser.error(str(error))


def at_least_one(text: str) -> int:
    """A number of seeds, for `add_argument(type=...)`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give at least 1")
    return number
