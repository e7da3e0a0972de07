"""The explorer as one HTML document: the parts in `page/`, and the data of a sample."""

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from torch import Tensor

from fireprop import arguments
from fireprop.nn import Record
from fireprop.plotting.explorer.packing import packed
from fireprop.plotting.explorer.stage import Stage, stage_of
from fireprop.shares import gradient_shares

SCRIPTS = ("physics.js", "drawing.js", "explorer.js")  # in the order in which they run


def explore(
    record: Record,
    loss: Tensor,
    *,
    sample: int = 0,
    title: str = "fireprop",
    notes: Mapping[str, str] | None = None,
    class_names: Sequence[str] | None = None,
) -> str:
    """An HTML page to explore one sample: all spikes, the potential of any unit, and the causes of any spike.

    record       what `net.record` returned, with its graph
    loss         a number that was computed from the record
    sample       which sample of the batch
    title        of the page
    notes        short facts that the page shows beside the title, by name
    class_names  a name per output unit

    The page needs no network and no other file. It shows each edge of the causal graph with its share of the gradient
    dL/dt (`fireprop.shares`). The potential is computed in the page, in closed form from the spikes. A read-out (`LI`)
    is drawn if it receives the spikes of a layer of the record. The text is below 300 kB, and the data: about 60 bytes
    per spike and 24 per synapse.

    Returns the text of the page. Raises what `shares.gradient_shares` raises.

    >>> import torch
    >>> from fireprop.nn import LIF
    >>> from fireprop.spikes import Spikes
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5)
    >>> record = layer.record(Spikes.from_latencies([[0.1, 0.4]]), t_end=2.0)
    >>> page = explore(record, record[0].times.sum(), title="two inputs")
    >>> page.startswith("<!DOCTYPE html>"), "two inputs" in page
    (True, True)
    """
    arguments.instance("title", title, str, "a text")
    shares = gradient_shares(record, loss, sample=sample)
    stage = stage_of(record, shares, sample, class_names)
    given = {} if notes is None else arguments.instance("notes", notes, Mapping, "a dict of texts")
    facts = {"loss": f"{float(loss.detach()):.6g}", **{str(name): str(fact) for name, fact in given.items()}}
    return _assemble(title, _data(title, facts, stage))


def _data(title: str, facts: dict[str, str], stage: Stage) -> dict[str, Any]:
    return {
        "title": title,
        "facts": facts,
        "layers": [layer._asdict() for layer in stage.layers],
        "times": {"end": stage.t_end, "known": stage.t_known, "start": stage.t_start},
        "nInputs": stage.n_inputs,
        "arrays": {name: packed(values) for name, values in stage.arrays.items()},
    }


def _assemble(title: str, data: dict[str, Any]) -> str:
    """The page with its parts in place. Names are escaped: as HTML in the title, and in JSON, which ends no script."""
    parts = {
        "TITLE": html.escape(title.encode(errors="backslashreplace").decode()),  # a file name may be no UTF-8
        "STYLE": _part("explorer.css"),
        "SCRIPTS": "\n".join(_part(name) for name in SCRIPTS),
        "DATA": _as_script(data),
    }
    before, *pieces = _part("explorer.html").split("{{")
    found = [before]
    for piece in pieces:  # one pass: no part is looked for within another
        name, _, rest = piece.partition("}}")
        found += [parts[name], rest]
    return "".join(found)


def _as_script(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element, whatever its strings are."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _part(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text(encoding="utf-8")
