"""The optional packages behind some data sets: asked for at the first use, never at import."""

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """A data set needs a package that fireprop does not install by itself; the text holds the line that does."""


def require(module: str, *, extra: str, needed_for: str) -> ModuleType:
    """Import an optional module, or raise MissingExtraError with the line that installs its extra.

    module      dotted name of what is imported
    extra       the extra of fireprop that brings it
    needed_for  what the user asked for, as the text of the error begins

    >>> require("json", extra="data", needed_for="this example").__name__
    'json'
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module of ours or of the package itself that is missing is a defect, not an extra to install.
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f'{needed_for} needs {package}, which is not installed: pip install "fireprop[{extra}]"', name=package
        ) from error
