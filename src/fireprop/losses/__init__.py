"""Losses on spikes: plain formulas in torch. What is exact about their gradients is in the times."""

from fireprop.losses.activity import activity_bounds, smooth_counts, spike_count_loss
from fireprop.losses.distances import SpikePairs, spike_pairs, van_rossum_distance, victor_purpura_distance
from fireprop.losses.first_spike import first_spike_cross_entropy, first_spike_predictions, kth_spike_cross_entropy
from fireprop.losses.spike_times import (
    first_spike_lead_mse,
    first_spike_times,
    kth_spike_times,
    latency_mse,
    spike_time_mse,
)
from fireprop.weighting import Weighting

__all__ = [
    "SpikePairs",
    "Weighting",
    "activity_bounds",
    "first_spike_cross_entropy",
    "first_spike_lead_mse",
    "first_spike_predictions",
    "first_spike_times",
    "kth_spike_cross_entropy",
    "kth_spike_times",
    "latency_mse",
    "smooth_counts",
    "spike_count_loss",
    "spike_pairs",
    "spike_time_mse",
    "van_rossum_distance",
    "victor_purpura_distance",
]
