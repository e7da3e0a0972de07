"""torch's Adam for those who do not compile their networks with torch.compile, and do not wait for it."""

import inspect
from collections.abc import Callable
from typing import Any

import torch


def _bare(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of an optimiser without what torch has wrapped around it."""
    bare: Callable[..., Any] = inspect.unwrap(method)
    return bare


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, with the same arguments, states and results, without its wrappers for torch.compile.

    At the first call those import torch._dynamo, for as long as torch itself takes; networks of fireprop run in its own
    kernels, of which torch.compile sees nothing.
    """

    add_param_group = _bare(torch.optim.Adam.add_param_group)
    zero_grad = _bare(torch.optim.Adam.zero_grad)
    state_dict = _bare(torch.optim.Adam.state_dict)
    load_state_dict = _bare(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(_bare(torch.optim.Adam.step))
