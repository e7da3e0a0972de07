"""What runs eagerly within torch.compile: everything that ends in the engine, which torch's compiler cannot read."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch.compiler import is_compiling

P = ParamSpec("P")
T = TypeVar("T")


def eagerly(method: Callable[P, T]) -> Callable[P, T]:
    """The same method, at which torch.compile ends its graph and after which it begins another.

    torch.compiler.disable alone would load the compiler, which takes seconds, for everybody.
    """

    @wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if is_compiling():
            outside: Callable[P, T] = torch.compiler.disable(method)  # type: ignore[no-untyped-call]
            return outside(*args, **kwargs)
        return method(*args, **kwargs)

    return run
