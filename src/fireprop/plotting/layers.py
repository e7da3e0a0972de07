"""The layers of a record as a picture names them, and the units of which it draws traces."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from fireprop import arguments
from fireprop.nn import Record, Trace
from fireprop.spikes import Spikes

Unit: TypeAlias = tuple[int | str, int]
Place: TypeAlias = tuple[int, int]

MAX_OUTPUT_TRACES = 6
MAX_HIDDEN_TRACES = 6  # where there are several hidden populations


def output_of(record: Record) -> int:
    """The number of the output layer."""
    return len(record) - 1 if record.output is None else record.names.index(record.output)


def label_of(record: Record, layer: int) -> str:
    """The name of a population, or what a layer of a chain is; which of them is the output."""
    is_output = layer == output_of(record)
    if record.names:
        name = record.names[layer]
        return f"{name} (output)" if is_output and name != "output" else name
    if is_output:
        return "output"
    return "hidden" if len(record) == 2 else f"hidden {layer}"


def layer_of(record: Record, layer: int, sample: int) -> Spikes | Trace:
    """One sample of a layer, detached: its spikes, or the potentials of a read-out."""
    whole: Any = record[layer]
    if not isinstance(whole, Trace):
        spikes: Spikes = whole[sample]
        return spikes
    first, last = whole.inputs.offsets[sample : sample + 2].tolist()
    states = type(whole.states)(*(state.detach()[first:last] for state in whole.states))
    constants = {name: getattr(whole, name).detach() for name in ("weight", "alpha", "beta")}
    return replace(whole, inputs=whole.inputs[sample].detach(), states=states, **constants)


def checked_units(record: Record, units: Sequence[Unit]) -> list[Place]:
    arguments.instance("units", units, (list, tuple), "a list of pairs (layer, unit)")
    for k, pair in enumerate(units):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{arguments.shown(f'units[{k}]', pair)}: give a pair (layer, unit)")
    return [_checked_unit(record, *pair) for pair in units]


def _checked_unit(record: Record, layer: int | str, unit: int) -> Place:
    number, unit = _checked_layer(record, layer, unit), arguments.integer("units: unit", unit)
    if not 0 <= unit < record[number].n_units:
        raise ValueError(f"units: unit {unit} of ({layer!r}, {unit}): the layer has {record[number].n_units} units")
    return number, unit


def _checked_layer(record: Record, layer: int | str, unit: int) -> int:
    if isinstance(layer, str):
        if layer not in record.names:
            known = f"the populations are {', '.join(record.names)}" if record.names else "the layers have no names"
            raise ValueError(f"units: layer {layer!r} of ({layer!r}, {unit}): {known}")
        return record.names.index(layer)
    layer = arguments.integer("units: layer", layer)
    if not -len(record) <= layer < len(record):
        raise ValueError(f"units: layer {layer} of ({layer}, {unit}): the record has {len(record)} layers")
    return range(len(record))[layer]


def default_units(record: Record, sample: int) -> list[Place]:
    """Hidden units, then output units. A read-out has none: all its potentials are drawn together."""
    output = output_of(record)
    hidden = [k for k in range(len(record)) if k != output and _has_threshold(record, k)]
    last = order_of_firing(record[output][sample], MAX_OUTPUT_TRACES) if _has_threshold(record, output) else []
    outputs = [(output, unit) for unit in sorted(last[:MAX_OUTPUT_TRACES])]
    if not hidden:
        return outputs
    if record.names and len(hidden) > 1:
        return [(k, order_of_firing(record[k][sample], 1)[0]) for k in hidden[:MAX_HIDDEN_TRACES]] + outputs
    order = order_of_firing(record[hidden[-1]][sample], 3)
    chosen = dict.fromkeys([order[0], order[len(order) // 2], order[-1]])
    return [(hidden[-1], unit) for unit in chosen] + outputs


def _has_threshold(record: Record, layer: int) -> bool:
    """Not a read-out, nor a layer whose spikes a hook has changed: the record knows no potential of its units."""
    if isinstance(record[layer], Trace):
        return False
    try:
        record.threshold(layer)
    except ValueError:
        return False
    return True


def order_of_firing(spikes: Spikes, n_wanted: int) -> list[int]:
    """Units by their first spikes; where fewer fire than are wanted, silent ones follow."""
    order = dict.fromkeys(spikes.units.tolist())
    silent = [unit for unit in range(spikes.n_units) if unit not in order]
    return [*order, *silent[: max(0, n_wanted - len(order))]]
