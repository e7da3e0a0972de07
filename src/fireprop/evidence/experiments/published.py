"""The authors' configuration where it differs from the method, and what they recorded: for comparison only.

Nothing here is a default of the library. docs/deviations.md numbers the deviations of the released code, and says from
which of its notebooks and result files the recorded numbers come.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fireprop import encoding, losses
from fireprop.spikes import Spikes

XOR_NOTEBOOK = "the authors' xor_snn_np.ipynb, one run of 1000"
IRIS_NOTEBOOK = "the authors' iris_snn_np.ipynb, one 80/20 split"
YIN_YANG_ARRAY = "the authors' result file of the surrogate comparison, exact, 1 seed, last epoch"

XOR: dict[str, dict[str, str]] = {
    "share": {"recorded": "99.5% (995 of 1000, inferred from the mean)", "source": XOR_NOTEBOOK},
    "mean": {"recorded": "17.5", "source": XOR_NOTEBOOK},
    "most": {"recorded": "98", "source": XOR_NOTEBOOK},
}
IRIS: dict[str, dict[str, str]] = {
    "test": {"recorded": "93.3% (28 of 30)", "source": IRIS_NOTEBOOK},
    "train": {"recorded": "82.5% (mean of the four batches of the last epoch)", "source": IRIS_NOTEBOOK},
}
YIN_YANG: dict[str, dict[str, str]] = {"test": {"recorded": "93.6%", "source": YIN_YANG_ARRAY}}

SURROGATE_ARRAYS = "the authors' result files, one run each"
SURROGATE_EPOCHS = 300
# Accuracy and loss on the test part, and mean training loss of the last epoch, after 300 epochs; one run each.
SURROGATES: tuple[dict[str, Any], ...] = (
    {"method": "exact", "loss": "first spike", "test accuracy": 0.936, "test loss": 0.2025, "train loss": 0.1895},
    {"method": "STE", "loss": "count", "test accuracy": 0.688, "test loss": 0.6855, "train loss": 0.687},
    {"method": "fast sigmoid", "loss": "count", "test accuracy": 0.583, "test loss": 0.7103, "train loss": 0.709},
    {"method": "STE", "loss": "prob", "test accuracy": 0.593, "test loss": 0.966, "train loss": 0.958},
    {"method": "fast sigmoid", "loss": "prob", "test accuracy": 0.519, "test loss": 1.052, "train loss": 1.035},
    {"method": "fast sigmoid", "loss": "rate", "test accuracy": 0.563, "test loss": 1.0033, "train loss": 1.002},
    {"method": "STE", "loss": "rate", "test accuracy": 0.555, "test loss": 1.0335, "train loss": 1.032},
    {"method": "sigmoid", "loss": "count", "test accuracy": 0.350, "test loss": 1.0986, "train loss": 1.0986},
    {"method": "sigmoid", "loss": "rate", "test accuracy": 0.350, "test loss": 1.0986, "train loss": 1.0986},
    {"method": "SRE", "loss": "rate", "test accuracy": 0.350, "test loss": 1.0986, "train loss": 1.0986},
)


def first_spike_decision(out: Spikes) -> Tensor:
    """The authors' decision, (batch,) int64: argmin of first spikes, a silent unit at t_end, the lowest of equals.

    This is deviation 5 (docs/deviations.md).

    So a sample whose outputs are all silent is of class 0, where `losses.first_spike_predictions` says -1.
    """
    # numpy's argmin takes the first of equals; torch's does not promise it.
    return torch.from_numpy(np.argmin(losses.first_spike_times(out).detach().numpy(), axis=1))


def misplaced_bias(features: Tensor, bias: float) -> tuple[Tensor, Tensor]:
    """Features (n, d) with `bias` inserted at searchsorted(row, bias) of the row as it is, unsorted.

    This is deviation 9 (docs/deviations.md).

    Returns the values (n, d + 1) and the place of the bias in each row (n,) int64. The place depends on the sample, and
    features at or behind it move on by one channel.
    """
    rows = features.numpy()
    # np.searchsorted bisects whether or not a row is sorted: the place is what the authors' code computed.
    places = np.array([np.searchsorted(row, bias) for row in rows], dtype=np.int64)
    values = np.array([np.insert(row, place, bias) for row, place in zip(rows, places, strict=True)])
    return torch.from_numpy(values), torch.from_numpy(places)


def misplaced_bias_spikes(features: Tensor, *, bias_time: float, t_range: tuple[float, float]) -> Spikes:
    """The authors' encoding of Yin-Yang, d + 1 units: features in [0, 1] as times in t_range, the bias misplaced."""
    times = encoding.latency(features, t_range=t_range).to_latencies()
    return Spikes.from_latencies(misplaced_bias(times, bias_time)[0])


def rewarded_lateness(out: Spikes, labels: Tensor, *, tau: float, late_penalty: float, late_tau: float) -> Tensor:
    r"""The authors' loss, whose late penalty has the wrong sign: late spikes of the label's unit are rewarded.

    This is deviation 7 (docs/deviations.md).

    .. math:: L = -\log\mathrm{softmax}(-t/\tau)_y - \gamma\,(e^{t_y/\tau_1} - 1)

    Arguments as of `losses.first_spike_cross_entropy`.
    """
    plain = losses.first_spike_cross_entropy(out, labels, tau=tau)
    right = losses.first_spike_cross_entropy(out, labels, tau=tau, late_penalty=late_penalty, late_tau=late_tau)
    return 2.0 * plain - right
