"""What the processes of a run must have in common, compared by digests: settings, data, random state and weights.

And what the data of a run must have in common with those of the run that it continues.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import torch

import fireprop
from fireprop.datasets import SpikeDataset
from fireprop.objectives import Objective
from fireprop.plans import Settings, Splits
from fireprop.ranks import RankError, Ranks
from fireprop.runs import RunError

PARTS = {"train": "training", "validation": "validation", "test": "test"}


def require_same_config(ranks: Ranks, config: Settings) -> None:
    """Compare the settings of all processes. The folder of the data may differ from host to host.

    Raises RankError in every process; it names the first setting that differs, and the ranks that have another value.
    """
    settings = {f"setting {name}": value for name, value in config.to_dict().items() if name != "data"}
    require_same(
        ranks, {"version of fireprop": fireprop.__version__, **settings}, "start all ranks with the same command"
    )


def require_same_objective(ranks: Ranks, objective: Objective) -> None:
    """Compare the objectives of all processes. Raises RankError in every process."""
    facts = {f"objective: {name}": value for name, value in objective.describe().items()}
    require_same(ranks, facts, "give all ranks the same objective")


def require_same_data(ranks: Ranks, splits: Splits) -> None:
    """Compare every part of the data of all processes: samples, spikes, labels, and their order.

    Raises RankError in every process; it names the first of them that differs, and the ranks.
    """
    if ranks.number > 1:  # the digests of a large data set take seconds
        parts = [_facts_of_data(words, getattr(splits, name)) for name, words in PARTS.items()]
        require_same(ranks, dict(itertools.chain(*(part.items() for part in parts))), "give all ranks the same data")


def outline_of_data(splits: Splits) -> dict[str, object]:
    """What tells in no time that the parts which train and validate are others: numbers, labels, the mean time."""
    facts: dict[str, object] = {}
    for name in ("train", "validation"):
        data, part = getattr(splits, name), PARTS[name]
        facts |= _sizes(part, data)
        if data is not None:
            facts[f"mean spike time of the {part} part"] = f"{float(data.spikes.times.detach().mean()):.6g}"
            facts[f"digest of the labels of the {part} part"] = _digest([_bytes(data.labels)]).hex()[:8]
    return facts


def require_data_of(state: Mapping[str, Any], splits: Splits) -> None:
    """Compare the data of a run with those of a checkpoint that it continues. Older ones say nothing of them.

    Raises RunError that names the first fact that differs.
    """
    own = outline_of_data(splits)
    found = state.get("data", own)
    if found == own:
        return
    if not isinstance(found, Mapping):
        raise RunError(f"the checkpoint is damaged (data is a {type(found).__name__}): train again into a new folder")
    name = next(name for name in {**own, **found} if own.get(name) != found.get(name))
    raise RunError(
        f"the checkpoint is of other data, {name}: {found.get(name)} there, {own.get(name)} here. Continue with the "
        "data of that run, or train into a new folder"
    )


def require_same_weights(ranks: Ranks, net: torch.nn.Module) -> None:
    """Compare the networks of all processes, before DistributedDataParallel gives all of them the parameters of rank 0.

    Raises RankError in every process.
    """
    if ranks.number > 1:
        facts = {"weights": _digest(_bytes(tensor) for tensor in net.state_dict().values())}
        require_same(ranks, facts, "draw them by the same seed in all ranks")


def require_same_state(ranks: Ranks, epoch: int, net: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """Compare where all processes stand: finished epochs, random state, weights and the moments of the optimiser.

    state  a state of `Trainer.state_dict`
    Raises RankError in every process; it names the first of them that differs, and the ranks.
    """
    if ranks.number > 1:
        moments = state["optimizer"]["state"].values()
        facts = {
            "number of finished epochs": epoch,
            "random state that orders batches": _digest([_bytes(state["generator"])]),
            "weights": _digest(_bytes(tensor) for tensor in net.state_dict().values()),
            "state of the optimiser": _digest(_bytes(each[name]) for each in moments for name in sorted(each)),
        }
        require_same(ranks, facts, "load the same checkpoint in all ranks")


def require_same(ranks: Ranks, facts: Mapping[str, object], remedy: str) -> None:
    """Compare named facts. Raises RankError in every process for the first that is not the same in all."""
    everyone = ranks.gather(dict(facts))
    for name in everyone[0]:
        values = [each.get(name) for each in everyone]
        odd = [rank for rank, value in enumerate(values) if value != values[0]]
        if odd:
            who = f"rank {odd[0]} differs" if len(odd) == 1 else f"ranks {', '.join(map(str, odd))} differ"
            shown = "" if isinstance(values[0], bytes) else f" ({values[odd[0]]!r} instead of {values[0]!r})"
            raise RankError(f"{who} from rank 0 in the {name}{shown}: {remedy}")


def _facts_of_data(part: str, data: SpikeDataset | None) -> dict[str, object]:
    """Numbers and digests of a part, coarse ones first, so that the first that differs says what is wrong.

    A label that is wrong, or samples in another order, leave the spikes of all samples as they are, if they are sorted.
    """
    if data is None:
        return _sizes(part, data)
    spikes = data.spikes
    times, units, offsets = (values.detach().numpy() for values in (spikes.times, spikes.units, spikes.offsets))
    samples = [
        hashlib.sha256(times[start:stop].tobytes() + units[start:stop].tobytes()).digest()
        for start, stop in itertools.pairwise(offsets.tolist())
    ]
    labelled = [sample + _bytes(label) for sample, label in zip(samples, data.labels, strict=True)]
    return {
        **_sizes(part, data),
        f"times or units of spikes of the {part} part": _digest(sorted(samples)),
        f"labels of the {part} part": _digest(sorted(labelled)),
        f"order of the {part} samples": _digest(labelled),
    }


def _sizes(part: str, data: SpikeDataset | None) -> dict[str, object]:
    if data is None:
        return {f"number of {part} samples": 0}
    return {
        f"number of {part} samples": len(data),
        f"number of input units of the {part} part": data.spikes.n_units,
        f"number of spikes of the {part} part": data.spikes.n_spikes,
    }


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()


def _digest(parts: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()
