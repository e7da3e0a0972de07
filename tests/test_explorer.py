"""The explorer's page as a text: it is whole, small, and escapes names. `make browser` tries it in a browser."""

import base64
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import torch

from colours import distances
from fireprop import Spikes, plotting
from fireprop.nn import LI, LIF, Network, Sequential
from fireprop.shares import gradient_shares

EVIL = "</script><script>alert(1)</script><!--<b>&amp;\u2028{{DATA}}"
TYPES = {("f", 4): "<f4", ("f", 8): "<f8", ("i", 1): "<u1", ("i", 2): "<u2", ("i", 4): "<i4"}


class Elements(HTMLParser):
    """The elements of a page with what they hold."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])

    def handle_data(self, data):
        if self.found:
            self.found[-1][2] += data

    def of(self, tag):
        return [each for each in self.found if each[0] == tag]


def run_of(net, n_in=3):
    inputs = Spikes.from_latencies(torch.linspace(0.1, 0.9, n_in, dtype=torch.float64)[None])
    return net.record(inputs, t_end=3.0)


def chain(*sizes):
    torch.manual_seed(1)
    layers = [LIF(a, b, tau_mem=1.0, tau_syn=0.6) for a, b in pairwise(sizes)]
    for layer in layers:
        torch.nn.init.normal_(layer.weight, 2.0, 1.0)
    return Sequential(*layers)


def data_of(page):
    (script,) = [each for each in Elements(page).of("script") if each[1].get("id") == "data"]
    return json.loads(script[2])


def array_of(packed):
    numbers = np.frombuffer(base64.b64decode(packed["base64"]), TYPES[packed["kind"], packed["size"]])
    return np.broadcast_to(numbers, packed["n"]) if numbers.size == 1 else numbers


def test_the_page_needs_nothing_else_and_is_small():
    record = run_of(chain(3, 4, 2))
    page = plotting.explore(record, record[-1].times.sum())
    elements = Elements(page)
    assert not [each for each in elements.found if {"src", "srcset", "action"} & set(each[1])]
    assert [each[1]["href"] for each in elements.of("link")] == ["data:,"]
    policy = next(each[1]["content"] for each in elements.of("meta") if "http-equiv" in each[1])
    assert policy.startswith("default-src 'none'")
    urls = set(re.findall(r"https?://[^\"'\s)]+", page))
    assert urls == {"http://www.w3.org/2000/svg"}  # the name of a kind of element; nothing is loaded from it
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|import)\s*\(|innerHTML|eval\(|url\(", page)
    assert len(page.encode()) < 100_000


def test_what_a_user_names_is_escaped():
    torch.manual_seed(0)
    net = Network(3)
    net.add("hidden", 5, tau_mem=1.0)
    net.add("<img src=x>", 2, tau_mem=1.0)
    net.connect("input", "hidden", tau_syn=0.6, weight=torch.full((5, 3), 2.0))
    net.connect("hidden", "<img src=x>", tau_syn=0.6, weight=torch.full((2, 5), 1.5))
    record = run_of(net)
    notes = {EVIL: EVIL}
    page = plotting.explore(record, record[-1].times.sum(), title=EVIL, notes=notes, class_names=[EVIL, "b"])
    elements = Elements(page)
    assert len(elements.of("script")) == 2
    assert not elements.of("img")
    assert not elements.of("b")
    assert elements.of("title")[0][2].strip() == EVIL
    data = data_of(page)
    assert data["title"] == EVIL
    assert data["facts"][EVIL] == EVIL
    assert data["layers"][2]["names"] == [EVIL, "b"]
    assert data["layers"][2]["name"] == "<img src=x> (output)"
    assert "</script" not in page.partition('id="data"')[2].partition("</script>")[0]


def test_the_data_are_those_of_the_run():
    record = run_of(chain(3, 4, 2))
    loss = record[-1].times.square().sum()
    data, shares = data_of(plotting.explore(record, loss)), gradient_shares(record, loss)
    arrays = {name: array_of(packed) for name, packed in data["arrays"].items()}
    np.testing.assert_array_equal(arrays["total"], shares.circuit.by_time)
    np.testing.assert_array_equal(arrays["direct"], shares.direct)
    np.testing.assert_array_equal(arrays["synWeight"], shares.circuit.synapses.weight)
    assert data["arrays"]["synWeight"]["size"] == 4  # float32 has them exactly
    first = {layer["name"]: layer["first"] for layer in data["layers"]}
    assert first == {"input": 0, "hidden": 3, "output": 7}
    for k, layer in enumerate(record):
        mine = arrays["spikeUnit"] + 3 - (3, 7)[k]
        kept = (mine >= 0) & (mine < layer.n_units)
        np.testing.assert_array_equal(arrays["spikeTime"][kept], layer.times.detach())
        np.testing.assert_array_equal(mine[kept], layer.units)


def test_a_readout_is_a_layer_that_never_fires():
    net = Sequential(*chain(3, 4), LI(4, 2, tau_mem=1.5, tau_syn=0.5))
    record = run_of(net)
    page = plotting.explore(record, record[-1].maximum(0.0, 3.0).potential.sum(), class_names=["a", "b"])
    data = data_of(page)
    assert [layer["kind"] for layer in data["layers"]] == ["input", "spikes", "readout"]
    assert data["layers"][2]["names"] == ["a", "b"]
    arrays = {name: array_of(packed) for name, packed in data["arrays"].items()}
    assert arrays["theta"].tolist() == [1.0] * 4 + [np.inf] * 2
    own = slice(*arrays["synRow"][4:6])
    np.testing.assert_array_equal(arrays["synSender"][own], 3 + np.arange(4))
    np.testing.assert_array_equal(arrays["synWeight"][own], net[1].weight.detach()[0])


def test_data_grow_by_what_is_said():
    small, large = run_of(chain(3, 4, 2)), run_of(chain(3, 60, 40, 2))
    sizes = [len(plotting.explore(record, record[-1].times.sum())) for record in (small, large)]
    spikes = sum(layer.n_spikes for layer in large) - sum(layer.n_spikes for layer in small)
    synapses = 3 * 60 + 60 * 40 + 40 * 2 - (3 * 4 + 4 * 2)
    assert sizes[1] - sizes[0] < 60 * spikes + 24 * synapses + 40 * 100


def test_a_title_or_notes_of_another_kind_are_refused():
    record = run_of(chain(3, 2))
    with pytest.raises(TypeError, match="title = 3: give a text"):
        plotting.explore(record, record[-1].times.sum(), title=3)
    with pytest.raises(TypeError, match="notes = 'a': give a dict of texts"):
        plotting.explore(record, record[-1].times.sum(), notes="a")


def rgb(hexes):
    return np.array([[int(each[k : k + 2], 16) / 255.0 for k in (1, 3, 5)] for each in hexes])


def contrast(a, b):
    """Of two colours, as WCAG 2 defines it."""
    linear = [
        np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722] for c in (a, b)
    ]
    return (max(linear) + 0.05) / (min(linear) + 0.05)


def test_the_colours_of_gradients_differ_for_everyone_in_light_and_dark():
    style = Elements(plotting.explore(run := run_of(chain(3, 2)), run[0].times.sum())).of("style")[0][2]
    rules = re.findall(r":root[^{]*\{([^}]*)\}", style)
    assert len(rules) == 2
    for rule in rules:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", rule))
        named = rgb([colours[name] for name in ("earlier", "later", "neutral", "paper")])
        for apart in distances(named):
            assert apart[~np.eye(4, dtype=bool)].min() > 25.0
        for name in ("ink", "soft", "earlier", "later"):
            assert contrast(*rgb([colours[name], colours["paper"]])) > 4.5
