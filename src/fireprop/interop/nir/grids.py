"""Files of simulators on a time grid, which do not agree on what one spike is."""

import torch
from torch import Tensor

COARSE = 0.5  # a step of a time grid is at most this part of the shortest time constant
ALIKE = 0.1  # relative: some write exp(-dt / tau) / dt for 1 / dt, which differs from unit to unit
EXACT = 1e-2  # relative; files in single precision


def require_no_grid(name: str, tau_syn: Tensor, tau_mem: Tensor, r: Tensor, w_in: Tensor) -> None:
    """Refuse to guess what a spike is where r = tau_mem / dt for one small dt, as simulators on a time grid write.

    r = tau_mem and w_in = tau_syn, the exact form, has dt = 1, which may be small too.
    """
    step, product = tau_mem / r, tau_mem * tau_syn / (r * w_in)
    shortest = torch.minimum(tau_mem, tau_syn)
    dt = float(step[0])
    small = (step > 0.0) & (step <= COARSE * shortest) & (product > 0.0) & (product <= (COARSE * shortest).square())
    plain = ((product - 1.0).abs() <= EXACT) & ((step - 1.0).abs() <= EXACT)
    if not bool(small.all()) or bool(plain.all()) or bool(((step - dt).abs() > ALIKE * dt).any()):
        return
    areas = {"1.0": 1.0, '"tau_syn"': float(tau_syn[0]), f"{dt:.6g}": dt}
    meanings = (
        "a pulse of area 1, as the equations of NIR say",
        "a jump of the current by w_in times the weight",
        "one step of a time grid at height 1",
    )
    factor = float(r[0] * w_in[0] / (tau_mem[0] * tau_syn[0]))
    choices = "; ".join(
        f"spike_area={shown}: a spike is {meaning}, and a weight of 1 becomes {factor * area:.6g}"
        for (shown, area), meaning in zip(areas.items(), meanings, strict=True)
    )
    raise ValueError(
        f"node {name}: r = tau_mem / {dt:.6g} in all units, as simulators on a time grid write, and these do not agree "
        f"on the area of one spike. Say which is meant: {choices} (weights of unit 0, in the unit of the file)"
    )
