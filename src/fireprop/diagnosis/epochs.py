"""Evidence in the epochs of a run: a loss that rises or stands, and steps that change too many spikes."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias

from fireprop.diagnosis.activity import far_more
from fireprop.diagnosis.report import Finding

Row: TypeAlias = Mapping[str, Any]

FEW = 3  # epochs from which on there is a trend
LAST = 5  # the end of a run is the last fifth of its epochs
ROSE = 1.5  # loss at the end, over the least
SMALL = 0.1  # a rise, over the first loss
DROPPED = 0.05  # accuracy at the end, below the best
STANDS = 0.01  # fall of the loss over the first, and gain of accuracy
GOOD = 0.95  # accuracy from which on a loss may stand
CHANGED = 0.2  # spikes that a step creates and deletes, over those of a sample
SILENCED = 0.02  # share of the samples whose label a step silences


def rising(rows: Sequence[Row]) -> Iterator[Finding]:
    """A loss that rises again."""
    losses, accuracies = _losses(rows), _accuracies(rows)
    if len(losses) < FEW:
        return
    least, end = min(losses), _end(losses)
    if end > ROSE * least and end - least > SMALL * losses[0]:
        dropped = bool(accuracies) and _end(accuracies) < max(accuracies) - DROPPED
        yield Finding(
            "loss-rises",
            f"The training loss was {least:.3g} in epoch {losses.index(least) + 1}. At the end it is {end:.3g}.",
            "problem" if dropped else "warning", "certain", end / least, ROSE,
        )  # fmt: skip


def standing(rows: Sequence[Row]) -> Iterator[Finding]:
    """A loss that does not fall, and an accuracy that does not rise."""
    losses, accuracies = _losses(rows), _accuracies(rows) or [0.0]
    if len(losses) < FEW or losses[0] == 0.0:
        return
    fall, gain = 1.0 - min(losses) / losses[0], max(accuracies) - accuracies[0]
    if fall < STANDS and gain < STANDS and max(accuracies) < GOOD:
        yield Finding(
            "loss-stands", f"The training loss fell by {fall:.2%} in {len(losses)} epochs.",
            "problem", "certain", fall, STANDS,
        )  # fmt: skip


def steps(rows: Sequence[Row]) -> Iterator[Finding]:
    """Steps that change more spikes than a gradient can foresee; of epochs in which steps were followed."""
    shares = [
        (row["spikes_created"] + row["spikes_deleted"]) / row["median_spikes_per_sample"]
        for row in rows
        if _known(row, "spikes_created", "spikes_deleted") and row.get("median_spikes_per_sample")
    ]
    if shares and median(shares) > CHANGED:
        yield Finding(
            "steps-too-large",
            f"A step creates and deletes {median(shares):.0%} as many spikes as a sample has (median epoch).",
            "problem", "likely", median(shares), CHANGED,
        )  # fmt: skip


def silencing(rows: Sequence[Row]) -> Iterator[Finding]:
    """Steps that silence the output units of labels; of epochs in which steps were followed."""
    shares = [row["labels_silenced"] for row in rows if _known(row, "labels_silenced")]
    if shares and median(shares) > SILENCED:
        yield Finding(
            "steps-silence-labels",
            f"A step silences the output unit of the label in {median(shares):.1%} of its samples (median epoch).",
            "problem", "likely", median(shares), SILENCED,
        )  # fmt: skip


def runaways(rows: Sequence[Row]) -> Iterator[Finding]:
    """Epochs in which a training sample fired far more often than usual."""
    counted = [row for row in rows if _known(row, "median_spikes_per_sample", "largest_spikes_per_sample")]
    if not counted:
        return
    usual = float(median(row["median_spikes_per_sample"] for row in counted))
    worst = max(counted, key=lambda row: row["largest_spikes_per_sample"])
    most, limit = worst["largest_spikes_per_sample"], far_more(usual)
    if most > limit:
        yield Finding(
            "training-ran-away",
            f"A sample fired {most:,} spikes in epoch {worst['epoch']}. {usual:,.0f} are usual.",
            "warning", "certain", most / max(usual, 1.0), limit / max(usual, 1.0),
        )  # fmt: skip


def _end(values: Sequence[float]) -> float:
    """The median of the last epochs: one of them may be an outlier."""
    return median(values[-max(1, len(values) // LAST) :])


def _losses(rows: Sequence[Row]) -> list[float]:
    return [float(row["train_loss"]) for row in rows]


def _accuracies(rows: Sequence[Row]) -> list[float]:
    return [float(row["train_accuracy"]) for row in rows if _known(row, "train_accuracy")]


def _known(row: Row, *names: str) -> bool:
    """Whether these were measured in an epoch."""
    return all(row.get(name) is not None for name in names)
