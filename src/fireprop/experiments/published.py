"""The authors' configuration where it differs from the method, and what they recorded: for comparison only.

Nothing here is a default of the library. D8, D10: defects of the released code as spec.md (b) numbers them.
Sources: [NB] recorded output in the authors' notebooks, [.npy] their result files, both as listed in spec.md (e).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fireprop import losses
from fireprop.spikes import Spikes

XOR_NOTEBOOK = "[NB] xor_snn_np.ipynb, one run of 1000, spec (e) E1"

XOR: dict[str, dict[str, Any]] = {
    "share": {"recorded": "99.5% (995 of 1000, inferred from the mean)", "source": XOR_NOTEBOOK},
    "mean": {"recorded": "17.5", "source": XOR_NOTEBOOK},
    "most": {"recorded": "98", "source": XOR_NOTEBOOK},
}


def first_spike_decision(out: Spikes) -> Tensor:
    """The authors' decision, (batch,) int64: argmin of first spikes, a silent unit at t_end, the lowest of equals (D6).

    So a sample whose outputs are all silent is of class 0, where `losses.first_spike_predictions` says -1.
    """
    # numpy's argmin takes the first of equals; torch's does not promise it.
    return torch.from_numpy(np.argmin(losses.first_spike_times(out).detach().numpy(), axis=1))
