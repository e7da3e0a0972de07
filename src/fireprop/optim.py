"""torch's Adam for those who do not compile their networks with torch.compile, and do not wait for it."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

MANY = 2**20  # parameters, for which a second thread of torch saves some 0.3 ms of a step


def _bare(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of an optimiser without what torch has wrapped around it."""
    bare: Callable[..., Any] = inspect.unwrap(method)
    return bare


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, with the same arguments, states and results, without its wrappers for torch.compile.

    At the first call those import torch._dynamo, for as long as torch itself takes; networks of fireprop run in its own
    kernels, of which torch.compile sees nothing.

    A step runs in one thread, unless there are very many parameters. torch's fused Adam asks all its threads for help,
    however little there is to do, and they then wait busily for more: on the cores that the next forward pass needs.
    """

    add_param_group = _bare(torch.optim.Adam.add_param_group)
    zero_grad = _bare(torch.optim.Adam.zero_grad)
    state_dict = _bare(torch.optim.Adam.state_dict)
    load_state_dict = _bare(torch.optim.Adam.load_state_dict)
    _step = torch.no_grad()(_bare(torch.optim.Adam.step))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As torch's: update the parameters, and return what the closure returns, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if sum(parameter.numel() for group in self.param_groups for parameter in group["params"]) >= MANY:
            self._step()
        else:
            with _one_thread():
                self._step()
        return loss


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch has one thread in here."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)
