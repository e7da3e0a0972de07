"""The pictures of a trained run; what draws them is loaded only when they are drawn."""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from fireprop import SpikeLimitError, TimeResolutionError
from fireprop.datasets import yin_yang_class, yin_yang_splits
from fireprop.objectives import FirstSpike
from fireprop.runs import RunFolder
from fireprop.tasks import Config, encode
from fireprop.training.draws import evaluating
from fireprop.training.trainer import EVALUATION_BATCH, Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # loaded where pictures are drawn: it takes as long as all of fireprop


def draw_where_possible(run: RunFolder, trainer: Trainer) -> None:
    """Draw the pictures of a trained run, or warn that matplotlib is not installed: all else of the run is written."""
    if importlib.util.find_spec("matplotlib"):
        draw_pictures(run, trainer)
    else:
        warnings.warn(
            f"{run.path}: the run has no plots, since matplotlib is not installed: pip install matplotlib, and draw "
            "them with training.draw",
            stacklevel=2,
        )


def draw_pictures(run: RunFolder, trainer: Trainer) -> list[Path]:
    """The pictures of a trained run; leaves the network with its best weights."""
    trainer.use_best()
    with evaluating(trainer.net):
        return [run.save_figure(name, figure) for name, figure in _figures(run, trainer).items()]


def _figures(run: RunFolder, trainer: Trainer) -> dict[str, "Figure"]:
    from fireprop import plotting

    test, names = trainer.splits.test, trainer.config.class_names
    figures = {"learning_curves": plotting.learning_curves([asdict(row) for row in trainer.metrics])}
    if trainer.config.truncate is None:  # the run of a sample as a whole may not fit
        try:
            figures["sample"] = _draw_sample(trainer, names)
        except (SpikeLimitError, TimeResolutionError) as error:  # after the decision, where training does not look
            warnings.warn(f"{run.path}: the run has no picture of a sample. {error}", stacklevel=2)
    if isinstance(trainer.objective, FirstSpike):
        with torch.no_grad():
            out = trainer.run(test.spikes[:EVALUATION_BATCH])[-1]
        figures["first_spikes"] = plotting.first_spike_histograms(
            out, test.labels[:EVALUATION_BATCH], class_names=names
        )
    if trainer.config.name == "yin-yang":
        figures["decision_map"] = _draw_decision_map(trainer, names)
    return figures


def explore_sample(run: RunFolder, trainer: Trainer, sample: int) -> str:
    """The page of `plotting.explore` of one sample of the test part; leaves the network with its best weights."""
    from fireprop import plotting

    test = trainer.splits.test
    if not 0 <= sample < len(test):
        raise ValueError(f"sample = {sample}: the test part has {len(test)} samples, give 0 to {len(test) - 1}")
    trainer.use_best()
    trainer.net.eval()
    inputs, label = test[sample]
    record = trainer.run_to_end(inputs)
    labels, objective, names = label.reshape(1), trainer.objective, trainer.config.class_names
    notes = {"run": str(run.path), "test sample": str(sample)}
    if objective.has_classes:
        shown = {"class": int(labels), "predicted": int(objective.predictions(record))}
        notes |= {what: "none" if k < 0 else names[k] if names else str(k) for what, k in shown.items()}
    loss = trainer.loss(inputs, record, labels)
    if not torch.equal(loss, objective.loss(record, labels)):
        # It reads potentials, which weights and inputs move by themselves; the page has what passes by spikes.
        notes["dL/dw, dL/dt of inputs"] = "by way of spikes; without what the loss takes from potentials"
    title = f"{trainer.config.name}, sample {sample}"
    return plotting.explore(record, loss, title=title, notes=notes, class_names=names)


def _draw_sample(trainer: Trainer, names: Sequence[str] | None) -> "Figure":
    from fireprop import plotting

    inputs = trainer.splits.test.spikes[0]
    return plotting.raster_and_traces(inputs, trainer.run_whole(inputs), class_names=names)


def _draw_decision_map(trainer: Trainer, names: Sequence[str] | None) -> "Figure":
    from fireprop import plotting

    config = cast(Config, trainer.config)

    def classify(features: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            record = trainer.run(encode(config, features, (0.0, 1.0)))
        return trainer.objective.predictions(record)

    features, labels = yin_yang_splits()["test"]
    return plotting.decision_map(classify, features, labels, class_of=yin_yang_class, class_names=names)
