"""torch's Adam for those who do not compile their networks with torch.compile, and do not wait for it."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from fireprop.torch_threads import alone


def _bare(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of an optimiser without what torch has wrapped around it."""
    bare: Callable[..., Any] = inspect.unwrap(method)
    return bare


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, with the same arguments, states and results, without its wrappers for torch.compile.

    At the first call those import torch._dynamo, for as long as torch itself takes; networks of fireprop run in its own
    kernels, of which torch.compile sees nothing.

    A step of the main thread runs in that thread alone, unless there are very many parameters (`torch_threads.alone`).
    torch's fused Adam asks all threads of torch for help, however little there is to do.
    """

    add_param_group = _bare(torch.optim.Adam.add_param_group)
    zero_grad = _bare(torch.optim.Adam.zero_grad)
    state_dict = _bare(torch.optim.Adam.state_dict)
    load_state_dict = _bare(torch.optim.Adam.load_state_dict)
    _step = torch.no_grad()(_bare(torch.optim.Adam.step))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As torch's: update the parameters, and return what the closure returns, if one is given."""
        if self.defaults["differentiable"]:
            return super().step(closure)  # which decides itself where gradients are on
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        with alone(sum(p.numel() for p in moving)):
            self._step()
        return loss
