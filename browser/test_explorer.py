"""The explorer in a real browser: `make browser` (extra `browser`, and a Chromium on the machine)."""

import shutil
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright

from fireprop import Spikes, plotting
from fireprop.evidence.random_networks import KINDS, random_network
from fireprop.nn import LI, LIF, Network, Sequential
from fireprop.shares import gradient_shares

NAMES = "chromium", "chromium-browser", "google-chrome", "chrome"
EVIL = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"
EDGE = ("spikes", "events", "synapses", "arrivals", "by_time", "by_weight", "shares")
EDGES_OF = """([name, k]) => explorer.circuit[name](k).map((e) =>
    [e.spike, e.event, e.synapse, e.arrival, e.byTime, e.byWeight, e.share])"""


@pytest.fixture(scope="module")
def chromium():
    """The browser of the system, or else the one that `playwright install chromium` has brought."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium, tmp_path):
    """Opens a page; at the end the console has had no word, and nothing but the file was asked for."""
    said, asked, pages = [], [], []

    def opened(text, scheme="light"):
        file = tmp_path / f"{len(pages)}.html"
        file.write_text(text, encoding="utf-8")
        page = chromium.new_page(viewport={"width": 1360, "height": 820}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def latencies(n=3):
    return Spikes.from_latencies(torch.linspace(0.1, 0.9, n, dtype=torch.float64)[None])


def chain(*sizes, **options):
    torch.manual_seed(3)
    layers = [LIF(a, b, tau_mem=1.0, tau_syn=0.6, **options) for a, b in pairwise(sizes)]
    for layer in layers:
        torch.nn.init.normal_(layer.weight, 2.0, 1.2)
    return Sequential(*layers)


def weighed(record):
    return sum((layer.times.sin() * (1.0 + layer.units)).sum() for layer in record if isinstance(layer, Spikes))


def started():
    layer = LIF(3, 4, tau_mem=1.0, tau_syn=0.5, t_ref=0.05, bias=torch.full((4,), 0.2), v_start=torch.full((4,), 0.3))
    torch.nn.init.uniform_(layer.weight, 1.0, 3.0, generator=torch.Generator().manual_seed(0))
    return layer, latencies(), {"t_end": 3.0, "t_start": 0.0}


def cases():
    for kind in (each for each in KINDS if each != "alpha"):  # the page refuses alpha synapses
        net, inputs, t_end = random_network(torch.Generator().manual_seed(4), kind)
        yield kind, (net, inputs[0], {"t_end": t_end})
    yield "start", started()
    yield "delay", (chain(3, 5, 4, delay=0.3), latencies(), {"t_end": 3.0})
    yield "readout", (Sequential(*chain(3, 5), LI(5, 2, tau_mem=1.0, tau_syn=0.6)), latencies(), {"t_end": 3.0})
    yield "stop", (chain(3, 5, 4), latencies(), {"t_end": 3.0, "stop": "first_spikes"})


CASES = dict(cases())


def recorded(case):
    net, inputs, options = CASES[case]
    record = net.record(inputs, **options)
    loss = weighed(record)
    if case == "readout":
        loss = loss + record[-1].maximum(0.0, 3.0).potential.square().sum()
    return record, loss


def in_order(table):
    return table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]


@pytest.mark.parametrize("case", CASES)
def test_the_edges_and_sums_of_the_page_are_those_of_python(show, case):
    record, loss = recorded(case)
    shares, page = gradient_shares(record, loss), show(plotting.explore(record, loss))
    assert shares.n_spikes > 4
    for name, number in (("causes", shares.n_spikes), ("effects", shares.n_events)):
        for k in range(number):
            found = np.array(page.evaluate(EDGES_OF, [name, k]), float).reshape(-1, len(EDGE))
            edges = getattr(shares, name)(k)
            wanted = np.stack([np.asarray(getattr(edges, field), float) for field in EDGE], axis=1)
            scale = 1.0 + np.abs(wanted).max(initial=0.0)
            np.testing.assert_allclose(in_order(found), in_order(wanted), rtol=0, atol=1e-12 * scale)
    total = shares.circuit.by_time
    for k in range(shares.n_spikes):
        page.evaluate("(k) => explorer.choose(k)", k)
        for box in page.query_selector_all(".sum"):
            found, said = (float(box.get_attribute(f"data-{what}")) for what in ("sum", "gradient"))
            assert said == total[k]
            assert found == pytest.approx(total[k], abs=1e-12 * (1.0 + np.abs(shares.causes(k).shares).sum()))


@pytest.mark.parametrize("case", CASES)
def test_the_potentials_of_the_page_are_those_of_python(show, case):
    record, loss = recorded(case)
    page = show(plotting.explore(record, loss))
    known = float(record.runs[0].t_known[0])
    times = torch.from_numpy(np.sort(np.random.default_rng(0).uniform(0.0, known, 40)))
    lanes = page.evaluate("explorer.drawing.lanes.map((lane) => [lane.kind, lane.first, lane.units])")
    for k, (kind, first, units) in enumerate(lanes[1:]):
        assert kind == ("spikes" if isinstance(record[k], Spikes) else "readout")
        for unit in range(units):
            index = first - lanes[0][2] + unit
            found = page.evaluate(
                "([u, times]) => { const p = explorer.circuit.potential(u); return times.map((t) => p.value(t)); }",
                [index, times.tolist()],
            )
            wanted = record.potential(k, unit, times).numpy()
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * (1.0 + np.abs(wanted).max()))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_click_on_a_spike_shows_its_causes(show, scheme):
    record, loss = recorded("chain")
    shares, page = gradient_shares(record, loss), show(plotting.explore(record, loss), scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    k = shares.n_spikes - 1
    stage = page.locator("#overlay").bounding_box()
    x, y = page.evaluate("(k) => explorer.drawing.place(k)", k)
    page.mouse.click(stage["x"] + x, stage["y"] + y)
    assert page.evaluate("explorer.drawing.chosen") == k
    rows = page.locator("#panel table").first.locator("tbody tr")
    shown = sum(shares.causes(k).shares != 0.0)
    assert rows.count() == min(60, max(shown, 3))
    strongest = np.abs(shares.causes(k).shares).max()
    first = float(rows.first.locator("td").last.inner_text().replace("\u2212", "-"))
    assert abs(first) == pytest.approx(strongest, rel=1e-3)
    rows.nth(1).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("explorer.drawing.chosen") != k
    page.keyboard.press("Backspace")
    assert page.evaluate("explorer.drawing.chosen") == k


def test_keys_walk_zoom_search_and_change_the_colours(show):
    record, loss = recorded("populations")
    page = show(plotting.explore(record, loss))
    chosen = "explorer.drawing.chosen"
    page.focus("#stage")
    page.keyboard.press("Enter")
    k = page.evaluate(chosen)
    shares = gradient_shares(record, loss)
    assert k == int(np.argmax(np.abs(shares.circuit.by_time)))
    page.keyboard.press("ArrowUp")
    causes = shares.causes(k)
    assert page.evaluate(chosen) == causes.events[np.argmax(np.abs(causes.shares))]
    width = page.evaluate("explorer.drawing.view.t1 - explorer.drawing.view.t0")
    page.keyboard.press("+")
    assert page.evaluate("explorer.drawing.view.t1 - explorer.drawing.view.t0") == pytest.approx(0.6 * width)
    page.keyboard.press("0")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("/")
    page.keyboard.type("inhib 1")
    page.keyboard.press("Enter")
    assert page.locator("#panel h2").inner_text() == "inhibitory 1"
    assert float(page.locator("#weight-check").get_attribute("data-difference")) < 1e-12
    assert page.evaluate("explorer.drawing.unit.row") == 1
    page.keyboard.press("[")
    assert page.locator("#panel h2").inner_text() == "inhibitory 0"
    page.keyboard.press("Escape")
    assert page.locator("#panel h2").inner_text() == "Choose a spike"
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


def test_names_are_text_in_the_page(show):
    torch.manual_seed(0)
    net = Network(3)
    net.add("hidden", 4, tau_mem=1.0)
    net.add("<b onclick=x>", 2, tau_mem=1.0)
    net.connect("input", "hidden", tau_syn=0.6, weight=torch.full((4, 3), 2.0))
    net.connect("hidden", "<b onclick=x>", tau_syn=0.6, weight=torch.full((2, 4), 1.5))
    record = net.record(latencies(), t_end=3.0)
    text = plotting.explore(record, weighed(record), title=EVIL, notes={EVIL: EVIL}, class_names=[EVIL, EVIL])
    page = show(text)
    page.focus("#stage")
    page.keyboard.press("Enter")
    page.keyboard.press("/")
    page.keyboard.type("0")
    assert page.title() == EVIL
    assert page.evaluate("[window.broken, document.images.length, document.scripts.length]") == [None, 0, 2]
    assert page.locator("b").count() == 0


def test_a_sample_without_spikes_is_shown(show):
    record = chain(3, 4).record(Spikes.from_latencies([[float("inf")] * 3, [0.1, 0.2, 0.3]]), t_end=3.0)
    page = show(plotting.explore(record, record[0].times.sum(), sample=0))
    page.focus("#stage")
    for key in ("Enter", "ArrowUp", "ArrowLeft", "+"):
        page.keyboard.press(key)
    assert page.evaluate("explorer.drawing.chosen") is None
    page.evaluate("explorer.chooseUnit(explorer.drawing.lanes[1], 0)")
    assert page.locator("#panel h2").inner_text() == "output 0"


def test_one_can_zoom_to_the_resolution_of_a_number_at_a_late_time(show):
    far = 2.0**33
    net = chain(3, 4, dtype=torch.float64)
    record = net.record(Spikes.from_latencies([[far, far + 0.2, far + 0.4]]), t_end=far + 3.0)
    page = show(plotting.explore(record, weighed(record)))
    page.focus("#stage")
    page.keyboard.press("Enter")
    for _ in range(80):
        page.keyboard.press("+")
    t = page.evaluate("explorer.circuit.times[explorer.drawing.chosen]")
    view = page.evaluate("explorer.drawing.view")
    assert view["t0"] < t < view["t1"] < view["t0"] + 0.1


def busy(n_hidden, weight):
    """A run of 2 s with many spikes."""
    generator = torch.Generator().manual_seed(0)
    net = Sequential(LIF(100, n_hidden, tau_mem=0.01, tau_syn=0.005), LIF(n_hidden, 10, tau_mem=0.01, tau_syn=0.005))
    torch.nn.init.normal_(net[0].weight, weight, 8.0, generator=generator)
    torch.nn.init.normal_(net[1].weight, 160.0 / n_hidden, 2.0, generator=generator)
    times = torch.rand(6000, generator=generator, dtype=torch.float64) * 2.0
    units = torch.randint(100, (6000,), generator=generator)
    record = net.record(Spikes.from_events(times, units, None, n_units=100), t_end=2.0)
    return record, weighed(record)


FRAMES = """async (n) => {
  const start = performance.now();
  for (let i = 0; i < n; i++) {
    if (i % 2) explorer.pan(i % 4 === 1 ? 0.02 : -0.02); else explorer.zoom(i % 4 ? 1.03 : 1 / 1.03);
    await new Promise(requestAnimationFrame);
  }
  return n / (performance.now() - start) * 1000;
}"""


@pytest.mark.parametrize(("spikes", "shape", "least"), [(1e4, (40, 13.0), 30.0), (1e5, (140, 28.0), 10.0)])
def test_many_spikes_stay_quick(show, capsys, spikes, shape, least):
    record, loss = busy(*shape)
    text = plotting.explore(record, loss)
    start = time.perf_counter()
    page = show(text)
    page.wait_for_function("typeof explorer !== 'undefined'")
    opened = time.perf_counter() - start
    number = page.evaluate("explorer.circuit.nSpikes")
    assert number > spikes
    page.evaluate(FRAMES, 10)
    whole = page.evaluate(FRAMES, 60)
    page.focus("#stage")
    start = time.perf_counter()
    page.keyboard.press("Enter")
    page.evaluate("explorer.drawing.draw()")
    click = time.perf_counter() - start
    chosen = page.evaluate(FRAMES, 60)
    with capsys.disabled():
        print(
            f"\n{number} spikes, {len(text) / 1e6:.2f} MB: opens in {opened:.2f} s, {whole:.0f} frames/s, a spike is "
            f"chosen in {click:.2f} s, then {chosen:.0f} frames/s"
        )
    assert whole > least
    assert click < 2.0
